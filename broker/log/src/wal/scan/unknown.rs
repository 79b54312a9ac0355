//! Groups that were durable, or may have been, and of which nobody knows what they held: the start stops there, until
//! somebody gives them up.
//!
//! Owns how much there can have been in one. Never guesses what it was.

use keelson_protocol::BATCH_HEADER_BYTES;

use super::super::format::{FIRST_GROUP_POSITION, FRAME_HEADER_BYTES, GroupHeader};
use super::super::source::{Extent, Place};
use super::super::{RecoveredGroup, Unknown, WalOpenError, file_name};
use super::Scanner;
use crate::metrics::Reason;

impl Unknown {
    /// As many frames with a batch as fit.
    pub(super) fn in_bytes(bytes_max: u64) -> Unknown {
        let frame = (FRAME_HEADER_BYTES + BATCH_HEADER_BYTES) as u64;
        Unknown {
            bytes_max,
            frames_max: bytes_max / frame + 1,
        }
    }
}

impl Scanner {
    fn is_given_up(&self, seq: u64) -> bool {
        self.given_up
            .as_ref()
            .is_some_and(|seqs| seqs.contains(&seq))
    }

    /// A double fault.
    pub(super) fn unknown(
        &mut self,
        start: Place,
        seq: u64,
        unknown: Unknown,
    ) -> Result<(), WalOpenError> {
        if self.given_up.is_some() && !self.is_given_up(seq) && seq >= self.checkpoint_group {
            return Err(self.refused(start, format!(
                "commit group {seq} at position {} was durable, and neither copy of its frame table can be read: \
                 nobody knows which partitions and offsets were in it, so going on could use an offset twice; restore \
                 the file or its volume, or give the group up (log accept-loss --group {seq})",
                start.position
            )));
        }
        let group = self.nothing_of(start, seq, (Reason::TablesLost, unknown));
        self.keep(group, 0, Vec::new(), false);
        Ok(())
    }

    /// A double fault in a group without a header, somewhere between a place and the next group that has one.
    pub(super) fn nothing_before(
        &mut self,
        start: Place,
        seq: u64,
        (next, header): (Place, &GroupHeader),
    ) -> Result<(), WalOpenError> {
        let mut unknown = Unknown::in_bytes(self.source.room_between(start, next));
        if seq + 1 == header.seq {
            unknown.frames_max = u64::from(header.previous_frame_count);
        }
        self.unknown(start, seq, unknown)
    }

    /// Blocks that cannot be read, with nothing behind them that says what they were.
    pub(super) fn unreadable_end(&mut self, here: Place, bad: Place) -> Result<(), WalOpenError> {
        let seq = self.expected;
        let doubtful = self.through(here, bad.file);
        if self.is_given_up(seq) {
            self.discarded = doubtful;
            return Ok(());
        }
        if self.given_up.is_some() {
            return Err(self.refused(bad, format!(
                "the disk cannot read it at position {} (or the file was shortened), and no later group says what was \
                 there: acknowledged records may be in it; restore the file or its volume, or give up what may have been \
                 there, from commit group {seq} on (log accept-loss --group {seq})",
                bad.position
            )));
        }
        let unknown = Unknown::in_bytes(doubtful.iter().map(|extent| extent.length).sum());
        let group = self.nothing_of(bad, seq, (Reason::Io, unknown));
        self.ready.push_back(group);
        Ok(())
    }

    /// Everything from a place to the end of a file, that one's or a later one's.
    fn through(&self, here: Place, last: usize) -> Vec<Extent> {
        let files = here.file..=last;
        let extents = files.map(|file| {
            let position = match file == here.file {
                true => here.position,
                false => FIRST_GROUP_POSITION,
            };
            let end = self.source.files[file].head.file_bytes;
            let length = end.saturating_sub(position);
            let place = Place { file, position };
            Extent { place, length }
        });
        extents.collect()
    }

    fn nothing_of(
        &self,
        place: Place,
        seq: u64,
        (reason, unknown): (Reason, Unknown),
    ) -> RecoveredGroup {
        RecoveredGroup {
            seq,
            generation: self.source.files[place.file].head.generation,
            file: self.relative(place.file),
            position: place.position,
            length: 0,
            boot: 0,
            frames: Vec::new(),
            damage: Some(reason),
            lost: Vec::new(),
            unknown: Some(unknown),
        }
    }

    fn refused(&self, place: Place, reason: String) -> WalOpenError {
        let generation = self.source.files[place.file].head.generation;
        WalOpenError::Refused {
            path: self.dir.join(file_name(generation)),
            reason,
        }
    }
}
