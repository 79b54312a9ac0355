//! One pass of the flusher over a partition, in steps that many passes take side by side.
//!
//! Owns the order of steps: what is about to be created is named in a slot; data, checksums, index and producers are
//! written; they are synced, then the folder; then the slot that makes them count is written, and synced; then tail memory
//! is given back and dropped files are unlinked. What many passes wrote in one step is synced at once.

use std::io;

use parking_lot::MutexGuard;

use super::Partition;
use super::segments::{FlushError, Plan, SegmentWriter};
use super::slots::Slots;
use super::unsynced::Unsynced;
use crate::files::Files;

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// There was nothing to do.
    Idle,
    /// Everything that was durable is in the folder.
    Done,
    /// More is waiting.
    More,
}

/// A pass under way. Nobody else writes to the folder meanwhile.
pub(crate) struct FlushPass<'a> {
    partition: &'a Partition,
    plan: Plan,
    unsynced: Unsynced,
    /// The slot that is written and counts once it is synced.
    slots: Option<Slots>,
    _only_writer: MutexGuard<'a, ()>,
}

impl Partition {
    /// One pass: moves durable batches of the tail into a segment and brings the manifest up to date.
    pub(crate) fn flush_pass(&self) -> Result<Pass, FlushError> {
        let mut passes = flush_passes(&self.shared().files, &[self]);
        passes.pop().expect("one partition, one pass")
    }

    /// The first step: what is to be moved is chosen, a new segment is named. `None`: there is nothing to do.
    pub(crate) fn begin_pass(&self) -> Result<Option<FlushPass<'_>>, FlushError> {
        let only_writer = self.folder.lock();
        let Some(plan) = self.plan_behind_truncation(Self::plan_flush)? else {
            return Ok(None);
        };
        let mut pass = FlushPass {
            partition: self,
            plan,
            unsynced: Unsynced::default(),
            slots: None,
            _only_writer: only_writer,
        };
        let announced = pass.announce();
        pass.or_dirty(announced)?;
        Ok(Some(pass))
    }

    /// A pass that moves no data, for a volume without room: the log start, dropped segments, quarantined ranges.
    pub(crate) fn manifest_pass(&self) -> Result<Pass, FlushError> {
        let only_writer = self.folder.lock();
        let Some(plan) = self.plan_behind_truncation(Self::plan_manifest)? else {
            return Ok(Pass::Idle);
        };
        let pass = FlushPass {
            partition: self,
            plan,
            unsynced: Unsynced::default(),
            slots: None,
            _only_writer: only_writer,
        };
        let written = pass.write(&mut Vec::new()).map(Some);
        through(&self.shared().files, vec![written])
            .pop()
            .expect("one pass in, one out")
    }
}

/// One pass over each partition, all in step. The results are in their order.
pub(crate) fn flush_passes<'a>(
    files: &Files,
    partitions: &[&'a Partition],
) -> Vec<Result<Pass, FlushError>> {
    let mut buffer = Vec::new();
    let begun = partitions.iter().map(|partition: &&'a Partition| {
        let begun = partition.begin_pass()?;
        begun.map(|pass| pass.write(&mut buffer)).transpose()
    });
    through(files, begun.collect())
}

type Under<'a> = Result<Option<FlushPass<'a>>, FlushError>;

/// From what is written to the end.
fn through<'a>(files: &Files, mut passes: Vec<Under<'a>>) -> Vec<Result<Pass, FlushError>> {
    sync(files, &mut passes);
    let put = |pass: Under<'a>| pass?.map(FlushPass::put_slot).transpose();
    let mut passes: Vec<_> = passes.into_iter().map(put).collect();
    sync(files, &mut passes);
    let finish = |pass: Under<'_>| pass?.map_or(Ok(Pass::Idle), FlushPass::finish);
    passes.into_iter().map(finish).collect()
}

