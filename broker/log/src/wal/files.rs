//! The files of the WAL: their manifest, and their life from zeros to recycling.
//!
//! Owns which files exist, which one is written next, and the checkpoint. A file is prepared completely (zeroed, head
//! written, named, listed) before the writer may use it, and is used again only when neither manifest slot needs it.
//! Never reads or writes a group.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::disk::{BLOCK_BYTES, Disk, DiskFile, Durability, OpenMode};

use super::format::{Checkpoint, FIRST_GROUP_POSITION, FileHead, ManifestSlot};
use super::found::Found;
use super::sizing::{FILES_MIN, WAL_BYTES_MIN};
use super::{WalOpenError, WalSizing};

/// Files that are kept ready behind the one being written: the control reserve, and the next one.
const STANDBY_FILES: usize = 2;
/// The very first file is used when this much of it is zeroed, so that a first start is ready at once; the rest follows
/// in the background, and the writer stays below what is done.
const FIRST_FILL_BYTES: u64 = 8 << 20;
/// Zeros between two syncs while a file is prepared, so that commits beside it do not wait long.
const ZERO_STEP_BYTES: u64 = 4 << 20;

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WalFile {
    pub(crate) head: FileHead,
    /// Its first group; 0 while it is standing by.
    pub(crate) first_group: u64,
}

#[derive(Debug)]
struct State {
    /// Ascending by generation: used ones, then those standing by.
    files: VecDeque<WalFile>,
    /// Generations only grow, also over crashes in the middle of a recycling.
    generation_max: u64,
    boot: u64,
    checkpoint: Checkpoint,
    /// The oldest file that each manifest slot needs.
    slots: [u64; 2],
    /// The volume had no room for another file; tried again after the next checkpoint.
    no_room: bool,
}

impl State {
    /// Files that stand by.
    fn standby(&self) -> usize {
        let files = self.files.iter();
        files.filter(|file| file.first_group == 0).count()
    }

    /// The checkpoint names the newest file that holds its group, or will hold it as its first: a file that the checkpoint
    /// was set in may turn out to end below it.
    fn name_holder(&mut self) {
        let group = self.checkpoint.group;
        let holder = self
            .files
            .iter()
            .rfind(|file| file.first_group != 0 && file.first_group <= group);
        if let Some(holder) = holder.filter(|h| h.head.generation > self.checkpoint.generation) {
            self.checkpoint.generation = holder.head.generation;
            self.checkpoint.first_group = holder.first_group;
        }
    }
}

struct Manifest {
    file: Arc<dyn DiskFile>,
    number: u64,
}

/// The files of an open WAL.
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// As it was at the start; the number of files is [`Files::files_max`].
    pub(crate) sizing: WalSizing,
    /// Most files at any time: follows the size of the volume.
    files_max: AtomicUsize,
    /// Held over every change of names and of the manifest. Taken before `state`, which is never held over I/O.
    manifest: Mutex<Manifest>,
    state: Mutex<State>,
    /// Bytes of the very first file that are zeroed; `u64::MAX` when it has its full length.
    filled: AtomicU64,
    helper: Mutex<Helper>,
    helper_wake: Condvar,
}

#[derive(Debug, Default)]
struct Helper {
    wake: bool,
    stop: bool,
}

/// What one step of preparation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prepared {
    /// There is more room for groups.
    Room,
    /// Nothing is needed, or nothing can be had before the next checkpoint.
    Nothing,
}

pub(crate) fn file_name(generation: u64) -> String {
    format!("{generation:020}.wal")
}

/// Where a slot of the manifest stands.
pub(crate) fn slot_position(number: u64) -> u64 {
    (number % 2) * BLOCK_BYTES as u64
}

