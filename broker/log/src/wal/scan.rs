//! Reads the groups of a WAL in order, and says what does not decode: the one decoder of recovery, `log verify` and
//! `log dump`.
//!
//! Owns the walk: from the checkpoint from group to group, over damage to the next header that verifies. Never writes,
//! takes no lock, and asks the witness rule what damage means.

mod one;
mod unknown;

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;
use crate::metrics::Reason;

use super::files::file_name;
use super::format::{
    FIRST_GROUP_POSITION, FrameHeader, FrameKind, GROUP_HEADER_BYTES, GroupHeader,
};
use super::found::{Found, FoundFile};
use super::source::{Ahead, Extent, OwnTable, Place, Source, group_end, whole_table};
use super::witness::{Evidence, Seen, Verdict, decide};
use super::{
    LostAppend, RecoveredFrame, RecoveredGroup, TornTail, Unknown, WalOpenError, WalPosition,
};

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

pub(crate) struct Scanner {
    source: Source,
    dir: PathBuf,
    checkpoint_group: u64,
    /// A group of which nothing is known stops a start's walk, unless somebody gave it up. `None`: it is reported.
    given_up: Option<BTreeSet<u64>>,
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
}

/// A group whose frames are to be read.
struct Subject {
    start: Place,
    seq: u64,
    /// `None` if it does not verify.
    header: Option<GroupHeader>,
}

