//! What a start makes of the folders below `p/`: brought in line with their manifests, or told.
//!
//! Owns every repair of a folder. Never guesses: a file that no manifest lists is moved aside and told.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{DirEntry, Durability};
use crate::files::{FileKey, Files, Kind, QUARANTINE_DIR};
use crate::flusher;
use crate::health::UnhealthyRange;
use crate::ids::{PartitionId, TopicId};
use crate::metrics::{Reason, Source, Stage};
use crate::partition::Partition;
use crate::partition::format::Manifest;
use crate::partition::slots::{MANIFEST, MANIFEST_NEW, Slots};
use crate::recovery::CLEAN_EXIT;
use crate::shared::{Shared, now_ms};

/// A problem found in a folder; dropped when replay shows that the partition is deleted.
pub(crate) type Problem = UnhealthyRange;

/// What is not as it should be below `p/`.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) problems: Vec<Problem>,
    /// How far partitions had got, by batches that cannot be taken back. The WAL has them, or they are lost.
    pub(crate) reached: BTreeMap<PartitionId, i64>,
}

impl Found {
    /// Notes what lies behind the bytes that count; returns whether it says how far the partition had got.
    fn reaches(&mut self, files: &Files, slots: &Slots) -> io::Result<bool> {
        let reached = crate::salvage::reached(files, &slots.manifest)?;
        let id = slots.manifest.partition;
        self.reached.extend(reached.map(|offset| (id, offset)));
        Ok(reached.is_some())
    }
}

/// Reads `p/`: one partition per folder. Returns what is to be told.
pub(crate) fn load_partitions(shared: &Arc<Shared>) -> io::Result<Found> {
    let mut found = Found::default();
    let files = &shared.files;
    let root = files.partitions_dir();
    if !files.disk().exists(&root)? {
        return Ok(found);
    }
    for topic in files.disk().list(&root)? {
        let topic_path = root.join(&topic.name);
        let Some(id) = topic.name.parse::<TopicId>().ok().filter(|_| topic.is_dir) else {
            found.problems.push(set_aside(shared, &topic_path, None)?);
            continue;
        };
        for entry in files.disk().list(&topic_path)? {
            let index = entry
                .name
                .parse::<i32>()
                .ok()
                .filter(|i| *i >= 0 && entry.is_dir);
            let Some(index) = index.filter(|i| i.to_string() == entry.name) else {
                found
                    .problems
                    .push(set_aside(shared, &topic_path.join(&entry.name), None)?);
                continue;
            };
            let id = PartitionId { topic: id, index };
            if let Some(slots) = load_folder(shared, id, &mut found)? {
                let partition = Arc::new(Partition::new(shared, id, slots));
                for range in partition.quarantined() {
                    shared.health.known(range);
                }
                shared.partitions.write().insert(id, partition);
            }
        }
    }
    Ok(found)
}

/// One partition's folder, brought in line with its manifest. `None`: nothing of a partition is there.
fn load_folder(
    shared: &Arc<Shared>,
    id: PartitionId,
    found: &mut Found,
) -> io::Result<Option<Slots>> {
    let files = &shared.files;
    let dir = files.partition_dir(id);
    files.unlink(&dir.join(MANIFEST_NEW))?;
    let names: Vec<String> = files
        .disk()
        .list(&dir)?
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    let loaded = Slots::load(files, id)?;
    let Some(loaded) = loaded else {
        if names.is_empty() {
            // A crash between making the folder and its manifest, or between its last file and the folder itself.
            files.remove_empty(id)?;
            return Ok(None);
        }
        found
            .problems
            .push(manifest_problem(shared, id, 0, Reason::MissingFile));
        return made_anew(shared, id, &names, found).map(Some);
    };
    let failed = has_failed(shared);
    let bad = loaded.damaged.iter();
    let bad = bad.map(|(position, reason)| manifest_problem(shared, id, *position, *reason));
    let Some(mut slots) = loaded.slots else {
        found.problems.extend(bad);
        return made_anew(shared, id, &names, found).map(Some);
    };
    found
        .problems
        .extend(bad.filter_map(|slot| bad_slot(shared, slot, slots.capacity_bytes())));
    if failed {
        // What was read may be in the cache alone, and no later sync would write it.
        slots.write_again(files)?;
        cut_again(files, &slots.manifest)?;
    }
    if slots.manifest.deleted {
        files.remove_partition(id, slots)?;
        return Ok(None);
    }
    let damaged = !loaded.damaged.is_empty();
    let mut is_witness = false;
    if damaged || crate::salvage::has_more(files, &slots.manifest)? {
        // The slot that follows holds no tails: they must be in their files before.
        put_tails(shared, &slots.manifest)?;
        crate::salvage::roll_forward(shared, id, &mut slots, damaged)?;
        is_witness = found.reaches(files, &slots)?;
    }
    tidy_folder(shared, &mut slots, is_witness, &mut found.problems)?;
    Ok(Some(slots))
}

