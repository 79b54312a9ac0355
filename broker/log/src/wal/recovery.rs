//! The start of a WAL: replay, then making durable what was kept, then the boot group.
//!
//! Owns the order of these. Nothing that recovery kept may be served before [`WalRecovery::finish`] has returned: until
//! then a power cut could still take it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::disk::{AlignedBuf, BLOCK_BYTES, Disk, DiskFile, Durability, OpenMode};
use crate::metrics::LogMetrics;
use crate::node::Node;

use super::files::{Files, Prepared, file_name};
use super::format::{FRAME_HEADER_BYTES, PreviousTable, frames_bytes, group_bytes};
use super::found::{Damaged, Found, find};
use super::handle::Wal;
use super::queue::Queue;
use super::readback::ReadBack;
use super::scan::Scanner;
use super::source::Extent;
use super::writer::{Cursor, Shared, Writer, own_frame};
use super::{
    Discarded, DurableGroup, FrameBody, Recovered, TornTail, WalOpenError, WalOptions, WalSink,
    WalSizing,
};

/// Behind the last kept group this much is overwritten with zeros, if it is not zeros already: the rest of a group
/// whose header did not reach the disk (what is longer cannot be taken for a group either: its header is salted).
const CLEARED_BYTES: u64 = 1 << 20;

/// A WAL that is being read at the start of the broker.
pub struct WalRecovery {
    disk: Arc<dyn Disk>,
    node: Arc<Node>,
    options: WalOptions,
    dir: PathBuf,
    files: Files,
    found: Found,
    scanner: Scanner,
    torn: Option<TornTail>,
    ended: bool,
    kept: bool,
}

