//! What a WAL's folder holds, read without changing it: the first look of every start, and of a reader beside a broker.
//!
//! Owns which manifest slot counts, and which files can be read with which salt. Never writes, never reads a group.

use std::path::{Path, PathBuf};

use crate::disk::{BLOCK_BYTES, Disk, OpenMode};
use crate::health::BadSlots;
use crate::metrics::Reason;

use super::WalOpenError;
use super::files::{file_name, open_error, slot_position};
use super::format::{FileHead, ManifestSlot, SlotRead};

/// What a WAL's folder holds, read without changing it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) slot: ManifestSlot,
    /// The oldest file that each slot needs; an unreadable slot counts as the other.
    pub(crate) slots: [u64; 2],
    /// Position and reason of a slot that is not whole.
    pub(crate) damaged: BadSlots,
    pub(crate) files: Vec<FoundFile>,
    /// Length of the very first file while it is still being zeroed.
    pub(crate) filled: Option<u64>,
}

/// What of a WAL's own files is not whole, although groups can be read: places by file, relative to the data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Damaged {
    /// A slot of the manifest.
    pub(crate) slots: Vec<(PathBuf, u64, Reason)>,
    /// First blocks of files.
    pub(crate) heads: Vec<(PathBuf, Reason)>,
}

impl Found {
    pub(crate) fn damaged(&self) -> Damaged {
        let wal = Path::new("wal");
        let slots = self
            .damaged
            .iter()
            .map(|(position, reason)| (wal.join("manifest"), *position, *reason));
        let heads = self.files.iter().filter_map(|file| {
            let path = wal.join(file_name(file.head.generation));
            file.head_damage.map(|reason| (path, reason))
        });
        Damaged {
            slots: slots.collect(),
            heads: heads.collect(),
        }
    }
}

/// A file that may hold groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FoundFile {
    pub(crate) head: FileHead,
    /// Why block 0 does not verify: then the salt came from the manifest.
    pub(crate) head_damage: Option<Reason>,
    /// Its length on disk, in whole blocks.
    pub(crate) length: u64,
}

/// No group, start, generation or slot has a higher number: a forged one, although its checksum holds, could not be counted
/// on from.
const COUNT_MAX: u64 = i64::MAX as u64;

/// Groups and generations count from 1, and the group that is needed is not in front of its file.
fn is_possible(slot: &ManifestSlot) -> bool {
    let at = &slot.checkpoint;
    let begins = at.generation >= 1 && (1..=at.group).contains(&at.first_group);
    let counted = [
        slot.number,
        slot.boot,
        at.group,
        at.generation,
        at.first_group,
    ];
    let generations = slot.files.iter().map(|(generation, _)| *generation);
    let mut all = counted.into_iter().chain(generations);
    begins && all.all(|number| number <= COUNT_MAX)
}

