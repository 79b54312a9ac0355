//! Sets checksums right after a change, so that an input gets behind them.
//!
//! Owns the places of checksums a second time, as an attacker would know them; a test of the parent fails when one is
//! wrong. Never decodes.

use keelson_protocol::batch::{BatchHeader, rewrite_timestamps};

use crate::disk::BLOCK_BYTES;
use crate::partition::format::{IDX_ENTRY_BYTES, SUM_ENTRY_BYTES};
use crate::wal::format::{FRAME_HEADER_BYTES, GROUP_HEADER_BYTES};

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(at..)?.first_chunk::<4>().copied()?,
    ))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(
        bytes.get(at..)?.first_chunk::<8>().copied()?,
    ))
}

pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn seeded_crc(seed: &[u8], bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c_append(crc32c::crc32c(seed), bytes).to_le_bytes()
}

/// Sets the checksums right of the structure of a file that `at` lies in. `file` is relative to the data directory.
pub fn reseal(file: &str, bytes: &mut [u8], at: usize) {
    let name = file.rsplit('/').next().unwrap_or(file);
    let stem = name.split('.').next().unwrap_or(name);
    let base: i64 = stem.parse().unwrap_or(0);
    match name.rsplit('.').next().unwrap_or(name) {
        "manifest" if file.starts_with("wal/") => {
            reseal_wal_manifest(bytes, at / BLOCK_BYTES * BLOCK_BYTES);
        }
        "manifest" => {
            let capacity = bytes.len() / 2;
            let slot = if at < capacity { 0 } else { capacity };
            reseal_counted(&mut bytes[slot..]);
        }
        "wal" => reseal_wal(bytes, at / BLOCK_BYTES * BLOCK_BYTES),
        "meta" => reseal_node(&mut bytes[at / BLOCK_BYTES * BLOCK_BYTES..]),
        "log" => reseal_batches(bytes),
        "sum" => reseal_entry_at(bytes, at, SUM_ENTRY_BYTES, base),
        "idx" => reseal_entry_at(bytes, at, IDX_ENTRY_BYTES, base),
        _ => reseal_counted(bytes),
    }
}

pub(super) fn reseal_wal_manifest(bytes: &mut [u8], at: usize) {
    if let Some(slot) = bytes.get_mut(at..at + BLOCK_BYTES) {
        let crc = crc32c::crc32c(&slot[..BLOCK_BYTES - 4]).to_le_bytes();
        put(slot, BLOCK_BYTES - 4, &crc);
    }
}

fn reseal_wal(bytes: &mut [u8], at: usize) {
    let salt = u64_at(bytes, 24).unwrap_or(0);
    if at == 0 && bytes.len() >= 44 {
        let crc = crc32c::crc32c(&bytes[..40]).to_le_bytes();
        put(bytes, 40, &crc);
    } else if let Some(group) = bytes.get_mut(at..) {
        reseal_group(group, salt);
    }
}

/// `group` may go on behind the group.
pub(super) fn reseal_group(group: &mut [u8], salt: u64) {
    let (Some(count), Some(seq), Some(length)) =
        (u32_at(group, 12), u64_at(group, 32), u32_at(group, 56))
    else {
        return;
    };
    for index in 0..count as usize {
        let at = GROUP_HEADER_BYTES + index * FRAME_HEADER_BYTES;
        let Some(entry) = group.get_mut(at..at + FRAME_HEADER_BYTES) else {
            break;
        };
        if let (Some(from), Some(length)) = (u32_at(entry, 40), u32_at(entry, 44)) {
            let to = (from as usize).saturating_add(length as usize);
            let crc = group.get(from as usize..to).map(crc32c::crc32c);
            put(group, at + 48, &crc.unwrap_or(0).to_le_bytes());
        }
        let crc = seeded_crc(&seq.to_le_bytes(), &group[at..at + 60]);
        put(group, at + 60, &crc);
    }
    if let Some(payload) = group.get(GROUP_HEADER_BYTES..length as usize) {
        let crc = crc32c::crc32c(payload).to_le_bytes();
        put(group, 68, &crc);
    }
    if group.len() >= GROUP_HEADER_BYTES {
        let crc = seeded_crc(&salt.to_le_bytes(), &group[..76]);
        put(group, 76, &crc);
    }
}

/// Structures with their length at byte 12 and a CRC at their end.
pub(super) fn reseal_counted(bytes: &mut [u8]) {
    let length = u32_at(bytes, 12).unwrap_or(0) as usize;
    if length >= 4 && length <= bytes.len() {
        let crc = crc32c::crc32c(&bytes[..length - 4]).to_le_bytes();
        put(bytes, length - 4, &crc);
    }
}

pub(super) fn reseal_node(slot: &mut [u8]) {
    let length = u32_at(slot, 12).unwrap_or(0) as usize;
    if let Some(text) = slot.get(28..length.saturating_add(28)) {
        let crc = seeded_crc(&slot[..24], text);
        put(slot, 24, &crc);
    }
}

fn reseal_entry_at(bytes: &mut [u8], at: usize, entry_bytes: usize, base: i64) {
    let start = at / entry_bytes * entry_bytes;
    if let Some(entry) = bytes.get_mut(start..start + entry_bytes) {
        reseal_entry(entry, base);
    }
}

pub(super) fn reseal_entry(entry: &mut [u8], base: i64) {
    let body = entry.len() - 4;
    let crc = seeded_crc(&base.to_le_bytes(), &entry[..body]);
    put(entry, body, &crc);
}

/// The CRC of each batch that a header at the place of a batch claims.
pub(super) fn reseal_batches(mut bytes: &mut [u8]) {
    while let Ok(header) = BatchHeader::parse(bytes) {
        if header.size() > bytes.len() {
            break;
        }
        let (batch, rest) = bytes.split_at_mut(header.size());
        // Sets what is there already, and the CRC.
        if rewrite_timestamps(batch, header.timestamp_type(), header.max_timestamp).is_err() {
            break;
        }
        bytes = rest;
    }
}
