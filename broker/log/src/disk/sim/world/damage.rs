//! What a bad disk does to bytes: writes that go astray or end half way, blocks that cannot be read, flipped bits.
//!
//! Owns what becomes of the bytes. When it happens is decided by the faults and by the tests.

use std::io;
use std::path::{Path, PathBuf};

use super::super::super::BLOCK_BYTES;
use super::super::Astray;
use super::{Change, NodeId, ROOT, SECTOR_BYTES, World, apply};

impl World {
    /// The process ended in the middle of a write: perhaps only its first blocks were taken.
    pub(super) fn tear(&mut self, id: NodeId, change: Change, before: Vec<u8>) {
        let Change::Write { position, bytes } = change else {
            return;
        };
        let blocks = bytes.len().div_ceil(BLOCK_BYTES) as u64;
        let kept = self.chance(blocks + 1) as usize * BLOCK_BYTES;
        if kept >= bytes.len() {
            return;
        }
        let change = Change::Write {
            position,
            bytes: bytes[..kept].to_vec(),
        };
        if let Ok(file) = self.file_mut(id) {
            file.bytes = before;
            file.unsynced.pop();
            if kept > 0 {
                apply(&mut file.bytes, &change);
                file.unsynced.push(change);
            }
        }
    }

    /// A write that is acknowledged and is not where it should be.
    pub(super) fn lead_astray(
        &mut self,
        id: NodeId,
        (position, bytes): (u64, &[u8]),
        (astray, synced): (Astray, bool),
    ) -> io::Result<()> {
        let file = self.file_mut(id)?;
        let end = position as usize + bytes.len();
        // The length is the file system's; only the bytes go astray.
        let length = file.bytes.len().max(end);
        file.bytes.resize(length, 0);
        file.platter.resize(length.max(file.platter.len()), 0);
        if !synced {
            file.bytes[position as usize..end].copy_from_slice(bytes);
        }
        if astray == Astray::Lost {
            return Ok(());
        }
        let targets: Vec<NodeId> = (0..self.nodes.len())
            .filter(|id| {
                self.file(*id)
                    .is_some_and(|f| f.platter.len() >= SECTOR_BYTES)
            })
            .collect();
        if targets.is_empty() {
            return Ok(());
        }
        let target = targets[self.chance(targets.len() as u64) as usize];
        self.went_astray = Some((id, target));
        let sectors = self
            .file(target)
            .map_or(0, |f| f.platter.len() / SECTOR_BYTES);
        let at = self.chance(sectors as u64) as usize * SECTOR_BYTES;
        let file = self.file_mut(target)?;
        let count = bytes.len().min(file.platter.len() - at);
        file.platter[at..at + count].copy_from_slice(&bytes[..count]);
        if synced {
            let count = count.min(file.bytes.len().saturating_sub(at));
            file.bytes[at..at + count].copy_from_slice(&bytes[..count]);
        }
        Ok(())
    }

    /// Names of the two files, as far as they are there.
    pub(in super::super) fn went_astray(&self) -> Option<(PathBuf, PathBuf)> {
        let (meant, hit) = self.went_astray?;
        let all = self.files(Path::new("/"));
        let name = |id| all.iter().find(|path| self.lookup(path) == Some(id));
        Some((name(meant)?.clone(), name(hit)?.clone()))
    }

    pub(in super::super) fn break_block(&mut self, path: &Path, position: u64) {
        let id = self
            .lookup(path)
            .unwrap_or_else(|| panic!("no {} to break", path.display()));
        self.broken.insert((id, position / BLOCK_BYTES as u64));
    }

    pub(in super::super) fn is_broken(&self, id: NodeId, position: u64, length: u64) -> bool {
        let first = position / BLOCK_BYTES as u64;
        let end = (position + length).div_ceil(BLOCK_BYTES as u64);
        self.broken.range((id, first)..(id, end)).next().is_some()
    }

    /// A disk gives a block that is written again another place.
    pub(super) fn mend(&mut self, id: NodeId, change: &Change) {
        if let Change::Write { position, bytes } = change
            && !self.broken.is_empty()
        {
            let first = position / BLOCK_BYTES as u64;
            let end = (position + bytes.len() as u64).div_ceil(BLOCK_BYTES as u64);
            self.broken
                .retain(|(file, block)| *file != id || *block < first || *block >= end);
        }
    }

    pub(in super::super) fn overwrite(&mut self, path: &Path, position: u64, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            let at = position + i as u64;
            let id = self.lookup(path).unwrap_or(ROOT);
            let now = self.file(id).map_or(0, |f| f.bytes[at as usize]);
            self.flip(path, at, now ^ byte);
        }
    }

    pub(in super::super) fn flip(&mut self, path: &Path, position: u64, mask: u8) {
        let id = self
            .lookup(path)
            .unwrap_or_else(|| panic!("no {} to flip a bit in", path.display()));
        let Ok(file) = self.file_mut(id) else {
            panic!("{} is a folder", path.display());
        };
        file.settle();
        file.bytes[position as usize] ^= mask;
        file.platter[position as usize] ^= mask;
    }
}