fn refused(path: &Path, reason: impl Into<String>) -> WalOpenError {
    WalOpenError::Refused {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

/// The generations of the `.wal` files of a folder, and whether it holds a manifest.
fn list(disk: &dyn Disk, dir: &Path) -> Result<(Vec<u64>, bool), WalOpenError> {
    let mut generations = Vec::new();
    let mut manifest = false;
    for entry in disk.list(dir).map_err(open_error("list", dir))? {
        if entry.name == "manifest" {
            manifest = true;
        } else if let Some(stem) = entry.name.strip_suffix(".wal") {
            let generation = stem
                .parse()
                .ok()
                .filter(|g| *g <= COUNT_MAX && file_name(*g) == entry.name);
            generations.push(generation.ok_or_else(|| {
                refused(&dir.join(&entry.name), "this is not the name of a WAL file")
            })?);
        }
    }
    generations.sort_unstable();
    Ok((generations, manifest))
}

/// The starts that a data directory has counted, 0 before the first one came so far.
pub(crate) fn boots(disk: &dyn Disk, data_dir: &Path) -> Result<u64, WalOpenError> {
    let found = find(disk, &data_dir.join("wal"))?;
    Ok(found.map_or(0, |found| found.slot.boot))
}

/// Reads what is there. `None`: nothing was ever written to this WAL.
pub(crate) fn find(disk: &dyn Disk, dir: &Path) -> Result<Option<Found>, WalOpenError> {
    if !disk.exists(dir).map_err(open_error("look for", dir))? {
        return Ok(None);
    }
    let (generations, has_manifest) = list(disk, dir)?;
    let path = dir.join("manifest");
    let (slots, damaged) = if has_manifest {
        read_manifest(disk, &path)?
    } else {
        (Vec::new(), Vec::new())
    };
    let Some(slot) = slots.iter().max_by_key(|slot| slot.number).cloned() else {
        // The manifest is durable before the first file has its name.
        if generations.is_empty() {
            return Ok(None);
        }
        return Err(refused(
            &path,
            "the WAL's manifest is missing or neither of its slots verifies, but there are WAL files: \
             restore it, since without it nobody knows where replay must start",
        ));
    };
    let mut needed = [slot.checkpoint.generation; 2];
    for found in &slots {
        needed[(found.number % 2) as usize] = found.checkpoint.generation;
    }
    let mut files = Vec::new();
    for generation in &generations {
        files.push(find_file(
            disk,
            dir,
            *generation,
            &slot,
            !damaged.is_empty(),
        )?);
    }
    for (generation, _) in &slot.files {
        let needed = *generation >= slot.checkpoint.generation;
        if needed && !generations.contains(generation) {
            return Err(WalOpenError::Missing {
                path: dir.join(file_name(*generation)),
            });
        }
    }
    let alone = files.len() == 1 && slot.files.len() <= 1;
    let filled = files
        .first()
        .filter(|file| alone && file.head.generation == 1 && file.length < file.head.file_bytes)
        .map(|file| file.length);
    Ok(Some(Found {
        slot,
        slots: needed,
        damaged,
        files,
        filled,
    }))
}

fn find_file(
    disk: &dyn Disk,
    dir: &Path,
    generation: u64,
    slot: &ManifestSlot,
    slot_damaged: bool,
) -> Result<FoundFile, WalOpenError> {
    let path = dir.join(file_name(generation));
    let file = disk
        .open(&path, OpenMode::Read)
        .map_err(open_error("open", &path))?;
    let length = file
        .len()
        .map_err(open_error("ask for the length of", &path))?;
    let length = length / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    let mut block = vec![0; BLOCK_BYTES];
    // A block that the disk cannot read is one that does not verify: the manifest has the salt, too.
    let (head, reason) = match file.read_at(&mut block, 0) {
        Ok(_) => (FileHead::decode(&block), Reason::HeaderCrc),
        Err(_) => (None, Reason::Io),
    };
    if let Some(head) = head.filter(|head| head.generation == generation) {
        return Ok(FoundFile {
            head,
            head_damage: None,
            length,
        });
    }
    let listed = slot.files.iter().find(|(listed, _)| *listed == generation);
    match listed {
        Some((_, salt)) => Ok(FoundFile {
            head: FileHead {
                generation,
                salt: *salt,
                file_bytes: slot.file_bytes,
            },
            head_damage: Some(reason),
            length,
        }),
        None => Err(refused(
            &path,
            if slot_damaged {
                "its first block does not verify, and neither does the manifest slot that would name its salt"
            } else {
                "its first block does not verify, and the manifest does not list it"
            },
        )),
    }
}

/// The valid slots, and where one is not whole.
fn read_manifest(
    disk: &dyn Disk,
    path: &Path,
) -> Result<(Vec<ManifestSlot>, BadSlots), WalOpenError> {
    let file = disk
        .open(path, OpenMode::Read)
        .map_err(open_error("open", path))?;
    let mut slots: Vec<ManifestSlot> = Vec::new();
    let (mut damaged, mut empty) = (Vec::new(), Vec::new());
    for position in [0, BLOCK_BYTES as u64] {
        let mut block = vec![0; BLOCK_BYTES];
        match file.read_at(&mut block, position) {
            Ok(read) => block[read..].fill(0),
            Err(_) => {
                damaged.push((position, Reason::Io));
                continue;
            }
        }
        match ManifestSlot::decode(&block) {
            SlotRead::Valid(slot)
                if is_possible(&slot) && slot_position(slot.number) == position =>
            {
                slots.push(slot);
            }
            SlotRead::Valid(_) | SlotRead::Damaged => damaged.push((position, Reason::SlotCrc)),
            SlotRead::Empty => empty.push((position, Reason::SlotCrc)),
            SlotRead::OtherVersion(version) => {
                return Err(refused(
                    path,
                    format!("the WAL has format {version}, which this version does not read"),
                ));
            }
        }
    }
    // From the second number on, both were written.
    if slots.iter().any(|slot| slot.number > 1) {
        damaged.append(&mut empty);
    }
    Ok((slots, damaged))
}
