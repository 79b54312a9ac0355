//! Reads the groups of a WAL in order, and says what does not decode: the one decoder of recovery, `log verify` and
//! `log dump`.
//!
//! Owns the walk: from the checkpoint from group to group, over damage to the next header that verifies. Never writes,
//! takes no lock, and asks the witness rule what damage means.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{BLOCK_BYTES, Disk, DiskFile, OpenMode};
use crate::metrics::Reason;

use super::files::{Found, FoundFile, file_name};
use super::format::{
    FIRST_GROUP_POSITION, FRAME_HEADER_BYTES, FrameHeader, FrameKind, GROUP_HEADER_BYTES,
    GroupHeader,
};
use super::witness::{Evidence, Seen, Verdict, decide};
use super::{LostAppend, RecoveredFrame, RecoveredGroup, TornTail, WalOpenError, WalPosition};

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

/// The last group that was kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    /// 0: none.
    pub(crate) seq: u64,
    /// 0: unknown.
    pub(crate) header_crc: u32,
    pub(crate) table: Vec<FrameHeader>,
    /// Where it lies, if it is whole.
    pub(crate) whole: Option<Extent>,
}

/// What lies behind a place.
struct Ahead {
    first: Option<(Place, GroupHeader)>,
    witnessed: bool,
    extents: Vec<Extent>,
}

/// The frame table behind a group's own header, as far as it verifies.
struct OwnTable {
    frames: Vec<Option<FrameHeader>>,
    /// Frames in the group: by its header, or by any of its frame headers.
    count: Option<u32>,
}

impl OwnTable {
    fn found(&self) -> bool {
        self.frames.iter().any(Option::is_some)
    }

    fn is_damaged(&self) -> bool {
        self.count.is_none() || self.frames.iter().any(Option::is_none)
    }

    /// Every frame header of the group from this copy or the other one; `None` where neither verifies.
    fn merge(&self, copy: &[Option<FrameHeader>]) -> Option<Vec<FrameHeader>> {
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
fn whole_table(bytes: &[u8], seq: u64, count: u32) -> Option<Vec<FrameHeader>> {
    bytes
        .chunks_exact(FRAME_HEADER_BYTES)
        .take(count as usize)
        .map(|entry| FrameHeader::decode(entry, seq))
        .collect()
}

/// Length of a group whose header is gone, from what its frames say.
fn group_end(frames: &[FrameHeader], previous_count: usize) -> u64 {
    let tables = GROUP_HEADER_BYTES + (frames.len() + previous_count) * FRAME_HEADER_BYTES;
    frames
        .iter()
        .map(|frame| u64::from(frame.batch_position) + u64::from(frame.batch_length))
        .max()
        .unwrap_or(0)
        .max(tables as u64)
        .next_multiple_of(BLOCK_BYTES as u64)
}

pub(crate) struct Scanner {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    files: Vec<FoundFile>,
    handles: Vec<Option<Arc<dyn DiskFile>>>,
    checkpoint_group: u64,
    /// Whether a double fault stops the walk (a start) or is reported as a group of which nothing is known.
    strict: bool,
    at: Place,
    expected: u64,
    kept: Kept,
    ready: VecDeque<RecoveredGroup>,
    ended: bool,
    /// Extents behind the end that hold remains of groups.
    pub(crate) discarded: Vec<Extent>,
    torn: Option<TornTail>,
    /// Generation and first group of every file that the walk entered.
    pub(crate) used: Vec<(u64, u64)>,
    window: Vec<u8>,
    window_at: Place,
    /// Blocks that the disk could not read, as (file, position).
    unreadable: Vec<Place>,
}

impl Scanner {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path, found: &Found, strict: bool) -> Scanner {
        let checkpoint = found.slot.checkpoint;
        let files: Vec<FoundFile> = found
            .files
            .iter()
            .filter(|file| file.head.generation >= checkpoint.generation)
            .copied()
            .collect();
        let mut scanner = Scanner {
            disk,
            dir: dir.to_owned(),
            handles: vec![None; files.len()],
            files,
            checkpoint_group: checkpoint.group,
            strict,
            at: Place {
                file: 0,
                position: FIRST_GROUP_POSITION,
            },
            expected: checkpoint.first_group,
            kept: Kept {
                seq: checkpoint.first_group.saturating_sub(1),
                ..Kept::default()
            },
            ready: VecDeque::new(),
            ended: false,
            discarded: Vec::new(),
            torn: None,
            used: Vec::new(),
            window: Vec::new(),
            window_at: Place {
                file: 0,
                position: 0,
            },
            unreadable: Vec::new(),
        };
        if !scanner.files.is_empty() {
            scanner.enter(0);
        }
        scanner
    }

    /// The next group from the checkpoint on; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<RecoveredGroup>, WalOpenError> {
        loop {
            while let Some(group) = self.ready.pop_front() {
                if group.seq >= self.checkpoint_group {
                    return Ok(Some(group));
                }
            }
            if self.ended || self.files.is_empty() {
                return Ok(None);
            }
            self.step()?;
        }
    }

