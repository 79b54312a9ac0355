//! The manifest of a partition on disk: two slots in one file, written alternately, each write synced.
//!
//! Owns which slot counts and where the next one goes. Every change of a folder is one slot write. A slot's place is its
//! number modulo 2, so that a stale one that a disk puts over the newest is noticed.

use std::io;
use std::sync::Arc;

use super::format::{Manifest, SLOT_ALIGN_BYTES, SLOT_BYTES_MAX, decode_manifest, encode_manifest};
use crate::disk::{DiskFile, Durability, OpenMode};
use crate::files::Files;
use crate::health::BadSlots;
use crate::ids::PartitionId;
use crate::metrics::Reason;

/// The manifest's file.
pub(crate) const MANIFEST: &str = "manifest";
/// A larger manifest on its way; a crash may leave it.
pub(crate) const MANIFEST_NEW: &str = "manifest.new";

/// The manifest that counts, and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    pub(crate) manifest: Manifest,
    /// Bytes of one slot; 0 while the partition has no folder.
    capacity_bytes: u64,
}

/// What a manifest file holds.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The slot that counts, if one is valid.
    pub(crate) slots: Option<Slots>,
    /// Why the other slot (or both) does not decode.
    pub(crate) damaged: BadSlots,
}

impl Slots {
    /// A partition without a folder.
    pub(crate) fn none(partition: PartitionId) -> Self {
        Slots {
            manifest: Manifest::empty(partition),
            capacity_bytes: 0,
        }
    }

    /// Where the next slot goes, without what the newest one says.
    pub(crate) fn place(&self) -> Self {
        let (partition, seq) = (self.manifest.partition, self.manifest.seq);
        Slots {
            manifest: Manifest {
                seq,
                ..Manifest::empty(partition)
            },
            ..*self
        }
    }

    /// Whether the partition has a folder.
    pub(crate) fn exist(&self) -> bool {
        self.capacity_bytes > 0
    }

    /// Bytes of one slot.
    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Writes `manifest` as the newest slot, synced. The folder is made if need be.
    pub(crate) fn write(&mut self, files: &Files, manifest: Manifest) -> io::Result<()> {
        match self.put(files, manifest)? {
            Some(file) => file.sync_data(),
            None => Ok(()),
        }
    }

    /// The same, and durable only once the file that is returned is synced, if one is.
    pub(crate) fn put(
        &mut self,
        files: &Files,
        mut manifest: Manifest,
    ) -> io::Result<Option<Arc<dyn DiskFile>>> {
        manifest.seq = self.manifest.seq + 1;
        let bytes = encode_manifest(&manifest);
        if bytes.len() > SLOT_BYTES_MAX {
            return Err(io::Error::other(format!(
                "a manifest of {} bytes is too large",
                bytes.len()
            )));
        }
        let unsynced = if bytes.len() as u64 > self.capacity_bytes {
            self.replace(files, &manifest)?;
            None
        } else {
            Some(self.put_at(files, &manifest, &bytes)?)
        };
        self.manifest = manifest;
        Ok(unsynced)
    }

    fn put_at(
        &self,
        files: &Files,
        manifest: &Manifest,
        bytes: &[u8],
    ) -> io::Result<Arc<dyn DiskFile>> {
        let path = files.partition_dir(manifest.partition).join(MANIFEST);
        let file = files.disk().open(&path, OpenMode::Write)?;
        let position = place(manifest.seq) * self.capacity_bytes;
        file.write_at(bytes, position, Durability::Later)?;
        Ok(file)
    }

    /// Writes the slot that counts once more in place, synced.
    pub(crate) fn write_again(&self, files: &Files) -> io::Result<()> {
        self.put_at(files, &self.manifest, &encode_manifest(&self.manifest))?
            .sync_data()
    }

    /// Writes a new manifest file with room for `manifest` and moves it over the old one. The other slot says the same
    /// under the number before: one of zeros would be one that somebody has wiped.
    fn replace(&mut self, files: &Files, manifest: &Manifest) -> io::Result<()> {
        let id = manifest.partition;
        let before = Manifest {
            seq: manifest.seq - 1,
            ..manifest.clone()
        };
        let slots = [manifest, &before].map(|m| (place(m.seq), encode_manifest(m)));
        let dir = files.partition_dir(id);
        let gained = if self.exist() {
            Vec::new()
        } else {
            files.make_dirs(id)?
        };
        let capacity = slots[0]
            .1
            .len()
            .next_multiple_of(SLOT_ALIGN_BYTES)
            .next_power_of_two() as u64;
        let file = files
            .disk()
            .open(&dir.join(MANIFEST_NEW), OpenMode::Create)?;
        file.set_len(0)?;
        file.set_len(2 * capacity)?;
        for (place, bytes) in &slots {
            file.write_at(bytes, place * capacity, Durability::Later)?;
        }
        file.sync_data()?;
        files
            .disk()
            .rename(&dir.join(MANIFEST_NEW), &dir.join(MANIFEST))?;
        files.disk().sync_dir(&dir)?;
        files.sync_dirs(id, &gained)?;
        self.capacity_bytes = capacity;
        Ok(())
    }

    /// Reads the manifest of a folder; `None` when there is no such file.
    pub(crate) fn load(files: &Files, id: PartitionId) -> io::Result<Option<Loaded>> {
        let path = files.partition_dir(id).join(MANIFEST);
        Ok(files
            .read_whole(&path)?
            .map(|bytes| decode_slots(&bytes, id)))
    }
}

/// Which of the two places a slot has.
fn place(seq: u64) -> u64 {
    seq % 2
}

/// Both slots of a manifest file.
pub(crate) fn decode_slots(bytes: &[u8], id: PartitionId) -> Loaded {
    let capacity = bytes.len() / 2;
    let mut loaded = Loaded {
        slots: None,
        damaged: Vec::new(),
    };
    for slot in 0..2_u64 {
        let at = slot as usize * capacity;
        let content = &bytes[at..at + capacity];
        match decode_manifest(content) {
            Ok(manifest) if manifest.partition == id && place(manifest.seq) != slot => {
                loaded.damaged.push((at as u64, Reason::SlotCrc));
            }
            Ok(manifest) if manifest.partition == id => {
                let newer = loaded
                    .slots
                    .as_ref()
                    .is_none_or(|s| s.manifest.seq < manifest.seq);
                if newer {
                    loaded.slots = Some(Slots {
                        manifest,
                        capacity_bytes: capacity as u64,
                    });
                }
            }
            Ok(_) => loaded.damaged.push((at as u64, Reason::UnlistedFile)),
            Err(reason) => loaded.damaged.push((at as u64, reason)),
        }
    }
    loaded
}
