//! The bytes of a WAL's files, and the headers and tables among them.
//!
//! Owns reading: windows over files, what the disk cannot read, and the search for the next header that verifies. Never
//! decides what damage means, and never writes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{AlignedBuf, BLOCK_BYTES, Disk, DiskFile, OpenMode};
use crate::metrics::Reason;

use super::WalOpenError;
use super::files::file_name;
use super::format::{
    FIRST_GROUP_POSITION, FRAME_HEADER_BYTES, FileHead, FrameHeader, GROUP_HEADER_BYTES,
    GROUP_MAGIC, GroupHeader, get_u64,
};
use super::found::FoundFile;
use super::unreadable::Unreadable;

/// Bytes that one read brings in: few calls over a long walk, little memory.
const WINDOW_BYTES: u64 = 1 << 20;

/// A place in the sequence of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Index into the scanner's files.
    pub(crate) file: usize,
    pub(crate) position: u64,
}

/// Bytes in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) place: Place,
    pub(crate) length: u64,
}

/// What lies behind a place.
pub(crate) struct Ahead {
    pub(crate) first: Option<(Place, GroupHeader)>,
    pub(crate) witnessed: bool,
    pub(crate) extents: Vec<Extent>,
}

/// The frame table behind a group's own header, as far as it verifies.
pub(crate) struct OwnTable {
    pub(crate) frames: Vec<Option<FrameHeader>>,
    /// Frames in the group: by its header, or by any of its frame headers.
    pub(crate) count: Option<u32>,
}

impl OwnTable {
    pub(crate) fn found(&self) -> bool {
        self.frames.iter().any(Option::is_some)
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.count.is_none() || self.frames.iter().any(Option::is_none)
    }

    /// Every frame header of the group from this copy or the other one; `None` where neither verifies.
    pub(crate) fn merge(&self, copy: &[Option<FrameHeader>]) -> Option<Vec<FrameHeader>> {
        let count = self
            .count
            .or_else(|| copy.iter().flatten().map(|frame| frame.count).next())?;
        (0..count as usize)
            .map(|index| {
                let own = self.frames.get(index).copied().flatten();
                own.or_else(|| copy.get(index).copied().flatten())
            })
            .collect()
    }
}

/// A frame table of which every entry verifies.
pub(crate) fn whole_table(bytes: &[u8], seq: u64, count: u32) -> Option<Vec<FrameHeader>> {
    let entries = bytes.chunks_exact(FRAME_HEADER_BYTES);
    if entries.len() < count as usize {
        return None;
    }
    entries
        .take(count as usize)
        .map(|entry| FrameHeader::decode(entry, seq))
        .collect()
}

/// Length of a group whose header is gone, from what its frames say.
pub(crate) fn group_end(frames: &[FrameHeader], previous_count: usize) -> u64 {
    let tables = GROUP_HEADER_BYTES + (frames.len() + previous_count) * FRAME_HEADER_BYTES;
    frames
        .iter()
        .map(|frame| u64::from(frame.batch_position) + u64::from(frame.batch_length))
        .max()
        .unwrap_or(0)
        .max(tables as u64)
        .next_multiple_of(BLOCK_BYTES as u64)
}

/// The files of a WAL from its checkpoint on.
pub(crate) struct Source {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    pub(crate) files: Vec<FoundFile>,
    handles: Vec<Option<Arc<dyn DiskFile>>>,
    /// The only file has not got its full length yet.
    growing: bool,
    /// How files are opened, and how much one read brings in.
    mode: OpenMode,
    window_bytes: u64,
    /// Whole blocks.
    window: AlignedBuf,
    window_at: Place,
    unreadable: Unreadable,
}

