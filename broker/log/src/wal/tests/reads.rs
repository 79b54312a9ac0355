//! What a start reads: each byte of the groups once.

use super::super::*;
use super::rig::*;
use crate::disk::SimDisk;

const FILE_BYTES: u64 = 4 << 20;
/// What is read once more behind the last group, in windows of one MiB, and the heads of all files;
/// that group itself is written again.
const AGAIN_BYTES: u64 = 7 << 20;

fn options_here() -> WalOptions {
    WalOptions {
        sizing: Some(WalSizing {
            file_bytes: FILE_BYTES,
            files_max: 16,
        }),
        ..options()
    }
}

#[test]
fn a_start_reads_a_group_once_however_windows_cut_it() {
    for batch_bytes in [30_000, 150_000, 700_000, 1_100_000, 1_500_000] {
        let disk = SimDisk::new(1);
        let started = start_with(&disk, options_here()).unwrap();
        let mut done = 0;
        let mut written = Vec::new();
        while written.len() * batch_bytes < 24 << 20 {
            let frame = append(0, 10 * written.len() as i64, batch_bytes);
            written.push(frame.clone());
            assert!(commit(&started, &mut done, Class::Data, vec![frame]));
        }
        drop(started);
        let last = groups(&disk).into_values().next_back().unwrap();
        let before = disk.read_bytes();
        let again = start_with(&disk, options_here()).unwrap();
        let read = disk.read_bytes() - before;
        assert_eq!(frames(&again.recovered), written);
        // Behind the last group the rest of its file and the next one are looked through.
        let files = last.generation + 1;
        let most = files * FILE_BYTES + AGAIN_BYTES + last.length;
        assert!(
            read <= most,
            "batches of {batch_bytes}: {read} bytes of {files} files read, at most {most}"
        );
    }
}