/// A partition of which no slot is left, from its files.
fn made_anew(
    shared: &Arc<Shared>,
    id: PartitionId,
    names: &[String],
    found: &mut Found,
) -> io::Result<Slots> {
    let slots = crate::salvage::from_files(shared, id, names, &mut found.problems)?;
    found.reaches(&shared.files, &slots)?;
    Ok(slots)
}

fn manifest_problem(shared: &Shared, id: PartitionId, position: u64, reason: Reason) -> Problem {
    UnhealthyRange {
        partition: Some(id),
        from: 0,
        to: -1,
        file: shared
            .files
            .relative(&shared.files.partition_dir(id).join(MANIFEST)),
        position,
        reason,
        source: Source::Snapshot,
        stage: Stage::Replay,
        since_ms: now_ms(),
    }
}

/// A slot that is not whole while the other one counts. After a clean stop both were whole: damage. After anything else it
/// may be the write that was cut short: nobody was told that it was done, and it is counted as a torn tail is.
pub(crate) fn bad_slot(shared: &Shared, slot: Problem, bytes: u64) -> Option<Problem> {
    if shared.node.last_exit() == CLEAN_EXIT {
        return Some(slot);
    }
    tracing::info!(
        file = slot.file,
        position = slot.position,
        reason = slot.reason.label(),
        "a slot is not whole: taken for the write that a crash cut short"
    );
    shared.metrics.torn(bytes);
    None
}

/// Removes what a crash left, cuts what lies beyond the lengths that count, sets aside what nobody lists. What lies beyond
/// stays where it `is_witness`: nothing else says how far the partition had got, until a slot does.
fn tidy_folder(
    shared: &Arc<Shared>,
    slots: &mut Slots,
    is_witness: bool,
    problems: &mut Vec<Problem>,
) -> io::Result<()> {
    let files = &shared.files;
    let id = slots.manifest.partition;
    let dir = files.partition_dir(id);
    let manifest = &slots.manifest;
    let listed = |key: &FileKey| {
        manifest
            .segments
            .iter()
            .any(|s| s.key(id, key.kind) == *key)
    };
    let mut unlinked = false;
    // Listed now: what was tried above may have made files.
    for DirEntry { name, .. } in files.disk().list(&dir)? {
        let path = dir.join(&name);
        match FileKey::parse(id, &name) {
            Some(key) if listed(&key) => {}
            Some(key) if is_witness && manifest.created.contains(&key.base_offset) => {}
            Some(key)
                if manifest.created.contains(&key.base_offset)
                    || manifest.dropped.contains(&key.base_offset) =>
            {
                files.unlink(&path)?;
                unlinked = true;
            }
            Some(_) => problems.push(set_aside(shared, &path, Some(id))?),
            None if [MANIFEST, MANIFEST_NEW, "producers.1", "producers.2"]
                .contains(&name.as_str()) => {}
            None => problems.push(set_aside(shared, &path, Some(id))?),
        }
    }
    if unlinked {
        // The next slot names them no more: a power cut behind it must not bring them back.
        files.disk().sync_dir(&dir)?;
    }
    for (at, segment) in manifest.segments.iter().enumerate() {
        let end = manifest
            .segments
            .get(at + 1)
            .map_or(manifest.next_offset, |s| s.base_offset);
        let is_last = at + 1 == manifest.segments.len();
        for kind in Kind::ALL {
            let key = segment.key(id, kind);
            let listed = if is_last {
                manifest.tails.in_file(segment, kind)
            } else {
                segment.bytes_of(kind)
            };
            let may_cut = !(is_last && is_witness && kind == Kind::Log);
            if let Some(problem) = fit_length(shared, &key, (listed, may_cut), end)? {
                problems.push(problem);
            }
        }
    }
    if !is_witness {
        slots.manifest.created.clear();
    }
    slots.manifest.dropped.clear();
    files.forget(id);
    Ok(())
}

/// Whether the last run ended with a failed write or sync.
fn has_failed(shared: &Shared) -> bool {
    !["", CLEAN_EXIT].contains(&shared.node.last_exit())
}