impl Source {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        files: Vec<FoundFile>,
        growing: bool,
    ) -> Source {
        Source {
            disk,
            dir: dir.to_owned(),
            handles: vec![None; files.len()],
            files,
            growing,
            mode: OpenMode::Read,
            window_bytes: WINDOW_BYTES,
            window: AlignedBuf::zeroed(0),
            window_at: Place {
                file: 0,
                position: 0,
            },
            unreadable: Unreadable::default(),
        }
    }

    /// Reads from the medium itself.
    pub(crate) fn past_the_cache(mut self) -> Source {
        self.mode = OpenMode::ReadDirect;
        self
    }

    /// Reads so much at once.
    pub(crate) fn in_windows_of(mut self, window_bytes: u64) -> Source {
        self.window_bytes = window_bytes;
        self
    }

    /// Opens every file now, so that a later recycling does not take one away.
    pub(crate) fn open_all(&mut self) -> Result<(), WalOpenError> {
        (0..self.files.len()).try_for_each(|file| self.handle(file).map(drop))
    }

    /// What is wrong with bytes that do not verify: the disk, or they themselves.
    pub(crate) fn reason_at(&self, place: Place, length: u64, otherwise: Reason) -> Reason {
        let block = BLOCK_BYTES as u64;
        let first = Place {
            position: place.position / block * block,
            ..place
        };
        if self.unreadable.has_some(first, place.position + length) {
            Reason::Io
        } else {
            otherwise
        }
    }

    /// The first byte at or behind `place`, also in a later file, that was needed and could not be read.
    pub(crate) fn unreadable_from(&self, place: Place) -> Option<Place> {
        self.unreadable.first_from(place)
    }

    /// Forgets what was read, since a writer may have gone on.
    pub(crate) fn forget(&mut self) {
        self.window.resize(0);
    }

    /// The header at a place, if it verifies.
    pub(crate) fn header(&mut self, place: Place) -> Result<Option<GroupHeader>, WalOpenError> {
        let Some(file) = self.files.get(place.file).copied() else {
            return Ok(None);
        };
        if place.position + BLOCK_BYTES as u64 > file.head.file_bytes {
            return Ok(None);
        }
        let bytes = self.read(place, BLOCK_BYTES as u64)?;
        Ok(GroupHeader::decode(bytes, &file.head, place.position))
    }

    /// The first later header that verifies, and whether any testifies that `seq` was durable.
    pub(crate) fn look_ahead(&mut self, from: Place, seq: u64) -> Result<Ahead, WalOpenError> {
        let mut ahead = Ahead {
            first: None,
            witnessed: false,
            extents: Vec::new(),
        };
        let mut at = from;
        while let Some((place, header)) = self.find_header(at, seq)? {
            ahead.first.get_or_insert((place, header));
            ahead.extents.push(Extent {
                place,
                length: u64::from(header.length),
            });
            if header.durable_seq >= seq {
                ahead.witnessed = true;
                break;
            }
            at = Place {
                file: place.file,
                position: place.position + u64::from(header.length),
            };
        }
        Ok(ahead)
    }

    /// The next header of a group above `seq`, block by block to the end of the file and of the next one: the writer may have
    /// left the first, and zeros at the start of the second may be damage. A whole file behind those is searched only if it
    /// is damaged where its first group belongs: ready ones are many, and a start is to be fast.
    fn find_header(
        &mut self,
        from: Place,
        seq: u64,
    ) -> Result<Option<(Place, GroupHeader)>, WalOpenError> {
        let mut search = true;
        for file in from.file..self.files.len() {
            let file_bytes = self.files[file].head.file_bytes;
            let first = if file == from.file {
                from.position
            } else {
                FIRST_GROUP_POSITION
            };
            let mut position = first;
            while position < file_bytes && (search || position == first) {
                let place = Place { file, position };
                if let Some(header) = self.header(place)?.filter(|h| h.seq > seq) {
                    return Ok(Some((place, header)));
                }
                search |= position == first && self.is_damaged_start(place)?;
                position += BLOCK_BYTES as u64;
            }
            search = file == from.file;
        }
        Ok(None)
    }

    /// Whether the place of a file's first group holds neither such a group nor what it held before this life of the file.
    fn is_damaged_start(&mut self, place: Place) -> Result<bool, WalOpenError> {
        let head = self.files[place.file].head;
        let block = self.read(place, BLOCK_BYTES as u64)?;
        let is_untouched = block.iter().all(|byte| *byte == 0) || is_of_former_life(block, &head);
        Ok(!is_untouched && GroupHeader::decode(block, &head, place.position).is_none())
    }

    /// Blocks of the files from one place to a later one.
    pub(crate) fn blocks_between(&self, from: Place, to: Place) -> u64 {
        let files = self.files[from.file..to.file].iter();
        let before = files.map(|file| file.length.min(file.head.file_bytes));
        let bytes = (before.sum::<u64>() + to.position).saturating_sub(from.position);
        bytes / BLOCK_BYTES as u64
    }

    /// Bytes that groups can have filled there, also where a file has been cut since.
    pub(crate) fn room_between(&self, from: Place, to: Place) -> u64 {
        let files = self.files[from.file..to.file].iter();
        let before = files.map(|file| file.head.file_bytes);
        (before.sum::<u64>() + to.position).saturating_sub(from.position)
    }

    /// The copy of group `seq`'s frame table in the group behind it.
    pub(crate) fn second_copy(
        &mut self,
        ahead: &Ahead,
        seq: u64,
    ) -> Result<Vec<Option<FrameHeader>>, WalOpenError> {
        let Some((place, header)) = ahead.first.filter(|(_, header)| header.seq == seq + 1) else {
            return Ok(Vec::new());
        };
        let table = Place {
            position: place.position + header.previous_table() as u64,
            ..place
        };
        self.table_at(table, seq, header.previous_frame_count)
    }

    /// The frame table behind a group's own header. Without the header, any frame header of the group in its first
    /// block says how many there are.
    pub(crate) fn own_table(
        &mut self,
        start: Place,
        seq: u64,
        count: Option<u32>,
    ) -> Result<OwnTable, WalOpenError> {
        let table = Place {
            position: start.position + GROUP_HEADER_BYTES as u64,
            ..start
        };
        let in_block = ((BLOCK_BYTES - GROUP_HEADER_BYTES) / FRAME_HEADER_BYTES) as u32;
        let count = match count {
            Some(count) => Some(count),
            None => {
                let first = self.table_at(table, seq, in_block)?;
                first.iter().flatten().map(|frame| frame.count).next()
            }
        };
        let frames = self.table_at(table, seq, count.unwrap_or(0))?;
        Ok(OwnTable { frames, count })
    }

    fn table_at(
        &mut self,
        place: Place,
        seq: u64,
        count: u32,
    ) -> Result<Vec<Option<FrameHeader>>, WalOpenError> {
        let Some(file) = self.files.get(place.file) else {
            return Ok(Vec::new());
        };
        let room = file.head.file_bytes.saturating_sub(place.position);
        let length = (u64::from(count) * FRAME_HEADER_BYTES as u64).min(room);
        let bytes = self.read(place, length)?;
        Ok(bytes
            .chunks_exact(FRAME_HEADER_BYTES)
            .enumerate()
            .map(|(index, bytes)| {
                FrameHeader::decode(bytes, seq).filter(|frame| frame.index as usize == index)
            })
            .collect())
    }

    /// Whether so much can stand there.
    pub(crate) fn has_room(&mut self, place: Place, length: u64) -> Result<bool, WalOpenError> {
        let ends = place.position + length <= self.files[place.file].head.file_bytes;
        Ok(ends && self.there(place, length)? == length)
    }

    /// How much of a length to read: it is a claim, and takes memory, so what is longer than a window must be there.
    fn there(&mut self, place: Place, length: u64) -> Result<u64, WalOpenError> {
        if length <= self.window_bytes {
            return Ok(length);
        }
        let end = self.handle(place.file)?.len().unwrap_or(0);
        Ok(length.min(end.saturating_sub(place.position).max(self.window_bytes)))
    }

    /// Bytes of a file; zeros behind its end and where the disk cannot read. Fewer than asked for, if they are more than a
    /// window and the file ends before them.
    pub(crate) fn read(&mut self, place: Place, length: u64) -> Result<&[u8], WalOpenError> {
        let length = self.there(place, length)?;
        let have = self.window_at.position + self.window.len() as u64;
        let inside = self.window_at.file == place.file
            && self.window_at.position <= place.position
            && place.position + length <= have;
        if !inside {
            self.fill_window(place, length)?;
        }
        let start = (place.position - self.window_at.position) as usize;
        Ok(&self.window[start..start + length as usize])
    }

    /// Reads whole blocks from the one of `place` on, but for those that the window has already: a group that begins in one
    /// window and ends in the next is read once.
    fn fill_window(&mut self, place: Place, length: u64) -> Result<(), WalOpenError> {
        let file_bytes = self.files[place.file].head.file_bytes;
        let handle = self.handle(place.file)?;
        let end = (place.position + length).next_multiple_of(BLOCK_BYTES as u64);
        let kept = self.move_window(Place {
            position: place.position / BLOCK_BYTES as u64 * BLOCK_BYTES as u64,
            ..place
        });
        let start = self.window_at;
        let wanted = self
            .window_bytes
            .min(file_bytes.saturating_sub(start.position));
        self.window
            .resize(wanted.max(end - start.position) as usize);
        let behind = Place {
            position: start.position + kept as u64,
            ..start
        };
        match handle.read_at(&mut self.window[kept..], behind.position) {
            Ok(read) => {
                self.window[kept + read..].fill(0);
                if !self.growing {
                    self.missing((kept + read) as u64, wanted);
                }
            }
            Err(_) => self.read_block_by_block(handle.as_ref(), behind, kept),
        }
        Ok(())
    }

    /// Lets the window begin at `place`. Returns how many bytes it has from there on.
    fn move_window(&mut self, place: Place) -> usize {
        let end = self.window_at.position + self.window.len() as u64;
        let has_some = self.window_at.file == place.file
            && (self.window_at.position..end).contains(&place.position);
        let skipped = (place.position.wrapping_sub(self.window_at.position)) as usize;
        self.window_at = place;
        if !has_some {
            return 0;
        }
        self.window.copy_within(skipped.., 0);
        self.window.len() - skipped
    }

    /// Files have their full length before they have their name: one that ends early was shortened by somebody.
    fn missing(&mut self, read: u64, wanted: u64) {
        let lost = Place {
            position: self.window_at.position + read,
            ..self.window_at
        };
        self.unreadable
            .insert(lost, self.window_at.position + wanted);
    }

    /// An error on read is damage at that place, not the end of everything.
    fn read_block_by_block(&mut self, handle: &dyn DiskFile, place: Place, kept: usize) {
        let mut position = place.position;
        for block in self.window[kept..].chunks_mut(BLOCK_BYTES) {
            match handle.read_at(block, position) {
                Ok(read) => block[read..].fill(0),
                Err(error) => {
                    block.fill(0);
                    tracing::error!(%error, position, file = place.file, "a block of the WAL cannot be read");
                    let end = position + BLOCK_BYTES as u64;
                    self.unreadable.insert(Place { position, ..place }, end);
                }
            }
            position += BLOCK_BYTES as u64;
        }
    }

    fn handle(&mut self, file: usize) -> Result<Arc<dyn DiskFile>, WalOpenError> {
        if let Some(handle) = &self.handles[file] {
            return Ok(Arc::clone(handle));
        }
        let path = self.dir.join(file_name(self.files[file].head.generation));
        let failed = |source: io::Error| WalOpenError::Io {
            doing: "open",
            path: path.clone(),
            source,
        };
        let handle = self.disk.open(&path, self.mode).map_err(failed)?;
        self.handles[file] = Some(Arc::clone(&handle));
        Ok(handle)
    }
}

/// Whether the bytes say that they begin the first group of the file, and were written before the file was given its
/// present generation. Their checksum cannot be judged: its salt is gone.
fn is_of_former_life(bytes: &[u8], file: &FileHead) -> bool {
    bytes.len() >= GROUP_HEADER_BYTES
        && &bytes[..8] == GROUP_MAGIC
        && get_u64(bytes, 16) < file.generation
        && get_u64(bytes, 48) == FIRST_GROUP_POSITION
}
