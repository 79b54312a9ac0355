//! One pass of the flusher over one partition, in steps that many passes take side by side.
//!
//! Owns the order of steps: what is about to be created is named in a slot; data, checksums and index are written; they are
//! synced, then the folder; then the slot that makes them count; then tail memory is given back and dropped files are
//! unlinked. Between two steps of a pass stand those of others, so that the syncs of many partitions come together.

use parking_lot::MutexGuard;

use super::Partition;
use super::segments::{FlushError, Plan, SegmentWriter, Unsynced};

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
    _only_writer: MutexGuard<'a, ()>,
}

impl Partition {
    /// One pass: moves durable batches of the tail into a segment and brings the manifest up to date.
    pub(crate) fn flush_pass(&self) -> Result<Pass, FlushError> {
        match self.begin_pass()? {
            Some(pass) => pass.write(&mut Vec::new())?.sync()?.finish(),
            None => Ok(Pass::Idle),
        }
    }

    /// The first step: what is to be moved is chosen, a new segment is named. `None`: there is nothing to do.
    pub(crate) fn begin_pass(&self) -> Result<Option<FlushPass<'_>>, FlushError> {
        let only_writer = self.folder.lock();
        self.finish_truncation()?;
        let Some(plan) = self.plan_flush(&mut self.state.lock()) else {
            return Ok(None);
        };
        let mut pass = FlushPass {
            partition: self,
            plan,
            unsynced: Unsynced::default(),
            _only_writer: only_writer,
        };
        let announced = pass.announce();
        pass.or_dirty(announced)?;
        Ok(Some(pass))
    }

    /// A pass that moves no data, for a volume without room: the log start, dropped segments, quarantined ranges.
    pub(crate) fn manifest_pass(&self) -> Result<Pass, FlushError> {
        let only_writer = self.folder.lock();
        self.finish_truncation()?;
        let Some(mut plan) = self.plan_flush(&mut self.state.lock()) else {
            return Ok(Pass::Idle);
        };
        {
            let state = self.state.lock();
            let held = state.slots.manifest.clone();
            if state.tail.first_position().is_some() {
                plan.manifest.applied_group = held.applied_group;
                plan.manifest.applied_frame = held.applied_frame;
                plan.manifest.next_offset = held.next_offset.max(plan.manifest.log_start);
            }
        }
        plan.batches.clear();
        plan.all = true;
        let pass = FlushPass {
            partition: self,
            plan,
            unsynced: Unsynced::default(),
            _only_writer: only_writer,
        };
        pass.finish()
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

    /// The second step: what is to be moved is written to its segment. Waits for nothing but the disk's queue.
    pub(crate) fn write(mut self, buffer: &mut Vec<u8>) -> Result<FlushPass<'a>, FlushError> {
        let plan = &mut self.plan;
        if plan.batches.is_empty() {
            return Ok(self);
        }
        let (segment, tails) = (&mut plan.segment, &mut plan.manifest.tails);
        let written =
            writer(self.partition).append((segment, tails), plan.is_new, &plan.batches, buffer);
        self.unsynced = self.or_dirty(written)?;
        Ok(self)
    }

    /// The third step: what was written becomes durable.
    pub(crate) fn sync(mut self) -> Result<FlushPass<'a>, FlushError> {
        let synced = writer(self.partition).sync(std::mem::take(&mut self.unsynced));
        self.or_dirty(synced)?;
        Ok(self)
    }

    /// The last step: the slot that makes it count.
    pub(crate) fn finish(mut self) -> Result<Pass, FlushError> {
        assert!(
            self.unsynced.is_empty(),
            "{}: a slot before what it lists is durable",
            self.partition.id()
        );
        let counted = self.count();
        self.or_dirty(counted)?;
        let mut state = self.partition.state.lock();
        let freed = self.partition.settle(&mut state, &self.plan);
        drop(state);
        drop(freed);
        Ok(if self.plan.all {
            Pass::Done
        } else {
            Pass::More
        })
    }

    fn count(&mut self) -> Result<(), FlushError> {
        let (partition, plan) = (self.partition, &mut self.plan);
        if !plan.batches.is_empty() {
            let segments = &mut plan.manifest.segments;
            segments.retain(|s| s.base_offset != plan.segment.base_offset);
            segments.push(plan.segment);
        }
        partition.write_snapshot(plan)?;
        // What a pass without room has begun stays named, or a start would take its files for somebody else's.
        let listed: Vec<i64> = plan
            .manifest
            .segments
            .iter()
            .map(|s| s.base_offset)
            .collect();
        let compacting = partition.state.lock().compacting;
        let created = &mut plan.manifest.created;
        created.retain(|base| !listed.contains(base) || compacting == Some(*base));
        partition.write_slot(plan.manifest.clone())?;
        partition.unlink_dropped(&plan.manifest.dropped)
    }

    /// What a pass that failed took out of the state is to be written by the next one.
    fn or_dirty<T>(&self, result: Result<T, FlushError>) -> Result<T, FlushError> {
        if result.is_err() {
            self.partition.state.lock().manifest_dirty = true;
        }
        result
    }
}

fn writer(partition: &Partition) -> SegmentWriter<'_> {
    SegmentWriter {
        files: &partition.shared().files,
        partition: partition.id(),
    }
}
