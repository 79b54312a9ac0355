//! The identity of a data directory: `LOCK` and `node.meta`.
//!
//! Owns who may use a directory, and why the run before this one ended. Never touches logs.
//!
//! `node.meta` is two slots of 4 KiB; the valid slot with the higher generation counts, the other is written next:
//!
//! ```text
//!   0  magic "KEELNODE"        8
//!   8  format version (1)      u32 LE
//!  12  length of the text      u32 LE
//!  16  slot generation         u64 LE, from 1
//!  24  CRC32C of bytes 0..24 and of the text   u32 LE
//!  28  text: lines "key=value" (cluster.id, broker.id, directory.id, replaces, scrub,
//!     exit), UTF-8
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::directory::DirectoryAt;
use crate::disk::{BLOCK_BYTES, Disk, DiskFile, DiskLock, Durability, LockError, OpenMode};
use crate::health::BadSlots;
use crate::metrics::Reason;

/// The file's name in the data directory.
pub(crate) const NODE_META: &str = "node.meta";
const MAGIC: &[u8; 8] = b"KEELNODE";
/// The form of the whole data directory, WAL and segments included.
const FORMAT_VERSION: u32 = 1;
const HEAD_BYTES: usize = 28;
/// A reason longer than this is cut: it must fit its slot with the ids.
const EXIT_BYTES_MAX: usize = 2048;
/// Each id, so that all fit a slot with the longest reason. Kafka's own cluster ids have 22 bytes.
const ID_BYTES_MAX: usize = 512;
const _: () = assert!(HEAD_BYTES + 3 * ID_BYTES_MAX + EXIT_BYTES_MAX + 128 <= BLOCK_BYTES);
const NO_SLOT: &str =
    "no slot verifies: this is not a Keelson data directory, or both copies are damaged";
/// What `last_exit` says after a clean stop.
pub const EXIT_STOPPED: &str = "stopped";

/// Who lives in a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The cluster's id.
    pub cluster_id: String,
    /// The broker's id.
    pub broker_id: i32,
    /// The directory's own id (a UUID).
    pub directory_id: String,
}

/// What a caller expects to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOptions {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The broker's id.
    pub broker_id: i32,
    /// The cluster's id, if it is prescribed; a new directory without one gets a random one.
    pub cluster_id: Option<String>,
    /// What the directory is accepted in place of from now on; `None` leaves what it says.
    pub replaces: Option<DirectoryAt>,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The disk refused an operation (a read-only directory, a full volume).
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another broker runs on it.
    #[error("another broker is running on the data directory {}", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// It belongs to somebody else, or is of a form that this version does not read.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why, in words.
        reason: String,
    },
}

/// A locked data directory. The lock is held until this is dropped.
pub struct Node {
    data_dir: PathBuf,
    identity: NodeIdentity,
    replaces: Option<DirectoryAt>,
    last_exit: String,
    damaged: BadSlots,
    meta: Mutex<Meta>,
    _lock: Box<dyn DiskLock>,
}

struct Meta {
    file: Arc<dyn DiskFile>,
    generation: u64,
    /// End of the scrubber's last full pass, Unix ms; 0: never.
    scrubbed_ms: i64,
    exit: Option<String>,
}

/// One decoded slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) generation: u64,
    pub(crate) identity: NodeIdentity,
    pub(crate) replaces: Option<DirectoryAt>,
    pub(crate) scrubbed_ms: i64,
    pub(crate) exit: String,
}

/// What a slot's bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SlotRead {
    Valid(Slot),
    Empty,
    Damaged,
    OtherVersion(u32),
}