impl WalRecovery {
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        node: Arc<Node>,
        options: WalOptions,
    ) -> Result<WalRecovery, WalOpenError> {
        let dir = node.data_dir().join("wal");
        let space = disk
            .space(node.data_dir())
            .map_err(failed("ask for the size of", node.data_dir()))?;
        let wanted = options
            .sizing
            .unwrap_or_else(|| WalSizing::for_volume(space.total_bytes, None, None));
        let found = match find(disk.as_ref(), &dir)? {
            Some(found) if !found.files.is_empty() => found,
            Some(found) => {
                // The first start ended between the manifest and the first file.
                let files =
                    Files::open(Arc::clone(&disk), &dir, kept_sizing(wanted, &found), &found)?;
                files.prepare().map_err(failed("create a file in", &dir))?;
                find_created(disk.as_ref(), &dir)?
            }
            None => {
                Files::create(Arc::clone(&disk), &dir, wanted)?;
                find_created(disk.as_ref(), &dir)?
            }
        };
        let files = Files::open(Arc::clone(&disk), &dir, kept_sizing(wanted, &found), &found)?;
        let scanner = Scanner::new(
            Arc::clone(&disk),
            &dir,
            &found,
            Some(options.given_up.clone()),
        )
        .past_the_cache();
        Ok(WalRecovery {
            disk,
            node,
            options,
            dir,
            files,
            found,
            scanner,
            torn: None,
            ended: false,
            kept: false,
        })
    }

    /// The next step, in replay order from the checkpoint; `None` at the end. `Err` means that the start must stop.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Recovered>, WalOpenError> {
        if let Some(group) = self.scanner.next()? {
            return Ok(Some(Recovered::Group(group)));
        }
        self.ended = true;
        if let Some(torn) = self.scanner.take_torn() {
            self.torn = Some(torn.clone());
            return Ok(Some(Recovered::Torn(torn)));
        }
        Ok(None)
    }

    /// The lowest group that must be replayed.
    pub fn checkpoint_group(&self) -> u64 {
        self.found.slot.checkpoint.group
    }

    /// What of the WAL's own files was found not to be whole; [`WalRecovery::finish`] writes it anew.
    pub(crate) fn damaged(&self) -> Damaged {
        self.found.damaged()
    }

    /// The most bytes (batches, plus 64 per frame) that one submit may hold.
    pub fn submit_bytes_max(&self) -> usize {
        self.files.sizing.submit_bytes_max()
    }

    /// An upper bound of the bytes still to be read.
    pub fn remaining_bytes(&self) -> u64 {
        self.scanner.remaining_bytes()
    }

    /// Must follow the last `next`: makes durable what was kept, then writes the boot group and starts the writer.
    pub fn finish(
        mut self,
        sink: Arc<dyn WalSink>,
        metrics: Arc<LogMetrics>,
    ) -> Result<Wal, WalOpenError> {
        self.keep()?;
        self.finish_with(sink, metrics, Wal::start)
    }

    /// Must follow the last `next`: makes durable what was kept. `Some`: the boot group finds no room before the checkpoint
    /// has moved to this group ([`WalRecovery::set_checkpoint`]).
    pub(crate) fn keep(&mut self) -> Result<Option<u64>, WalOpenError> {
        assert!(
            self.ended,
            "a WAL is replayed to its end before it is written"
        );
        self.kept = true;
        for (generation, first_group) in &self.scanner.used {
            self.files.used(*generation, *first_group);
        }
        self.repair_heads()?;
        self.clear_tail()?;
        self.write_last_again()?;
        if self.boot_fits() || self.prepare()? == Prepared::Room {
            return Ok(None);
        }
        Ok(self.files.wants_checkpoint())
    }

    /// Everything below `group` is in segments now: a file may be used again.
    pub(crate) fn set_checkpoint(&self, group: u64) -> Result<(), WalOpenError> {
        self.files
            .set_checkpoint(group)
            .map_err(failed("write", &self.dir.join("manifest")))?;
        self.prepare().map(drop)
    }

    fn prepare(&self) -> Result<Prepared, WalOpenError> {
        let prepared = self.files.prepare();
        prepared.map_err(failed("prepare a file in", &self.dir))
    }

    /// Whether there is room for the boot group, behind the last kept one or in a file that stands by.
    fn boot_fits(&self) -> bool {
        let Some((file, position)) = self.scanner.end() else {
            return false;
        };
        let boot = own_frame(FrameBody::Boot { discarded: None });
        let table = self.scanner.kept().table.len() * FRAME_HEADER_BYTES;
        let end = position + group_bytes(frames_bytes(&[boot]), table) as u64;
        end <= self.files.end_of(&file.head) || self.files.standby_and_reserve().0 > 0
    }

    /// Must follow [`WalRecovery::keep`]: the boot group, and a start of the caller's.
    pub(crate) fn finish_with(
        self,
        sink: Arc<dyn WalSink>,
        metrics: Arc<LogMetrics>,
        start: impl FnOnce(Writer) -> io::Result<Wal>,
    ) -> Result<Wal, WalOpenError> {
        assert!(self.kept, "what was kept is durable before the boot group");
        let boot = self
            .files
            .count_boot(self.options.boot_min)
            .map_err(failed("write", &self.dir.join("manifest")))?;
        let cursor = self.cursor(boot)?;
        let discarded = self.discarded();
        let shared = Arc::new(Shared {
            queue: Queue::new(
                self.options.data_queue_bytes_max,
                self.options.control_queue_bytes_max,
            ),
            files: self.files,
            durable_group: AtomicU64::new(cursor.durable_seq),
            read_back: ReadBack::new(self.options.read_back_groups),
            node: self.node,
            follows_volume: self.options.sizing.is_none(),
            sink,
            metrics,
        });
        let mut writer = Writer {
            shared,
            cursor,
            buffer: AlignedBuf::zeroed(0),
            group: DurableGroup {
                seq: 0,
                generation: 0,
                frames: vec![own_frame(FrameBody::Boot { discarded })],
            },
            seal_after: self.options.seal_after,
            prepares: !self.options.background,
        };
        let written = writer.write_boot();
        written.map_err(|error| no_boot(error, &self.dir))?;
        start(writer).map_err(failed("start the threads of", &self.dir))
    }

    /// A file whose first block is damaged gets it back: the manifest had its salt.
    fn repair_heads(&self) -> Result<(), WalOpenError> {
        for file in self
            .found
            .files
            .iter()
            .filter(|file| file.head_damage.is_some())
        {
            let path = self.dir.join(file_name(file.head.generation));
            tracing::error!(path = %path.display(), "the first block of a WAL file did not verify; it was written again");
            let handle = self.open_file(&path, OpenMode::Write)?;
            handle
                .write_at(&file.head.encode(), 0, Durability::Synced)
                .map_err(failed("write", &path))?;
        }
        Ok(())
    }

    /// Zeros over everything behind the last kept group that a later start could take for something.
    fn clear_tail(&mut self) -> Result<(), WalOpenError> {
        let mut extents: Vec<(u64, u64, u64)> = Vec::new();
        let discarded: Vec<Extent> = self.scanner.discarded.clone();
        for extent in discarded {
            let generation = self.scanner.file(extent.place.file).head.generation;
            extents.push((generation, extent.place.position, extent.length));
        }
        if let Some((file, position)) = self.scanner.end() {
            let length = CLEARED_BYTES.min(self.files.end_of(&file.head).saturating_sub(position));
            extents.push((file.head.generation, position, length));
        }
        for (generation, position, length) in extents {
            let path = self.dir.join(file_name(generation));
            let handle = self.open_file(&path, OpenMode::Write)?;
            if !is_zero(handle.as_ref(), position, length) {
                handle
                    .zero_fill(position, length)
                    .and_then(|()| handle.sync_data())
                    .map_err(failed("clear the tail of", &path))?;
            }
        }
        Ok(())
    }

    /// No later group testifies for the last one: perhaps only the page cache has it.
    fn write_last_again(&self) -> Result<(), WalOpenError> {
        let Some(extent) = self.scanner.kept().whole else {
            return Ok(());
        };
        let generation = self.scanner.file(extent.place.file).head.generation;
        let path = self.dir.join(file_name(generation));
        let handle = self.open_file(&path, OpenMode::Write)?;
        let mut bytes = AlignedBuf::zeroed(extent.length as usize);
        handle
            .read_exact_at(&mut bytes, extent.place.position)
            .and_then(|()| handle.write_at(&bytes, extent.place.position, Durability::Synced))
            .map_err(failed("write the last group again in", &path))
    }

    fn cursor(&self, boot: u64) -> Result<Cursor, WalOpenError> {
        let (file, position) = self.scanner.end().ok_or_else(|| WalOpenError::Refused {
            path: self.dir.clone(),
            reason: "no WAL file at or above the checkpoint is there".to_owned(),
        })?;
        let path = self.dir.join(file_name(file.head.generation));
        let handle = self.open_file(&path, OpenMode::Direct)?;
        let kept = self.scanner.kept();
        Ok(Cursor {
            head: file.head,
            file: handle,
            position,
            next_seq: kept.seq + 1,
            durable_seq: kept.seq,
            boot,
            previous: PreviousTable::of(kept.seq, &kept.table, kept.header_crc),
        })
    }

    fn discarded(&self) -> Option<Discarded> {
        let torn = self.torn.as_ref()?;
        let extent = self.scanner.discarded.first()?;
        Some(Discarded {
            generation: self.scanner.file(extent.place.file).head.generation,
            position: torn.position,
            length: torn.bytes,
        })
    }

    fn open_file(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, WalOpenError> {
        self.disk
            .open(path, mode)
            .map_err(failed("open for writing", path))
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WalOpenError + use<> {
    let path = path.to_owned();
    move |source| WalOpenError::Io {
        doing,
        path,
        source,
    }
}

/// Why there is no boot group, in words that help if room does.
fn no_boot(error: io::Error, dir: &Path) -> WalOpenError {
    if error.kind() != io::ErrorKind::StorageFull {
        return failed("write the boot group in", dir)(error);
    }
    WalOpenError::Refused {
        path: dir.to_owned(),
        reason: "all its files are full, and the volume has no room to move what they hold into segments: make room on it"
            .to_owned(),
    }
}

/// Files keep the length they were made with; the cap in bytes is today's.
fn kept_sizing(wanted: WalSizing, found: &Found) -> WalSizing {
    let kept = WalSizing {
        file_bytes: found.slot.file_bytes.max(4 * BLOCK_BYTES as u64),
        files_max: wanted.files_max,
    };
    WalSizing {
        files_max: kept.files_max_within(wanted.file_bytes * wanted.files_max as u64),
        ..kept
    }
}

fn find_created(disk: &dyn Disk, dir: &Path) -> Result<Found, WalOpenError> {
    find(disk, dir)?
        .filter(|found| !found.files.is_empty())
        .ok_or_else(|| WalOpenError::Refused {
            path: dir.to_owned(),
            reason: "the volume has no room for the first WAL file".to_owned(),
        })
}

/// A range that cannot be read, or that the file lacks, counts as not zero: writing mends it.
fn is_zero(file: &dyn DiskFile, position: u64, length: u64) -> bool {
    let mut buffer = vec![0; CLEARED_BYTES.min(length) as usize];
    let end = position.saturating_add(length);
    let mut starts = (position..end).step_by(CLEARED_BYTES as usize);
    starts.all(|start| {
        let piece = &mut buffer[..CLEARED_BYTES.min(end - start) as usize];
        match file.read_at(piece, start) {
            Ok(read) => read == piece.len() && piece.iter().all(|byte| *byte == 0),
            Err(_) => false,
        }
    })
}