/// Makes durable what all of them wrote. If that fails, it has failed for each.
fn sync(files: &Files, passes: &mut [Under<'_>]) {
    let mut unsynced = Unsynced::default();
    for pass in passes.iter_mut().flatten().flatten() {
        unsynced.take(&mut pass.unsynced);
    }
    let Err(error) = unsynced.sync(files) else {
        return;
    };
    for under in passes {
        if let Ok(Some(pass)) = under {
            let error = match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error.to_string()),
            };
            let dir = files.partition_dir(pass.partition.id());
            *under = pass.or_dirty(Err(FlushError::new(dir, error)));
        }
    }
}

impl<'a> FlushPass<'a> {
    fn announce(&mut self) -> Result<(), FlushError> {
        let (partition, plan) = (self.partition, &mut self.plan);
        if plan.batches.is_empty() || !plan.is_new {
            return Ok(());
        }
        partition.put_tails(&mut plan.manifest)?;
        partition.announce(plan.segment.base_offset)
    }

    /// The second step: what is to be moved is written to its segment, and what is known of producers. Waits for nothing but
    /// the disk's queue.
    fn write(mut self, buffer: &mut Vec<u8>) -> Result<FlushPass<'a>, FlushError> {
        let written = self.write_files(buffer);
        self.or_dirty(written)?;
        Ok(self)
    }

    fn write_files(&mut self, buffer: &mut Vec<u8>) -> Result<(), FlushError> {
        let (partition, plan) = (self.partition, &mut self.plan);
        if !plan.batches.is_empty() {
            let writer = SegmentWriter {
                files: &partition.shared().files,
                partition: partition.id(),
            };
            writer.append(
                (&mut plan.segment, &mut plan.manifest.tails),
                plan.is_new,
                &plan.batches,
                (buffer, &mut self.unsynced),
            )?;
        }
        partition.write_snapshot(plan, &mut self.unsynced)
    }

    /// The third step, once that is synced: the slot that makes it count.
    fn put_slot(mut self) -> Result<FlushPass<'a>, FlushError> {
        assert!(
            self.unsynced.is_empty(),
            "{}: a slot before what it lists is durable",
            self.partition.id()
        );
        let put = self.put_manifest();
        self.or_dirty(put)?;
        Ok(self)
    }

    fn put_manifest(&mut self) -> Result<(), FlushError> {
        let (partition, plan) = (self.partition, &mut self.plan);
        if !plan.batches.is_empty() {
            let segments = &mut plan.manifest.segments;
            segments.retain(|s| s.base_offset != plan.segment.base_offset);
            segments.push(plan.segment);
        }
        // What a pass without room has begun stays named, or a start would take its files for somebody else's.
        let segments = &plan.manifest.segments;
        let is_listed = |base: i64| segments.iter().any(|s| s.base_offset == base);
        let mut slots = {
            let state = partition.state.lock();
            let compacting = state.compacting;
            let created = &mut plan.manifest.created;
            created.retain(|base| !is_listed(*base) || compacting == Some(*base));
            state.slots.place()
        };
        let files = &partition.shared().files;
        let put = slots.put(files, plan.manifest.clone());
        let put = put.map_err(|e| FlushError::new(files.partition_dir(partition.id()), e))?;
        put.into_iter().for_each(|file| self.unsynced.written(file));
        self.slots = Some(slots);
        Ok(())
    }

    /// The last step, once the slot is synced.
    fn finish(mut self) -> Result<Pass, FlushError> {
        let (partition, plan) = (self.partition, &self.plan);
        assert!(
            self.unsynced.is_empty(),
            "{}: memory is given back before the slot is durable",
            partition.id()
        );
        let slots = self.slots.take().expect("the slot was written");
        // The one before is freed without the lock.
        let _before = std::mem::replace(&mut partition.state.lock().slots, slots);
        let unlinked = partition.unlink_dropped(&plan.manifest.dropped);
        self.or_dirty(unlinked)?;
        let mut state = partition.state.lock();
        let freed = partition.settle(&mut state, plan);
        drop(state);
        drop(freed);
        Ok(if plan.all { Pass::Done } else { Pass::More })
    }

    /// What a pass that failed took out of the state is to be written by the next one.
    fn or_dirty<T>(&self, result: Result<T, FlushError>) -> Result<T, FlushError> {
        if result.is_err() {
            self.partition.state.lock().manifest_dirty = true;
        }
        result
    }
}