impl Node {
    /// Locks the directory, reads its identity or, in an empty one, writes it.
    pub fn open(disk: Arc<dyn Disk>, options: &NodeOptions) -> Result<Node, NodeError> {
        let dir = &options.data_dir;
        disk.create_dir_all(dir).map_err(io("create", dir))?;
        let lock = disk.lock(&dir.join("LOCK")).map_err(|error| match error {
            LockError::Held { .. } => NodeError::InUse { path: dir.clone() },
            LockError::Io { path, source } => NodeError::Io {
                doing: "lock",
                path,
                source,
            },
        })?;
        let path = dir.join(NODE_META);
        let (found, damaged) = if disk.exists(&path).map_err(io("look for", &path))? {
            read_slots(disk.as_ref(), &path)?
        } else {
            (None, Vec::new())
        };
        if found.is_none() {
            // A cut in the very first write leaves a damaged slot beside nothing else; all else is refused.
            refuse_foreign_content(disk.as_ref(), dir, !damaged.is_empty())?;
        }
        let file = disk
            .open(&path, OpenMode::Create)
            .map_err(io("open for writing", &path))?;
        let (slot, is_new) = match found {
            Some(slot) => (slot, false),
            None => (new_slot(disk.as_ref(), options)?, true),
        };
        check_identity(&path, &slot.identity, options)?;
        let node = Node {
            data_dir: dir.clone(),
            identity: slot.identity,
            replaces: options.replaces.clone().or(slot.replaces),
            last_exit: slot.exit,
            damaged,
            meta: Mutex::new(Meta {
                file,
                generation: slot.generation,
                scrubbed_ms: slot.scrubbed_ms,
                exit: None,
            }),
            _lock: lock,
        };
        // Written at every start: the exit reason of this run is empty until it has one, and a directory that cannot
        // be written is found out now.
        node.write(&mut node.meta.lock(), "")
            .map_err(io("write", &path))?;
        if is_new {
            disk.sync_dir(dir).map_err(io("sync", dir))?;
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                disk.sync_dir(parent).map_err(io("sync", parent))?;
            }
        }
        Ok(node)
    }

    /// Reads a directory's identity without a lock and without writing (for `log verify`).
    pub fn read(disk: &dyn Disk, data_dir: &Path) -> Result<NodeIdentity, NodeError> {
        Self::look(disk, data_dir).map(|(slot, _)| slot.identity)
    }

    /// The slot that counts in a `node.meta` that exists; `None` where the very first start was cut off before it had
    /// written one. Takes no lock, never writes.
    pub(crate) fn look_if_written(
        disk: &dyn Disk,
        data_dir: &Path,
    ) -> Result<Option<Slot>, NodeError> {
        let (found, damaged) = read_slots(disk, &data_dir.join(NODE_META))?;
        if found.is_none() {
            refuse_foreign_content(disk, data_dir, !damaged.is_empty())?;
        }
        Ok(found)
    }

    /// The slot that counts, and where the other one is not whole. Takes no lock, never writes.
    pub(crate) fn look(disk: &dyn Disk, data_dir: &Path) -> Result<(Slot, BadSlots), NodeError> {
        let path = data_dir.join(NODE_META);
        let (found, damaged) = read_slots(disk, &path)?;
        let reason = match (found, damaged.is_empty()) {
            (Some(slot), _) => return Ok((slot, damaged)),
            (None, false) => NO_SLOT,
            (None, true) => {
                "it is empty: the first start of a broker here did not get far enough to hold data"
            }
        };
        let reason = reason.to_owned();
        Err(NodeError::Refused { path, reason })
    }

    /// The identity.
    pub fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    /// What the directory was accepted in place of, if it ever was.
    pub fn replaces(&self) -> Option<&DirectoryAt> {
        self.replaces.as_ref()
    }

    /// The number that its next start has at least: above what was seen of it, where it is an older copy of itself.
    pub(crate) fn boot_min(&self) -> u64 {
        match &self.replaces {
            Some(newer) if newer.id == self.identity.directory_id => newer.boot + 1,
            Some(_) | None => 1,
        }
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Why the run before this one ended: empty after a kill, [`EXIT_STOPPED`] after a clean stop, else the first
    /// failure.
    pub fn last_exit(&self) -> &str {
        &self.last_exit
    }

    /// Position and reason of a slot that this start found not to be whole, and has replaced since.
    pub(crate) fn damaged_slots(&self) -> &[(u64, Reason)] {
        &self.damaged
    }

    /// Keeps the reason of an end; the first one of a run wins. A disk that fails here is not the news.
    pub fn record_exit(&self, reason: &str) {
        let mut meta = self.meta.lock();
        if meta.exit.is_some() {
            return;
        }
        // Both slots tell of a clean stop: whichever is damaged later, the other one still says that it was whole.
        let copies = if reason == EXIT_STOPPED { 2 } else { 1 };
        let written = (0..copies).try_for_each(|_| self.write(&mut meta, reason));
        if let Err(error) = written {
            tracing::warn!(%error, reason, "the exit reason could not be kept in node.meta");
        }
        meta.exit = Some(reason.to_owned());
    }

    /// When the scrubber had seen everything the last time, Unix ms; 0: never.
    pub fn scrubbed_ms(&self) -> i64 {
        self.meta.lock().scrubbed_ms
    }

    /// Keeps the end of a full pass of the scrubber. An error is a failed write or sync: the caller ends the process.
    pub fn record_scrub(&self, now_ms: i64) -> io::Result<()> {
        let mut meta = self.meta.lock();
        meta.scrubbed_ms = now_ms;
        let exit = meta.exit.clone().unwrap_or_default();
        self.write(&mut meta, &exit)
    }

    fn write(&self, meta: &mut Meta, exit: &str) -> io::Result<()> {
        let slot = Slot {
            generation: meta.generation + 1,
            identity: self.identity.clone(),
            replaces: self.replaces.clone(),
            scrubbed_ms: meta.scrubbed_ms,
            exit: exit.to_owned(),
        };
        let position = place(slot.generation);
        meta.file
            .write_at(&encode(&slot), position, Durability::Synced)?;
        meta.generation = slot.generation;
        Ok(())
    }
}