pub(crate) fn open_error(
    doing: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> WalOpenError + use<> {
    let path = path.to_owned();
    move |source| WalOpenError::Io {
        doing,
        path,
        source,
    }
}

impl Files {
    /// Creates a WAL with one file.
    pub(crate) fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        sizing: WalSizing,
    ) -> Result<Files, WalOpenError> {
        disk.create_dir_all(dir)
            .map_err(open_error("create", dir))?;
        let needed_bytes = (sizing.file_bytes * FILES_MIN as u64).min(WAL_BYTES_MIN);
        let free_bytes = disk
            .space(dir)
            .map_err(open_error("ask for the free space of", dir))?
            .free_bytes;
        if free_bytes < needed_bytes {
            return Err(WalOpenError::NoRoom {
                path: dir.to_owned(),
                free_bytes,
                needed_bytes,
            });
        }
        let files = Files::with(
            disk,
            dir,
            sizing,
            State {
                files: VecDeque::new(),
                generation_max: 0,
                boot: 0,
                checkpoint: Checkpoint {
                    group: 1,
                    generation: 1,
                    first_group: 1,
                },
                slots: [0; 2],
                no_room: false,
            },
            0,
        )?;
        let failed = open_error("write", &dir.join("manifest"));
        files
            .write_manifest(&mut files.manifest.lock(), None)
            .map_err(failed)?;
        files.disk.sync_dir(dir).map_err(open_error("sync", dir))?;
        if let Some(parent) = dir.parent() {
            files
                .disk
                .sync_dir(parent)
                .map_err(open_error("sync", parent))?;
        }
        files.remove_leftovers()?;
        let first = dir.join(file_name(1));
        files
            .create_file(&mut files.manifest.lock(), 1, FIRST_FILL_BYTES)
            .map_err(open_error("create", &first))?;
        Ok(files)
    }

    /// Opens what `find` found. Files below the checkpoint count as used, all others as standing by until recovery
    /// says what is in them ([`Files::used`]).
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        sizing: WalSizing,
        found: &Found,
    ) -> Result<Files, WalOpenError> {
        let checkpoint = found.slot.checkpoint;
        let state = State {
            files: found
                .files
                .iter()
                .map(|file| WalFile {
                    head: file.head,
                    first_group: u64::from(file.head.generation < checkpoint.generation),
                })
                .collect(),
            generation_max: found
                .files
                .iter()
                .map(|file| file.head.generation)
                .chain(found.slot.files.iter().map(|(generation, _)| *generation))
                .max()
                .unwrap_or(0),
            boot: found.slot.boot,
            checkpoint,
            slots: found.slots,
            no_room: false,
        };
        let files = Files::with(disk, dir, sizing, state, found.slot.number)?;
        files.remove_leftovers()?;
        files
            .filled
            .store(found.filled.unwrap_or(u64::MAX), Ordering::Release);
        Ok(files)
    }

    fn with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        sizing: WalSizing,
        state: State,
        number: u64,
    ) -> Result<Files, WalOpenError> {
        let path = dir.join("manifest");
        let file = disk
            .open(&path, OpenMode::Create)
            .map_err(open_error("open for writing", &path))?;
        Ok(Files {
            disk,
            dir: dir.to_owned(),
            sizing,
            files_max: AtomicUsize::new(sizing.files_max),
            manifest: Mutex::new(Manifest { file, number }),
            state: Mutex::new(state),
            filled: AtomicU64::new(u64::MAX),
            helper: Mutex::default(),
            helper_wake: Condvar::new(),
        })
    }

    /// Files that a crash left in the middle of being prepared: nothing in them counts.
    fn remove_leftovers(&self) -> Result<(), WalOpenError> {
        let dir = &self.dir;
        for entry in self.disk.list(dir).map_err(open_error("list", dir))? {
            if entry.name.ends_with(".tmp") {
                let path = dir.join(&entry.name);
                self.disk
                    .unlink(&path)
                    .map_err(open_error("remove", &path))?;
            }
        }
        Ok(())
    }

    pub(crate) fn path(&self, generation: u64) -> PathBuf {
        self.dir.join(file_name(generation))
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Writes the other slot. `new` is listed although the writer may not use it yet.
    fn write_manifest(&self, manifest: &mut Manifest, new: Option<FileHead>) -> io::Result<()> {
        let number = manifest.number + 1;
        let slot = {
            let state = self.state.lock();
            ManifestSlot {
                number,
                boot: state.boot,
                checkpoint: state.checkpoint,
                file_bytes: self.sizing.file_bytes,
                files: state
                    .files
                    .iter()
                    .map(|file| file.head)
                    .chain(new)
                    .map(|head| (head.generation, head.salt))
                    .collect(),
            }
        };
        manifest
            .file
            .write_at(&slot.encode(), slot_position(number), Durability::Synced)?;
        manifest.number = number;
        self.state.lock().slots[(number % 2) as usize] = slot.checkpoint.generation;
        Ok(())
    }

    /// Recovery has read groups from this file.
    pub(crate) fn used(&self, generation: u64, first_group: u64) {
        let mut state = self.state.lock();
        for file in &mut state.files {
            if file.head.generation == generation {
                file.first_group = first_group;
            }
        }
        state.name_holder();
    }

    /// Counts one start more, durably, and returns its number, which is at least `boot_min`.
    pub(crate) fn count_boot(&self, boot_min: u64) -> io::Result<u64> {
        let mut manifest = self.manifest.lock();
        let boot = {
            let mut state = self.state.lock();
            state.boot = (state.boot + 1).max(boot_min);
            state.boot
        };
        self.write_manifest(&mut manifest, None)?;
        Ok(boot)
    }

    /// Moves the checkpoint up to `group`.
    pub(crate) fn set_checkpoint(&self, group: u64) -> io::Result<()> {
        let mut manifest = self.manifest.lock();
        {
            let mut state = self.state.lock();
            if group <= state.checkpoint.group {
                return Ok(());
            }
            let holder = state
                .files
                .iter()
                .rfind(|file| file.first_group != 0 && file.first_group <= group)
                .copied();
            let holder = holder.expect("a file holds every group above the checkpoint");
            state.checkpoint = Checkpoint {
                group,
                generation: holder.head.generation,
                first_group: holder.first_group,
            };
            state.no_room = false;
        }
        self.write_manifest(&mut manifest, None)?;
        drop(manifest);
        self.wake_helper();
        Ok(())
    }

    /// The most files that there may be.
    pub(crate) fn files_max(&self) -> usize {
        self.files_max.load(Ordering::Acquire)
    }

    /// Another bound on the number of files: the volume has another size now. Files that exist stay.
    pub(crate) fn set_files_max(&self, files_max: usize) {
        let before = self.files_max.swap(files_max, Ordering::AcqRel);
        if before < files_max {
            self.state.lock().no_room = false;
            self.wake_helper();
        }
    }

    /// There may be something to prepare.
    pub(crate) fn wake_helper(&self) {
        self.helper.lock().wake = true;
        self.helper_wake.notify_one();
    }

    pub(crate) fn stop_helper(&self) {
        self.helper.lock().stop = true;
        self.helper_wake.notify_one();
    }

    /// Waits until there may be something to prepare; false at the end.
    pub(crate) fn helper_waits(&self) -> bool {
        let mut helper = self.helper.lock();
        while !helper.wake && !helper.stop {
            self.helper_wake.wait(&mut helper);
        }
        helper.wake = false;
        !helper.stop
    }

    /// The next file for the writer, whose first group will be `first_group`.
    pub(crate) fn take_standby(&self, first_group: u64) -> Option<FileHead> {
        let mut state = self.state.lock();
        let file = state.files.iter_mut().find(|file| file.first_group == 0)?;
        file.first_group = first_group;
        let head = file.head;
        state.name_holder();
        Some(head)
    }

    /// Room for groups in the files that stand by, in bytes, and what of all room only control writes may use.
    pub(crate) fn standby_and_reserve(&self) -> (u64, u64) {
        let state = self.state.lock();
        let standby = state.standby() as u64;
        let usable = self.sizing.file_bytes - FIRST_GROUP_POSITION;
        // While the first files are still being zeroed, the reserve is what they will bring.
        let growing = state.files.len() < FILES_MIN && !state.no_room;
        let reserve = if growing { usable / 16 } else { usable };
        (standby * usable, reserve)
    }

    /// Prepares one file more, if one is needed and can be had. An error other than a lack of room is final.
    pub(crate) fn prepare(&self) -> io::Result<Prepared> {
        let mut manifest = self.manifest.lock();
        if self.filled.load(Ordering::Acquire) < self.sizing.file_bytes {
            return match self.fill() {
                Ok(()) => Ok(Prepared::Room),
                Err(error) => self.without_room(error),
            };
        }
        loop {
            let (recyclable, held_by_slot, may_grow, generation) = self.plan();
            if let Some(old) = recyclable {
                if self.recycle_file(&mut manifest, old, generation)? {
                    return Ok(Prepared::Room);
                }
                continue;
            }
            if held_by_slot {
                // Only the other slot's checkpoint holds it: bring that one forward.
                self.write_manifest(&mut manifest, None)?;
                continue;
            }
            if !may_grow {
                return Ok(Prepared::Nothing);
            }
            return match self.create_file(&mut manifest, generation, u64::MAX) {
                Ok(()) => Ok(Prepared::Room),
                Err(error) => self.without_room(error),
            };
        }
    }

    /// A lack of room is no failure: the WAL goes on with what it has.
    fn without_room(&self, error: io::Error) -> io::Result<Prepared> {
        if !matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            return Err(error);
        }
        self.state.lock().no_room = true;
        self.remove_leftovers()
            .map_err(|error| io::Error::other(error.to_string()))?;
        tracing::warn!(%error, dir = %self.dir.display(), "no room for another WAL file");
        Ok(Prepared::Nothing)
    }

    /// The next part of the very first file.
    fn fill(&self) -> io::Result<()> {
        let at = self.filled.load(Ordering::Acquire);
        let step = ZERO_STEP_BYTES.min(self.sizing.file_bytes - at);
        let file = self.disk.open(&self.path(1), OpenMode::Write)?;
        file.zero_fill(at, step)?;
        file.sync_data()?;
        self.filled.store(at + step, Ordering::Release);
        Ok(())
    }

    /// Where groups in a file must end.
    pub(crate) fn end_of(&self, head: &FileHead) -> u64 {
        match head.generation {
            1 => self.filled.load(Ordering::Acquire).min(head.file_bytes),
            _ => head.file_bytes,
        }
    }

    /// A file to recycle; whether only a manifest slot holds one; whether a new one may be made; the next generation.
    fn plan(&self) -> (Option<FileHead>, bool, bool, u64) {
        let state = self.state.lock();
        let generation = state.generation_max + 1;
        let standby = state.standby();
        let enough = state.files.len() >= FILES_MIN && standby >= STANDBY_FILES;
        if enough {
            return (None, false, false, generation);
        }
        let oldest = state.files.front().filter(|file| file.first_group != 0);
        let needed = state.slots[0].min(state.slots[1]);
        match oldest.map(|file| file.head) {
            Some(head) if head.generation < needed => (Some(head), false, false, generation),
            Some(head) if head.generation < state.checkpoint.generation => {
                (None, true, false, generation)
            }
            _ => {
                let may_grow = state.files.len() < self.files_max() && !state.no_room;
                (None, false, may_grow, generation)
            }
        }
    }

    fn new_head(&self, generation: u64) -> io::Result<FileHead> {
        let mut salt = [0; 8];
        self.disk.random(&mut salt)?;
        Ok(FileHead {
            generation,
            salt: u64::from_le_bytes(salt),
            file_bytes: self.sizing.file_bytes,
        })
    }

    fn create_file(
        &self,
        manifest: &mut Manifest,
        generation: u64,
        zeroed_bytes: u64,
    ) -> io::Result<()> {
        let temporary = self.dir.join("new.tmp");
        let file = self.disk.open(&temporary, OpenMode::CreateNew)?;
        let mut at = 0;
        let end = zeroed_bytes.min(self.sizing.file_bytes);
        while at < end {
            let step = ZERO_STEP_BYTES.min(end - at);
            file.zero_fill(at, step)?;
            file.sync_data()?;
            at += step;
        }
        self.adopt(manifest, &temporary, file.as_ref(), generation)
    }

    /// False: somebody has shortened the file, and it is gone: a head says that what is behind it is whole.
    fn recycle_file(
        &self,
        manifest: &mut Manifest,
        old: FileHead,
        generation: u64,
    ) -> io::Result<bool> {
        let temporary = self.dir.join("recycled.tmp");
        // Out of the list first: from here on the old generation does not exist.
        self.state
            .lock()
            .files
            .retain(|file| file.head.generation != old.generation);
        self.disk.rename(&self.path(old.generation), &temporary)?;
        // The old name must be gone before the new head is written, or a power cut could leave them together.
        self.disk.sync_dir(&self.dir)?;
        let file = self.disk.open(&temporary, OpenMode::Write)?;
        if file.len()? < self.sizing.file_bytes {
            self.disk.unlink(&temporary)?;
            self.state.lock().no_room = false;
            return Ok(false);
        }
        self.adopt(manifest, &temporary, file.as_ref(), generation)?;
        Ok(true)
    }

    /// Head, name, list: in this order, each durable before the next.
    fn adopt(
        &self,
        manifest: &mut Manifest,
        temporary: &Path,
        file: &dyn DiskFile,
        generation: u64,
    ) -> io::Result<()> {
        let head = self.new_head(generation)?;
        file.write_at(&head.encode(), 0, Durability::Synced)?;
        self.disk.rename(temporary, &self.path(head.generation))?;
        self.disk.sync_dir(&self.dir)?;
        self.write_manifest(manifest, Some(head))?;
        let mut state = self.state.lock();
        state.generation_max = head.generation;
        state.files.push_back(WalFile {
            head,
            first_group: 0,
        });
        Ok(())
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        self.state.lock().checkpoint
    }

    /// Files, and the oldest used one with the first group behind it (if the writer has left it).
    /// When files run short and no new one may be made: the group to which the checkpoint must move to free one.
    pub(crate) fn wants_checkpoint(&self) -> Option<u64> {
        let state = self.state.lock();
        let standby = state.standby();
        let may_grow = state.files.len() < self.files_max() && !state.no_room;
        if standby >= STANDBY_FILES || may_grow {
            return None;
        }
        let next = state.files.get(1).map_or(0, |file| file.first_group);
        (next > state.checkpoint.group).then_some(next)
    }

    pub(crate) fn oldest(&self) -> (usize, Option<(u64, u64)>) {
        let state = self.state.lock();
        let oldest = state
            .files
            .iter()
            .zip(state.files.iter().skip(1))
            .find(|(_, next)| next.first_group > state.checkpoint.group)
            .map(|(file, next)| (file.head.generation, next.first_group));
        (state.files.len(), oldest)
    }
}