/// Sets the lengths of the last segment's files once more, synced. One that was cut may be short in the cache alone, and its
/// length would be long again after a power cut, with whole batches behind what counts.
fn cut_again(files: &Files, manifest: &Manifest) -> io::Result<()> {
    let Some(last) = manifest.segments.last() else {
        return Ok(());
    };
    for kind in Kind::ALL {
        match files.open(&last.key(manifest.partition, kind)) {
            Ok(file) => {
                file.set_len(file.len()?)?;
                file.sync_data()?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Puts the entries that only the manifest holds into their files.
fn put_tails(shared: &Shared, manifest: &Manifest) -> io::Result<()> {
    let Some(last) = manifest.segments.last() else {
        return Ok(());
    };
    for kind in [Kind::Sum, Kind::Idx] {
        let (tail, position) = (manifest.tails.of(kind), manifest.tails.in_file(last, kind));
        if !tail.is_empty() {
            let file = shared
                .files
                .open_or_make(&last.key(manifest.partition, kind))?;
            file.write_at(tail, position, Durability::Later)?;
        }
    }
    Ok(())
}

/// Cuts a file to the length that counts, if it `may_cut` it. One that is missing or too short is told: here when it costs
/// no offsets; a short `.log` is found by the read that needs it.
fn fit_length(
    shared: &Shared,
    key: &FileKey,
    (listed, may_cut): (u64, bool),
    end: i64,
) -> io::Result<Option<Problem>> {
    let files = &shared.files;
    let reason = match files.open(key) {
        Ok(file) => {
            let length = file.len()?;
            if length > listed && may_cut {
                file.set_len(listed)?;
                file.sync_data()?;
            }
            if length >= listed {
                return Ok(None);
            }
            Reason::Truncated
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if key.kind != Kind::Log && listed == 0 {
                return Ok(None);
            }
            if key.kind == Kind::Log {
                // The next flush may go on behind what is lost: an empty file takes it, a missing one would end the process.
                files.open_or_make(key)?;
                files.disk().sync_dir(&files.partition_dir(key.partition))?;
            }
            Reason::MissingFile
        }
        Err(e) => return Err(e),
    };
    let (source, to) = match (key.kind, reason) {
        (Kind::Log, Reason::MissingFile) => (Source::Segment, end - 1),
        // The read that needs the bytes finds out which offsets are lost.
        (Kind::Log, _) => return Ok(None),
        (Kind::Sum | Kind::Idx, _) => {
            shared
                .flusher
                .request_repair(key.partition, key.base_offset);
            (Source::Index, key.base_offset - 1)
        }
    };
    Ok(Some(UnhealthyRange {
        partition: Some(key.partition),
        from: key.base_offset,
        to,
        file: files.told(key),
        position: 0,
        reason,
        source,
        stage: Stage::Replay,
        since_ms: now_ms(),
    }))
}

/// Moves a file or folder that nobody lists to `quarantine/`.
pub(crate) fn set_aside(
    shared: &Shared,
    path: &Path,
    partition: Option<PartitionId>,
) -> io::Result<Problem> {
    move_to_quarantine(shared, path)?;
    Ok(UnhealthyRange {
        partition,
        from: 0,
        to: -1,
        file: shared.files.relative(path),
        position: 0,
        reason: Reason::UnlistedFile,
        source: Source::Segment,
        stage: Stage::Replay,
        since_ms: now_ms(),
    })
}

/// Returns where it went: `quarantine/` and its old path with dots for slashes, numbered if that name is taken.
pub(crate) fn move_to_quarantine(shared: &Shared, path: &Path) -> io::Result<PathBuf> {
    let files = &shared.files;
    let dir = files.root().join(QUARANTINE_DIR);
    files.disk().create_dir_all(&dir)?;
    let name = files.relative(path).replace('/', ".");
    let mut to = dir.join(&name);
    let mut number = 1;
    while files.disk().exists(&to)? {
        number += 1;
        to = dir.join(format!("{name}.{number}"));
    }
    files.disk().rename(path, &to)?;
    files.disk().sync_dir(&dir)?;
    if let Some(parent) = path.parent() {
        files.disk().sync_dir(parent)?;
    }
    files.disk().sync_dir(files.root())?;
    Ok(to)
}

/// Moves aside the folders of partitions that no metadata record names.
pub(crate) fn quarantine_unknown(
    shared: &Arc<Shared>,
    known: &HashSet<PartitionId>,
) -> Vec<PathBuf> {
    let unknown: Vec<Arc<Partition>> = {
        let partitions = shared.partitions.read();
        partitions
            .values()
            .filter(|p| !known.contains(&p.id()))
            .cloned()
            .collect()
    };
    let mut moved = Vec::new();
    for partition in unknown {
        let id = partition.id();
        // What only the WAL holds of it goes into the folder first: nothing is lost by moving it aside.
        if let Err(reason) = flusher::flush(shared, id) {
            shared.fail(&reason);
            return moved;
        }
        shared.partitions.write().remove(&id);
        let exists = partition.state.lock().slots.exist();
        let queued = partition.delete_durable();
        assert_eq!(queued, 0, "{id}: moved aside before anything is appended");
        if !exists {
            continue;
        }
        match move_to_quarantine(shared, &shared.files.partition_dir(id)) {
            Ok(to) => {
                shared.health.found(UnhealthyRange {
                    partition: None,
                    from: 0,
                    to: -1,
                    file: shared.files.relative(&to),
                    position: 0,
                    reason: Reason::UnlistedFile,
                    source: Source::Segment,
                    stage: Stage::Replay,
                    since_ms: now_ms(),
                });
                moved.push(to);
            }
            Err(error) => {
                shared.fail(&format!(
                    "cannot move the folder of {id} to quarantine: {error}"
                ));
                return moved;
            }
        }
    }
    moved
}