/// Where a slot stands in the file.
fn place(generation: u64) -> u64 {
    (generation % 2) * BLOCK_BYTES as u64
}

fn io<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> NodeError + 'a {
    move |source| NodeError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// A directory without identity must be new: adopting somebody's files would end in quarantining or overwriting them.
fn refuse_foreign_content(disk: &dyn Disk, dir: &Path, damaged: bool) -> Result<(), NodeError> {
    for entry in disk.list(dir).map_err(io("list", dir))? {
        if matches!(entry.name.as_str(), "wal" | "p" | "quarantine") {
            let reason = if damaged {
                NO_SLOT.to_owned()
            } else {
                format!(
                    "it is missing or was never written, but the directory holds {}/: restore it, or use another directory",
                    entry.name
                )
            };
            return Err(NodeError::Refused {
                path: dir.join("node.meta"),
                reason,
            });
        }
    }
    Ok(())
}

fn new_slot(disk: &dyn Disk, options: &NodeOptions) -> Result<Slot, NodeError> {
    let dir = &options.data_dir;
    let mut bytes = [0; 32];
    disk.random(&mut bytes)
        .map_err(io("get random bytes for", dir))?;
    let cluster_id = match &options.cluster_id {
        Some(id) => id.clone(),
        None => base64_id(&bytes[..16]),
    };
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[16..]);
    id[6] = (id[6] & 0x0f) | 0x40;
    id[8] = (id[8] & 0x3f) | 0x80;
    Ok(Slot {
        generation: 0,
        identity: NodeIdentity {
            cluster_id,
            broker_id: options.broker_id,
            directory_id: crate::ids::TopicId(id).to_string(),
        },
        replaces: None,
        scrubbed_ms: 0,
        exit: String::new(),
    })
}