    /// Opens every file now, so that a later recycling does not take one away.
    pub(crate) fn open_all(&mut self) -> Result<(), WalOpenError> {
        (0..self.files.len()).try_for_each(|file| self.handle(file).map(drop))
    }

    /// After the end: what was cut off there.
    pub(crate) fn take_torn(&mut self) -> Option<TornTail> {
        self.torn.take()
    }

    /// Where the next group belongs.
    pub(crate) fn end(&self) -> Option<(FoundFile, u64)> {
        let file = self.files.get(self.at.file)?;
        Some((*file, self.at.position))
    }

    pub(crate) fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(crate) fn file(&self, index: usize) -> FoundFile {
        self.files[index]
    }

    /// An upper bound of the bytes still to be read.
    pub(crate) fn remaining_bytes(&self) -> u64 {
        if self.ended {
            return 0;
        }
        let lengths = self.files[self.at.file.min(self.files.len())..]
            .iter()
            .map(|file| file.head.file_bytes);
        lengths.sum::<u64>().saturating_sub(self.at.position)
    }

    fn enter(&mut self, file: usize) {
        self.at = Place {
            file,
            position: FIRST_GROUP_POSITION,
        };
        let generation = self.files[file].head.generation;
        self.used.push((generation, self.expected));
    }

    /// One group, or the end.
    fn step(&mut self) -> Result<(), WalOpenError> {
        let here = self.at;
        if let Some(header) = self.header(here)?.filter(|h| h.seq == self.expected) {
            return self.group(here, &header);
        }
        let next = Place {
            file: here.file + 1,
            position: FIRST_GROUP_POSITION,
        };
        if self.header(next)?.is_some_and(|h| h.seq == self.expected) {
            self.enter(next.file);
            return Ok(());
        }
        self.gap(here)
    }

