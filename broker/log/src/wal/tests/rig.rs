//! What the tests of the WAL share: a sink that remembers, and a model of what must come back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::super::*;
use crate::disk::{Disk, SimDisk};
use crate::ids::TopicId;
use crate::metrics::LogMetrics;
use crate::node::{Node, NodeOptions};

pub(super) const DIR: &str = "/data";
/// Small files, so that a few groups fill one.
pub(super) const FILE_BYTES: u64 = 16 * 4096;
/// No test waits longer for a condition.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(super) struct Sink {
    groups: Mutex<Vec<(u64, Vec<Frame>)>>,
    changed: Condvar,
    dead: AtomicBool,
    pub(super) reason: Mutex<String>,
}

impl WalSink for Sink {
    fn durable(&self, group: &mut DurableGroup) {
        let frames = std::mem::take(&mut group.frames);
        self.groups.lock().push((group.seq, frames));
        self.changed.notify_all();
    }

    fn fatal(&self, reason: &str) -> ! {
        *self.reason.lock() = reason.to_owned();
        self.dead.store(true, Ordering::SeqCst);
        let _groups = self.groups.lock();
        self.changed.notify_all();
        drop(_groups);
        // Ends this thread without a message: the "process" is over.
        std::panic::resume_unwind(Box::new("fatal"))
    }
}

impl Sink {
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Waits until `count` frames are durable; false if the WAL died before.
    pub(super) fn wait(&self, count: usize) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut groups = self.groups.lock();
        loop {
            if groups.iter().map(|(_, frames)| frames.len()).sum::<usize>() >= count {
                return true;
            }
            if self.is_dead() {
                return false;
            }
            let timed_out = self.changed.wait_until(&mut groups, deadline).timed_out();
            assert!(!timed_out, "{count} frames never became durable");
        }
    }

    pub(super) fn frames(&self) -> Vec<Frame> {
        let groups = self.groups.lock();
        groups
            .iter()
            .flat_map(|(_, frames)| frames.clone())
            .collect()
    }
}

pub(super) fn options() -> WalOptions {
    WalOptions {
        sizing: Some(WalSizing {
            file_bytes: FILE_BYTES,
            files_max: 4,
        }),
        seal_after: Duration::from_secs(3600),
        background: false,
        ..WalOptions::default()
    }
}

pub(super) fn partition(index: i32) -> PartitionId {
    PartitionId {
        topic: TopicId([7; 16]),
        index,
    }
}

/// A batch of `size` bytes that no other offset has.
pub(super) fn append(index: i32, offset: i64, size: usize) -> Frame {
    let mut bytes: Vec<u8> = (0..size).map(|i| (i as u8).wrapping_mul(31)).collect();
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    bytes[8] = index as u8;
    Frame {
        partition: partition(index),
        body: FrameBody::Append {
            base_offset: offset,
            last_offset: offset + 9,
            batch: Batch::from_bytes(&bytes.into()).unwrap(),
        },
    }
}

pub(super) fn node(disk: &SimDisk) -> Result<Arc<Node>, crate::node::NodeError> {
    let options = NodeOptions {
        data_dir: PathBuf::from(DIR),
        broker_id: 0,
        cluster_id: None,
        replaces: None,
    };
    Node::open(Arc::new(disk.clone()), &options).map(Arc::new)
}

/// Why a simulated start did not happen.
pub(super) type StartError = Box<dyn std::error::Error>;

pub(super) struct Started {
    pub(super) wal: Wal,
    pub(super) sink: Arc<Sink>,
    pub(super) recovered: Vec<Recovered>,
}

pub(super) fn start_with(disk: &SimDisk, options: WalOptions) -> Result<Started, StartError> {
    let mut recovery = Wal::open(Arc::new(disk.clone()), node(disk)?, options)?;
    let mut recovered = Vec::new();
    while let Some(step) = recovery.next()? {
        recovered.push(step);
    }
    let sink = Arc::new(Sink::default());
    let metrics = Arc::new(LogMetrics::unregistered());
    let wal = recovery.finish(Arc::clone(&sink) as Arc<dyn WalSink>, metrics)?;
    Ok(Started {
        wal,
        sink,
        recovered,
    })
}

pub(super) fn start(disk: &SimDisk) -> Result<Started, StartError> {
    start_with(disk, options())
}

/// The frames of partitions in what recovery yielded, in order; asserts that positions ascend.
pub(super) fn frames(recovered: &[Recovered]) -> Vec<Frame> {
    let mut last = None;
    let mut frames = Vec::new();
    for step in recovered {
        if let Recovered::Group(group) = step {
            for frame in &group.frames {
                assert!(last < Some(frame.at), "{last:?} before {:?}", frame.at);
                last = Some(frame.at);
                if !matches!(frame.frame.body, FrameBody::Seal | FrameBody::Boot { .. }) {
                    frames.push(frame.frame.clone());
                }
            }
        }
    }
    frames
}

pub(super) fn damaged(recovered: &[Recovered]) -> Vec<RecoveredGroup> {
    recovered
        .iter()
        .filter_map(|step| match step {
            Recovered::Group(group) => group.damage.map(|_| group.clone()),
            Recovered::Torn(_) => None,
        })
        .collect()
}

/// Everything that a reader without a lock sees.
pub(super) fn read(disk: &SimDisk) -> Vec<Recovered> {
    let mut reader = WalReader::open(Arc::new(disk.clone()), Path::new(DIR))
        .unwrap()
        .unwrap();
    let mut all = Vec::new();
    while let Some(step) = reader.next().unwrap() {
        all.push(step);
    }
    all
}

/// Where each group lies: sequence number to file and group.
pub(super) fn groups(disk: &SimDisk) -> BTreeMap<u64, RecoveredGroup> {
    read(disk)
        .into_iter()
        .filter_map(|step| match step {
            Recovered::Group(group) => Some((group.seq, group)),
            Recovered::Torn(_) => None,
        })
        .collect()
}

pub(super) fn path(group: &RecoveredGroup) -> PathBuf {
    Path::new(DIR).join(&group.file)
}

/// Overwrites bytes on the platter.
pub(super) fn wipe(disk: &SimDisk, path: &Path, position: u64, length: u64) {
    let bytes = disk.contents(path).unwrap();
    for at in position..position + length {
        let now = bytes[at as usize];
        if now != 0 {
            disk.flip(path, at, now);
        }
    }
}

/// Each submit is a group of its own, since the next one waits for it.
pub(super) fn commit(
    started: &Started,
    done: &mut usize,
    class: Class,
    frames: Vec<Frame>,
) -> bool {
    *done += frames.len();
    started.wal.submit(class, frames).unwrap();
    started.sink.wait(*done)
}

pub(super) fn disk_of(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}