/// Kafka's form of a cluster id: 16 random bytes in URL-safe base 64 without padding.
fn base64_id(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(22);
    for chunk in bytes.chunks(3) {
        let mut word = [0; 3];
        word[..chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes([0, word[0], word[1], word[2]]);
        for digit in 0..=chunk.len() {
            text.push(char::from(
                DIGITS[(word >> (18 - 6 * digit)) as usize & 0x3f],
            ));
        }
    }
    text
}

fn check_identity(
    path: &Path,
    found: &NodeIdentity,
    wanted: &NodeOptions,
) -> Result<(), NodeError> {
    let refused = |reason| NodeError::Refused {
        path: path.to_owned(),
        reason,
    };
    if found.broker_id != wanted.broker_id {
        return Err(refused(format!(
            "the directory belongs to broker {}, this is broker {}",
            found.broker_id, wanted.broker_id
        )));
    }
    if let Some(cluster_id) = wanted
        .cluster_id
        .as_ref()
        .filter(|id| **id != found.cluster_id)
    {
        return Err(refused(format!(
            "the directory belongs to cluster {}, this broker is configured for cluster {cluster_id}",
            found.cluster_id
        )));
    }
    Ok(())
}

pub(crate) fn encode(slot: &Slot) -> Vec<u8> {
    let mut exit: String = slot
        .exit
        .chars()
        .map(|c| if c == '\n' { ' ' } else { c })
        .collect();
    let mut cut = exit.len().min(EXIT_BYTES_MAX);
    while !exit.is_char_boundary(cut) {
        cut -= 1;
    }
    exit.truncate(cut);
    let id = &slot.identity;
    let scrub = match slot.scrubbed_ms {
        0 => String::new(),
        ms => format!("scrub={ms}\n"),
    };
    let replaces = match &slot.replaces {
        None => String::new(),
        Some(other) => format!("replaces={other}\n"),
    };
    let text = format!(
        "cluster.id={}\nbroker.id={}\ndirectory.id={}\n{replaces}{scrub}exit={exit}\n",
        id.cluster_id, id.broker_id, id.directory_id
    );
    let mut bytes = vec![0; BLOCK_BYTES];
    assert!(
        HEAD_BYTES + text.len() <= BLOCK_BYTES,
        "ids longer than a slot are refused by the configuration"
    );
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&(text.len() as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&slot.generation.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..24]), text.as_bytes());
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    bytes[28..28 + text.len()].copy_from_slice(text.as_bytes());
    bytes
}

pub(crate) fn decode(bytes: &[u8]) -> SlotRead {
    if bytes.iter().all(|byte| *byte == 0) {
        return SlotRead::Empty;
    }
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if bytes.len() < HEAD_BYTES || &bytes[..8] != MAGIC {
        return SlotRead::Damaged;
    }
    let length = word(12) as usize;
    let Some(text) = bytes.get(HEAD_BYTES..HEAD_BYTES.saturating_add(length)) else {
        return SlotRead::Damaged;
    };
    if crc32c::crc32c_append(crc32c::crc32c(&bytes[..24]), text) != word(24) {
        return SlotRead::Damaged;
    }
    if word(8) != FORMAT_VERSION {
        return SlotRead::OtherVersion(word(8));
    }
    let generation = u64::from(word(16)) | u64::from(word(20)) << 32;
    if generation == u64::MAX {
        // No start comes so far, and the next one could not count on.
        return SlotRead::Damaged;
    }
    parse_text(text, generation).map_or(SlotRead::Damaged, SlotRead::Valid)
}

/// An id that can be written again beside the longest exit reason.
fn id(value: &str) -> Option<String> {
    (value.len() <= ID_BYTES_MAX).then(|| value.to_owned())
}

fn parse_text(text: &[u8], generation: u64) -> Option<Slot> {
    let (mut cluster, mut broker, mut directory, mut exit) = (None, None, None, None);
    let mut scrubbed_ms = 0;
    let mut replaces = None;
    // Nothing but the line feed ends a line: a value may end in any other character.
    for line in std::str::from_utf8(text)
        .ok()?
        .strip_suffix('\n')?
        .split('\n')
    {
        match line.split_once('=')? {
            ("cluster.id", value) => cluster = Some(id(value)?),
            ("broker.id", value) => broker = Some(value.parse().ok()?),
            ("directory.id", value) => directory = Some(id(value)?),
            ("replaces", value) => replaces = Some(id(value)?.parse().ok()?),
            ("scrub", value) => scrubbed_ms = value.parse().ok()?,
            ("exit", value) => exit = Some(value.to_owned()),
            (_, _) => return None,
        }
    }
    Some(Slot {
        generation,
        identity: NodeIdentity {
            cluster_id: cluster?,
            broker_id: broker?,
            directory_id: directory?,
        },
        replaces,
        scrubbed_ms,
        exit: exit?,
    })
}