    /// A header with the expected sequence number: the group behind it is whole, or damaged.
    fn group(&mut self, here: Place, header: &GroupHeader) -> Result<(), WalOpenError> {
        let length = u64::from(header.length);
        let chain_broken = self.kept.header_crc != 0
            && header.previous_crc != 0
            && self.kept.header_crc != header.previous_crc;
        let bytes = self.read(here, length)?.to_vec();
        let table = whole_table(&bytes[GROUP_HEADER_BYTES..], header.seq, header.frame_count);
        let whole = header.payload_verifies(&bytes) && table.is_some();
        let after = Place {
            file: here.file,
            position: here.position + length,
        };
        let mut evidence = Evidence {
            seen: if whole {
                Seen::Whole
            } else {
                Seen::DamagedPayload
            },
            chain_broken,
            witnessed: false,
            frames_known: true,
            traces: true,
        };
        if let (Some(frames), Verdict::Keep) = (&table, decide(&evidence).verdict) {
            let group = self.salvage(here, header.seq, Some(header), frames, None)?;
            if group.lost.is_empty() {
                self.keep(group, header.header_crc, frames.clone(), true);
                self.at = after;
                return Ok(());
            }
        }
        let ahead = self.look_ahead(after, header.seq)?;
        let copy = self.second_copy(&ahead, header.seq)?;
        let own = self.own_table(here, header.seq, Some(header.frame_count))?;
        let frames = own.merge(&copy);
        evidence.seen = if whole && chain_broken {
            Seen::Whole
        } else {
            Seen::DamagedPayload
        };
        evidence.witnessed = ahead.witnessed;
        evidence.frames_known = frames.is_some();
        if evidence.witnessed && !whole && self.changed_meanwhile(here, header)? {
            return Ok(());
        }
        match self.judge(&evidence, header.seq, here) {
            Verdict::Keep | Verdict::Salvage => {
                let reason = match (chain_broken && whole, own.is_damaged()) {
                    (true, _) => Reason::Chain,
                    (false, true) => Reason::FrameCrc,
                    (false, false) => Reason::PayloadCrc,
                };
                let frames = frames.unwrap_or_default();
                let group = self.salvage(here, header.seq, Some(header), &frames, Some(reason))?;
                self.keep(group, header.header_crc, frames, false);
                self.at = after;
                Ok(())
            }
            Verdict::Refuse => {
                self.unknown(here, header.seq, length)?;
                self.at = after;
                Ok(())
            }
            Verdict::Truncate | Verdict::End => {
                let mut extents = ahead.extents;
                extents.insert(
                    0,
                    Extent {
                        place: here,
                        length,
                    },
                );
                self.finish(here, extents);
                Ok(())
            }
        }
    }

    /// No header where the next group belongs: the end, or groups whose headers are gone.
    fn gap(&mut self, here: Place) -> Result<(), WalOpenError> {
        let seq = self.expected;
        let ahead = self.look_ahead(here, seq)?;
        let own = self.own_table(here, seq, None)?;
        let traces = own.found() || ahead.first.is_some();
        let evidence = Evidence {
            seen: Seen::NoHeader,
            chain_broken: false,
            witnessed: ahead.witnessed,
            frames_known: true,
            traces,
        };
        let verdict = self.judge(&evidence, seq, here);
        match (verdict, ahead.first) {
            (Verdict::Salvage | Verdict::Refuse | Verdict::Keep, Some((next, header))) => {
                if self.header_now(here)?.is_some_and(|h| h.seq == seq) {
                    return Ok(());
                }
                self.lost_headers(here, next, &header, &ahead)
            }
            (_, _) => {
                let mut extents = ahead.extents;
                if own.found() {
                    let frames: Vec<FrameHeader> = own.frames.iter().copied().flatten().collect();
                    let length = group_end(&frames, self.kept.table.len());
                    extents.insert(
                        0,
                        Extent {
                            place: here,
                            length,
                        },
                    );
                }
                self.finish(here, extents);
                Ok(())
            }
        }
    }

    /// Every group from the expected one up to `header`'s was durable, and none of them has a header.
    fn lost_headers(
        &mut self,
        here: Place,
        next: Place,
        header: &GroupHeader,
        ahead: &Ahead,
    ) -> Result<(), WalOpenError> {
        let mut start = here;
        for seq in self.expected..header.seq {
            let copy = if seq + 1 == header.seq {
                self.second_copy(ahead, seq)?
            } else {
                Vec::new()
            };
            let fresh = Place {
                file: start.file + 1,
                position: FIRST_GROUP_POSITION,
            };
            let mut own = self.own_table(start, seq, None)?;
            if start.file < next.file && fresh < next && !own.found() {
                let there = self.own_table(fresh, seq, None)?;
                if there.found() || !self.holds(start, &copy)? && self.holds(fresh, &copy)? {
                    self.expected = seq;
                    self.enter(fresh.file);
                    start = fresh;
                    own = there;
                }
            }
            let reason = if own.found() {
                Reason::HeaderCrc
            } else {
                Reason::MissingGroup
            };
            let frames = own.merge(&copy);
            let evidence = Evidence {
                seen: Seen::NoHeader,
                chain_broken: false,
                witnessed: true,
                frames_known: frames.is_some(),
                traces: true,
            };
            match (self.judge(&evidence, seq, start), frames) {
                (Verdict::Salvage, Some(frames)) => {
                    let length = group_end(&frames, self.kept.table.len());
                    let group = self.salvage(start, seq, None, &frames, Some(reason))?;
                    self.keep(group, 0, frames, false);
                    start.position += length;
                }
                (_, _) => self.unknown(start, seq, 0)?,
            }
        }
        self.expected = header.seq;
        if next.file != self.at.file {
            self.enter(next.file);
        }
        self.at = next;
        Ok(())
    }