impl Scanner {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        found: &Found,
        given_up: Option<BTreeSet<u64>>,
    ) -> Scanner {
        let checkpoint = found.slot.checkpoint;
        let needed = |file: &&FoundFile| file.head.generation >= checkpoint.generation;
        let files: Vec<FoundFile> = found.files.iter().filter(needed).copied().collect();
        let mut scanner = Scanner {
            source: Source::new(disk, dir, files, found.filled.is_some()),
            dir: dir.to_owned(),
            checkpoint_group: checkpoint.group,
            given_up,
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
        };
        if !scanner.source.files.is_empty() {
            scanner.enter(0);
        }
        scanner
    }

    /// Reads from the medium itself. Of a write-ahead log that is read once, the page cache has nothing and needs nothing:
    /// it would cost a copy, and the memory for as much as the log holds.
    pub(crate) fn past_the_cache(mut self) -> Scanner {
        self.source = self.source.past_the_cache();
        self
    }

    /// The next group from the checkpoint on; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<RecoveredGroup>, WalOpenError> {
        loop {
            while let Some(group) = self.ready.pop_front() {
                if group.seq >= self.checkpoint_group {
                    return Ok(Some(group));
                }
            }
            if self.ended || self.source.files.is_empty() {
                return Ok(None);
            }
            self.step()?;
        }
    }

    /// Opens every file now, so that a later recycling does not take one away.
    pub(crate) fn open_all(&mut self) -> Result<(), WalOpenError> {
        self.source.open_all()
    }

    /// After the end: what was cut off there.
    pub(crate) fn take_torn(&mut self) -> Option<TornTail> {
        self.torn.take()
    }

    /// Where the next group belongs.
    pub(crate) fn end(&self) -> Option<(FoundFile, u64)> {
        let file = self.source.files.get(self.at.file)?;
        Some((*file, self.at.position))
    }

    pub(crate) fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(crate) fn file(&self, index: usize) -> FoundFile {
        self.source.files[index]
    }

    /// An upper bound of the bytes still to be read.
    pub(crate) fn remaining_bytes(&self) -> u64 {
        if self.ended {
            return 0;
        }
        let lengths = self.source.files[self.at.file.min(self.source.files.len())..]
            .iter()
            .map(|file| file.head.file_bytes);
        lengths.sum::<u64>().saturating_sub(self.at.position)
    }

    fn enter(&mut self, file: usize) {
        self.at = Place {
            file,
            position: FIRST_GROUP_POSITION,
        };
        let generation = self.source.files[file].head.generation;
        self.used.push((generation, self.expected));
    }

    /// One group, or the end.
    fn step(&mut self) -> Result<(), WalOpenError> {
        let here = self.at;
        if let Some(header) = self.source.header(here)?.filter(|h| h.seq == self.expected) {
            return self.group(here, &header);
        }
        let next = Place {
            file: here.file + 1,
            position: FIRST_GROUP_POSITION,
        };
        if self
            .source
            .header(next)?
            .is_some_and(|h| h.seq == self.expected)
        {
            self.enter(next.file);
            return Ok(());
        }
        self.gap(here)
    }

    /// A header with the expected sequence number: the group behind it is whole, or damaged.
    fn group(&mut self, here: Place, header: &GroupHeader) -> Result<(), WalOpenError> {
        let chain_broken = self.kept.header_crc != 0
            && header.previous_crc != 0
            && self.kept.header_crc != header.previous_crc;
        let bytes = self.source.read(here, u64::from(header.length))?;
        let table = whole_table(&bytes[GROUP_HEADER_BYTES..], header.seq, header.frame_count);
        let whole = header.payload_verifies(bytes) && table.is_some();
        let evidence = Evidence {
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
        if let (Some(frames), Verdict::Keep) = (table, decide(&evidence).verdict) {
            let subject = Subject {
                start: here,
                seq: header.seq,
                header: Some(*header),
            };
            let group = self.salvage(&subject, &frames, None)?;
            if group.lost.is_empty() {
                self.keep(group, header.header_crc, frames, true);
                self.at.position += u64::from(header.length);
                return Ok(());
            }
        }
        self.damaged_group(here, header, evidence)
    }

    /// A group with a header that is not simply whole.
    fn damaged_group(
        &mut self,
        here: Place,
        header: &GroupHeader,
        seen: Evidence,
    ) -> Result<(), WalOpenError> {
        let length = u64::from(header.length);
        let after = Place {
            file: here.file,
            position: here.position + length,
        };
        let ahead = self.source.look_ahead(after, header.seq)?;
        let copy = self.source.second_copy(&ahead, header.seq)?;
        let own = self
            .source
            .own_table(here, header.seq, Some(header.frame_count))?;
        let frames = own.merge(&copy);
        let evidence = Evidence {
            witnessed: ahead.witnessed,
            frames_known: frames.is_some(),
            ..seen
        };
        let whole = seen.seen == Seen::Whole;
        if ahead.witnessed && !whole && self.changed_meanwhile(here, header)? {
            return Ok(());
        }
        let verdict = self.judge(&evidence, header.seq, here);
        match (verdict, frames) {
            (Verdict::Keep | Verdict::Salvage, Some(frames)) => {
                let reason = match (seen.chain_broken && whole, own.is_damaged()) {
                    (true, _) => Reason::Chain,
                    (false, true) => Reason::FrameCrc,
                    (false, false) => Reason::PayloadCrc,
                };
                let subject = Subject {
                    start: here,
                    seq: header.seq,
                    header: Some(*header),
                };
                let reason = self.source.reason_at(here, length, reason);
                let group = self.salvage(&subject, &frames, Some(reason))?;
                self.keep(group, header.header_crc, frames, false);
                self.at = after;
                Ok(())
            }
            (Verdict::Keep | Verdict::Salvage | Verdict::Refuse, _) => {
                let unknown = Unknown {
                    bytes_max: length,
                    frames_max: u64::from(header.frame_count),
                };
                self.unknown(here, header.seq, unknown)?;
                self.at = after;
                Ok(())
            }
            (Verdict::Truncate | Verdict::End, _) => {
                let mut extents = ahead.extents;
                extents.insert(
                    0,
                    Extent {
                        place: here,
                        length,
                    },
                );
                self.finish(here, extents)
            }
        }
    }

    /// A writer may have finished the group while we looked at it: it is read once more before it is called damaged.
    fn changed_meanwhile(
        &mut self,
        here: Place,
        before: &GroupHeader,
    ) -> Result<bool, WalOpenError> {
        self.source.forget();
        let now = self.source.header(here)?;
        let bytes = self.source.read(here, u64::from(before.length))?;
        let table = whole_table(&bytes[GROUP_HEADER_BYTES..], before.seq, before.frame_count);
        Ok(now.is_some_and(|now| now != *before || now.payload_verifies(bytes) && table.is_some()))
    }

    /// No header where the next group belongs: the end, or groups whose headers are gone.
    fn gap(&mut self, here: Place) -> Result<(), WalOpenError> {
        let seq = self.expected;
        let ahead = self.source.look_ahead(here, seq)?;
        let (start, own) = self.remains(here, seq)?;
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
                self.source.forget();
                if self.source.header(here)?.is_some_and(|h| h.seq == seq) {
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
                            place: start,
                            length,
                        },
                    );
                }
                self.finish(here, extents)
            }
        }
    }

    /// Frame headers of a group without a header: where it belongs, or, where it did not fit, at the start of the next file.
    fn remains(&mut self, here: Place, seq: u64) -> Result<(Place, OwnTable), WalOpenError> {
        let own = self.source.own_table(here, seq, None)?;
        let fresh = Place {
            file: here.file + 1,
            position: FIRST_GROUP_POSITION,
        };
        if own.found() {
            return Ok((here, own));
        }
        let there = self.source.own_table(fresh, seq, None)?;
        Ok(if there.found() {
            (fresh, there)
        } else {
            (here, own)
        })
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
        // A group takes a block at least: of more than fit there is nothing to be known, however many a header claims.
        let fit = self.source.blocks_between(here, next);
        let first = header.seq.saturating_sub(fit).max(self.expected);
        if first > self.expected {
            self.nothing_before(start, first - 1, (next, header))?;
        }
        for seq in first..header.seq {
            let copy = if seq + 1 == header.seq {
                self.source.second_copy(ahead, seq)?
            } else {
                Vec::new()
            };
            let fresh = Place {
                file: start.file + 1,
                position: FIRST_GROUP_POSITION,
            };
            let mut own = self.source.own_table(start, seq, None)?;
            if start.file < next.file && fresh < next && !own.found() {
                let there = self.source.own_table(fresh, seq, None)?;
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
                    let subject = Subject {
                        start,
                        seq,
                        header: None,
                    };
                    let reason = self.source.reason_at(start, length, reason);
                    let group = self.salvage(&subject, &frames, Some(reason))?;
                    self.keep(group, 0, frames, false);
                    start.position += length;
                }
                (_, _) => self.nothing_before(start, seq, (next, header))?,
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
                let batch = self.source.read(place, u64::from(frame.batch_length))?;
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

    fn finish(&mut self, here: Place, mut extents: Vec<Extent>) -> Result<(), WalOpenError> {
        self.at = here;
        self.ended = true;
        // A header may claim more than its file has.
        for extent in &mut extents {
            let end = self.source.files[extent.place.file].head.file_bytes;
            extent.length = extent.length.min(end.saturating_sub(extent.place.position));
        }
        if let Some(bad) = self.source.unreadable_from(here) {
            // What cannot be read is not known to be the end: cutting it off could drop what was acknowledged.
            return self.unreadable_end(here, bad);
        }
        if let Some(first) = extents.first() {
            self.torn = Some(TornTail {
                file: self.relative(first.place.file),
                position: first.place.position,
                bytes: extents.iter().map(|extent| extent.length).sum(),
            });
        }
        self.discarded = extents;
        Ok(())
    }

    fn relative(&self, file: usize) -> PathBuf {
        Path::new("wal").join(file_name(self.source.files[file].head.generation))
    }

    /// What of a group's frames verifies, and what is lost.
    fn salvage(
        &mut self,
        subject: &Subject,
        table: &[FrameHeader],
        damage: Option<Reason>,
    ) -> Result<RecoveredGroup, WalOpenError> {
        let Subject { start, seq, header } = *subject;
        let mut group = RecoveredGroup {
            seq,
            generation: self.source.files[start.file].head.generation,
            file: self.relative(start.file),
            position: start.position,
            length: header.map_or(0, |h| u64::from(h.length)),
            boot: header.map_or(0, |h| h.boot),
            frames: Vec::with_capacity(table.len()),
            damage,
            lost: Vec::new(),
            unknown: None,
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
            let decoded = if self.source.has_room(place, length)? {
                frame.frame(self.source.read(place, length)?)
            } else {
                None
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
                    reason: self.source.reason_at(place, length, Reason::PayloadCrc),
                }),
                (None, _) => {}
            }
        }
        Ok(group)
    }
}
