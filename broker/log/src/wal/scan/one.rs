//! A walk over one group, for the read-back verifier: the steps of a recovery that begins with it.
//!
//! Owns where such a walk begins. Decides nothing of its own.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::super::found::FoundFile;
use super::super::readback::Written;
use super::super::source::{Place, Source};
use super::{Kept, Scanner};
use crate::disk::Disk;
use crate::metrics::Reason;

impl Scanner {
    /// A walk that begins and ends with one group, which was just written.
    pub(crate) fn of_one(disk: Arc<dyn Disk>, dir: &Path, group: &Written) -> Scanner {
        let file = FoundFile {
            head: group.head,
            head_damage: None,
            length: group.head.file_bytes,
        };
        // The very first file may still be shorter than it will be.
        let source = Source::new(disk, dir, vec![file], true)
            .past_the_cache()
            .in_windows_of(group.length);
        Scanner {
            source,
            dir: dir.to_owned(),
            checkpoint_group: group.seq,
            given_up: None,
            at: Place {
                file: 0,
                position: group.position,
            },
            expected: group.seq,
            kept: Kept {
                seq: group.seq.saturating_sub(1),
                ..Kept::default()
            },
            ready: VecDeque::new(),
            ended: false,
            discarded: Vec::new(),
            torn: None,
            used: Vec::new(),
        }
    }

    /// After a walk that found nothing whole where it began.
    pub(crate) fn why_not_whole(&mut self) -> Reason {
        match self.source.header(self.at) {
            Ok(Some(_)) => Reason::PayloadCrc,
            Ok(None) => self.source.reason_at(self.at, 1, Reason::HeaderCrc),
            Err(_) => Reason::Io,
        }
    }
}