/// The slot that counts (`None` when there is none), and where one is not whole.
fn read_slots(disk: &dyn Disk, path: &Path) -> Result<(Option<Slot>, BadSlots), NodeError> {
    let file = disk.open(path, OpenMode::Read).map_err(io("open", path))?;
    let mut best: Option<Slot> = None;
    let (mut damaged, mut empty) = (Vec::new(), Vec::new());
    for position in [0, BLOCK_BYTES as u64] {
        let mut bytes = vec![0; BLOCK_BYTES];
        match file.read_at(&mut bytes, position) {
            Ok(read) => bytes[read..].fill(0),
            // A damaged slot: the other one may still say all.
            Err(_) => {
                damaged.push((position, Reason::Io));
                continue;
            }
        }
        match decode(&bytes) {
            // A stale one in the other one's place, where no start has written it.
            SlotRead::Valid(slot) if place(slot.generation) != position => {
                damaged.push((position, Reason::SlotCrc));
            }
            SlotRead::Valid(slot) => {
                if best
                    .as_ref()
                    .is_none_or(|other| other.generation < slot.generation)
                {
                    best = Some(slot);
                }
            }
            SlotRead::Empty => empty.push((position, Reason::SlotCrc)),
            SlotRead::Damaged => damaged.push((position, Reason::SlotCrc)),
            SlotRead::OtherVersion(version) => {
                return Err(NodeError::Refused {
                    path: path.to_owned(),
                    reason: format!(
                        "the directory has format {version}; this version reads and writes format {FORMAT_VERSION} only"
                    ),
                });
            }
        }
    }
    // From the second generation on, both were written.
    if best.as_ref().is_some_and(|slot| slot.generation > 1) {
        damaged.append(&mut empty);
    }
    Ok((best, damaged))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{SimDisk, SimFaults};

    fn options(broker_id: i32) -> NodeOptions {
        NodeOptions {
            data_dir: PathBuf::from("/data"),
            broker_id,
            cluster_id: None,
            replaces: None,
        }
    }

    fn open(disk: &SimDisk) -> Result<Node, NodeError> {
        Node::open(Arc::new(disk.clone()), &options(0))
    }

    #[test]
    fn identity_and_the_first_exit_reason_come_back() {
        let disk = SimDisk::new(1);
        let node = open(&disk).unwrap();
        let identity = node.identity().clone();
        assert_eq!(identity.cluster_id.len(), 22);
        assert_eq!(node.last_exit(), "");
        node.record_exit("the disk\nfailed");
        node.record_exit("a consequence");
        node.record_scrub(1234).unwrap();
        drop(node);
        let node = open(&disk).unwrap();
        assert_eq!(node.scrubbed_ms(), 1234);
        assert_eq!(node.identity(), &identity);
        assert_eq!(node.last_exit(), "the disk failed");
        drop(node);
        assert_eq!(
            open(&disk).unwrap().last_exit(),
            "",
            "a run without a reason was killed"
        );
        assert_eq!(Node::read(&disk, Path::new("/data")).unwrap(), identity);
    }

    #[test]
    fn a_directory_in_use_or_of_somebody_else_is_refused_in_words() {
        let disk = SimDisk::new(1);
        let node = open(&disk).unwrap();
        let says = |result: Result<Node, NodeError>| result.err().unwrap().to_string();
        assert!(says(open(&disk)).contains("another broker is running"));
        drop(node);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let other = says(Node::open(Arc::clone(&shared), &options(4)));
        assert!(
            other.contains("belongs to broker 0, this is broker 4"),
            "{other}"
        );
        let cluster = NodeOptions {
            cluster_id: Some("mine".to_owned()),
            ..options(0)
        };
        let other = says(Node::open(shared, &cluster));
        assert!(other.contains("configured for cluster mine"), "{other}");
    }

    #[test]
    fn a_newer_format_and_damage_in_both_slots_are_refused_one_damaged_slot_is_not() {
        let disk = SimDisk::new(1);
        drop(open(&disk).unwrap());
        drop(open(&disk).unwrap());
        let path = Path::new("/data/node.meta");
        disk.flip(path, 30, 1);
        drop(open(&disk).unwrap());
        disk.create_dir_all(Path::new("/data/wal")).unwrap();
        disk.flip(path, 30, 1);
        disk.flip(path, BLOCK_BYTES as u64 + 30, 1);
        let damaged = open(&disk).err().unwrap().to_string();
        assert!(damaged.contains("no slot verifies"), "{damaged}");
        let slot = Slot {
            generation: 99,
            identity: NodeIdentity {
                cluster_id: "c".to_owned(),
                broker_id: 0,
                directory_id: "d".to_owned(),
            },
            replaces: None,
            scrubbed_ms: 0,
            exit: String::new(),
        };
        let mut bytes = encode(&slot);
        bytes[8] = 2;
        let length = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..24]), &bytes[28..28 + length]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        let file = disk.open(path, OpenMode::Write).unwrap();
        file.write_at(&bytes, 0, Durability::Synced).unwrap();
        let newer = open(&disk).err().unwrap().to_string();
        assert!(newer.contains("has format 2"), "{newer}");
    }

    #[test]
    fn every_slot_that_is_read_can_be_written_and_read_again() {
        let sealed = |generation: u64, text: &str| {
            let mut bytes = encode(&Slot {
                generation,
                identity: NodeIdentity {
                    cluster_id: String::new(),
                    broker_id: 0,
                    directory_id: String::new(),
                },
                replaces: None,
                scrubbed_ms: 0,
                exit: String::new(),
            });
            bytes[HEAD_BYTES..][..text.len()].copy_from_slice(text.as_bytes());
            bytes[12..16].copy_from_slice(&(text.len() as u32).to_le_bytes());
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..24]), text.as_bytes());
            bytes[24..28].copy_from_slice(&crc.to_le_bytes());
            decode(&bytes)
        };
        let good = "cluster.id=c\r\nbroker.id=7\nreplaces=d@7\nexit=\ndirectory.id=\r\n";
        let SlotRead::Valid(slot) = sealed(4, good) else {
            panic!("a slot is read");
        };
        assert_eq!(slot.identity.cluster_id, "c\r");
        assert_eq!(slot.identity.directory_id, "\r");
        assert_eq!(decode(&encode(&slot)), SlotRead::Valid(slot));
        let cut = good.trim_end_matches('\n');
        assert_eq!(sealed(4, cut), SlotRead::Damaged, "the last line is cut");
        assert_eq!(sealed(u64::MAX, good), SlotRead::Damaged);
        let long = "x".repeat(ID_BYTES_MAX + 1);
        let long = format!("cluster.id={long}\nbroker.id=7\nexit=\ndirectory.id=d\n");
        assert_eq!(sealed(4, &long), SlotRead::Damaged);
    }

    #[test]
    fn files_without_an_identity_are_not_adopted() {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data/p")).unwrap();
        let foreign = open(&disk).err().unwrap().to_string();
        assert!(foreign.contains("holds p/"), "{foreign}");
    }

    #[test]
    fn a_power_cut_in_the_first_start_leaves_a_directory_that_starts() {
        for cut_at in 1..8 {
            for seed in 0..20 {
                let disk = SimDisk::new(seed);
                disk.set_faults(SimFaults {
                    cut_at: Some(cut_at),
                    ..SimFaults::default()
                });
                let first = open(&disk).map(|node| node.identity().clone());
                disk.power_cut();
                let again =
                    open(&disk).unwrap_or_else(|error| panic!("{cut_at}, seed {seed}: {error}"));
                if let Ok(identity) = first {
                    assert_eq!(again.identity(), &identity, "{cut_at}, seed {seed}");
                }
            }
        }
    }
}