    /// Asks the witness rule, and logs which row of it decided.
    fn judge(&self, evidence: &Evidence, seq: u64, place: Place) -> Verdict {
        let row = decide(evidence);
        if row.verdict != Verdict::Keep && row.verdict != Verdict::End {
            let file = self.relative(place.file);
            tracing::info!(rule = row.label, seq, file = %file.display(), position = place.position, "a commit group does not verify");
        }
        row.verdict
    }

    /// Whether a batch of this table lies where the table says, for a group that starts at `start`.
    fn holds(&mut self, start: Place, table: &[Option<FrameHeader>]) -> Result<bool, WalOpenError> {
        for frame in table.iter().flatten() {
            if frame.batch_length > 0 {
                let place = Place {
                    position: start.position + u64::from(frame.batch_position),
                    ..start
                };
                let batch = self.read(place, u64::from(frame.batch_length))?;
                if frame.frame(batch).is_some() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn keep(
        &mut self,
        group: RecoveredGroup,
        header_crc: u32,
        table: Vec<FrameHeader>,
        whole: bool,
    ) {
        let place = Place {
            file: self.at.file,
            position: group.position,
        };
        self.kept = Kept {
            seq: group.seq,
            header_crc,
            table,
            whole: whole.then_some(Extent {
                place,
                length: group.length,
            }),
        };
        self.expected = group.seq + 1;
        self.ready.push_back(group);
    }

    /// A double fault.
    fn unknown(&mut self, start: Place, seq: u64, length: u64) -> Result<(), WalOpenError> {
        let generation = self.files[start.file].head.generation;
        if self.strict && seq >= self.checkpoint_group {
            return Err(WalOpenError::Refused {
                path: self.dir.join(file_name(generation)),
                reason: format!(
                    "commit group {seq} at position {} was durable, and neither copy of its frame table can be read: \
                     nobody knows which partitions and offsets were in it, so going on could use an offset twice; \
                     restore the file or its volume",
                    start.position
                ),
            });
        }
        let group = RecoveredGroup {
            seq,
            generation,
            file: self.relative(start.file),
            position: start.position,
            length,
            boot: 0,
            frames: Vec::new(),
            damage: Some(Reason::TablesLost),
            lost: Vec::new(),
        };
        self.keep(group, 0, Vec::new(), false);
        Ok(())
    }

    fn finish(&mut self, here: Place, extents: Vec<Extent>) {
        if let Some(first) = extents.first() {
            self.torn = Some(TornTail {
                file: self.relative(first.place.file),
                position: first.place.position,
                bytes: extents.iter().map(|extent| extent.length).sum(),
            });
        }
        self.at = here;
        self.discarded = extents;
        self.ended = true;
    }

    fn relative(&self, file: usize) -> PathBuf {
        Path::new("wal").join(file_name(self.files[file].head.generation))
    }

    /// What of a group's frames verifies, and what is lost.
    fn salvage(
        &mut self,
        start: Place,
        seq: u64,
        header: Option<&GroupHeader>,
        table: &[FrameHeader],
        damage: Option<Reason>,
    ) -> Result<RecoveredGroup, WalOpenError> {
        let mut group = RecoveredGroup {
            seq,
            generation: self.files[start.file].head.generation,
            file: self.relative(start.file),
            position: start.position,
            length: header.map_or(0, |h| u64::from(h.length)),
            boot: header.map_or(0, |h| h.boot),
            frames: Vec::with_capacity(table.len()),
            damage,
            lost: Vec::new(),
        };
        for frame in table {
            let at = WalPosition {
                group: seq,
                frame: frame.index,
            };
            let place = Place {
                position: start.position + u64::from(frame.batch_position),
                ..start
            };
            let length = u64::from(frame.batch_length);
            let end = place.position + length;
            let decoded = if end > self.files[start.file].head.file_bytes {
                None
            } else {
                frame.frame(self.read(place, length)?)
            };
            match (decoded, frame.kind) {
                (Some(decoded), _) => group.frames.push(RecoveredFrame {
                    at,
                    file_position: place.position,
                    frame: decoded,
                }),
                (
                    None,
                    FrameKind::Append {
                        base_offset,
                        last_offset,
                    },
                ) => group.lost.push(LostAppend {
                    at,
                    partition: frame.partition,
                    base_offset,
                    last_offset,
                    file_position: place.position,
                    reason: self.reason_at(place, length),
                }),
                (None, _) => {}
            }
        }
        Ok(group)
    }

    fn reason_at(&self, place: Place, length: u64) -> Reason {
        let block = BLOCK_BYTES as u64;
        let unreadable = self.unreadable.iter().any(|bad| {
            bad.file == place.file
                && bad.position < place.position + length
                && place.position < bad.position + block
        });
        if unreadable {
            Reason::Io
        } else {
            Reason::PayloadCrc
        }
    }

    /// A writer may have finished the group while we looked at it: it is read once more before it is called damaged.
    fn changed_meanwhile(
        &mut self,
        here: Place,
        before: &GroupHeader,
    ) -> Result<bool, WalOpenError> {
        self.window.clear();
        let head = self.files[here.file].head;
        let bytes = self.read(here, u64::from(before.length))?;
        let now = GroupHeader::decode(bytes, &head, here.position);
        let table = whole_table(&bytes[GROUP_HEADER_BYTES..], before.seq, before.frame_count);
        Ok(now.is_some_and(|now| now != *before || now.payload_verifies(bytes) && table.is_some()))
    }

    fn header_now(&mut self, place: Place) -> Result<Option<GroupHeader>, WalOpenError> {
        self.window.clear();
        self.header(place)
    }

    fn header(&mut self, place: Place) -> Result<Option<GroupHeader>, WalOpenError> {
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
    fn look_ahead(&mut self, from: Place, seq: u64) -> Result<Ahead, WalOpenError> {
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

    /// The next header of a group above `seq`, block by block to the end of the file, then in the later ones. A whole
    /// later file is searched only if the writer may have left this one: if a group can be too long for what is left.
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
                position += BLOCK_BYTES as u64;
            }
            search = file == from.file && from.position > file_bytes / 2;
        }
        Ok(None)
    }

    /// The copy of group `seq`'s frame table in the group behind it.
    fn second_copy(
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
    fn own_table(
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

    /// Bytes of a file; zeros behind its end and where the disk cannot read.
    fn read(&mut self, place: Place, length: u64) -> Result<&[u8], WalOpenError> {
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

    fn fill_window(&mut self, place: Place, length: u64) -> Result<(), WalOpenError> {
        let file_bytes = self.files[place.file].head.file_bytes;
        let wanted = WINDOW_BYTES.min(file_bytes.saturating_sub(place.position));
        let handle = self.handle(place.file)?;
        self.window_at = place;
        self.window.clear();
        self.window.resize(wanted.max(length) as usize, 0);
        match handle.read_at(&mut self.window, place.position) {
            Ok(read) => self.window[read..].fill(0),
            Err(_) => self.read_block_by_block(handle.as_ref(), place),
        }
        Ok(())
    }

    /// An error on read is damage at that place, not the end of everything.
    fn read_block_by_block(&mut self, handle: &dyn DiskFile, place: Place) {
        let mut position = place.position;
        for block in self.window.chunks_mut(BLOCK_BYTES) {
            match handle.read_at(block, position) {
                Ok(read) => block[read..].fill(0),
                Err(error) => {
                    block.fill(0);
                    tracing::error!(%error, position, file = place.file, "a block of the WAL cannot be read");
                    self.unreadable.push(Place { position, ..place });
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
        let handle = self.disk.open(&path, OpenMode::Read).map_err(failed)?;
        self.handles[file] = Some(Arc::clone(&handle));
        Ok(handle)
    }
}
