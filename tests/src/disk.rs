//! Bytes on the disk of a stopped broker: finding what a test wrote, and altering it.
//!
//! Knows no format: a test finds its own payload by its bytes. Never touches a running broker's files.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Bytes from its start.
    pub position: u64,
}

/// All files below `dir`, sorted.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder can be listed") {
            let path = entry.expect("a folder can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Every occurrence of `needle` in the files below `dir`, in order.
pub fn find_all(dir: &Path, needle: &[u8]) -> Vec<Place> {
    assert!(!needle.is_empty(), "nothing is everywhere");
    let mut found = Vec::new();
    for file in files(dir) {
        let bytes = std::fs::read(&file).expect("a file can be read");
        let mut from = 0;
        while let Some(at) = position(&bytes[from..], needle) {
            let start = from + at;
            found.push(Place {
                file: file.clone(),
                position: start as u64,
            });
            from = start + 1;
        }
    }
    found
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle[0];
    let mut from = 0;
    loop {
        let at = from + haystack[from..].iter().position(|byte| *byte == first)?;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Inverts one byte.
pub fn flip(place: &Place) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&place.file)
        .expect("the file can be opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, place.position)
        .expect("the place exists");
    file.write_all_at(&[!byte[0]], place.position)
        .expect("the place can be written");
    file.sync_all().expect("the file can be synced");
}

/// A checksum over names and contents of all files below `dir`: equal means that nothing was changed.
pub fn fingerprint(dir: &Path) -> u32 {
    files(dir).iter().fold(0, |sum, file| {
        let sum = crc32c::crc32c_append(sum, file.as_os_str().as_encoded_bytes());
        crc32c::crc32c_append(sum, &std::fs::read(file).expect("a file can be read"))
    })
}
