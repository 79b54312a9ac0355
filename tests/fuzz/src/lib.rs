//! Fuzz targets: everything that decodes bytes from a disk or a client, one function each, shared by both drivers.
//!
//! `make fuzz` drives them with libFuzzer, guided by coverage; `tests/corpus.rs` runs each over the kept corpus and random
//! changes of it for five seconds. A target panics when something that must hold does not. Memory is bounded for all of
//! them by the allocator, so that a length on the wire or on disk that is believed ends the run.

mod batches;
pub mod changes;
mod directory;
mod mangle;
mod memory;
mod requests;
mod stored;

use std::path::{Path, PathBuf};

use keelson_log::fuzz;

/// One thing that is fuzzed.
pub struct Target {
    /// Its name, and its folder below `corpus/`.
    pub name: &'static str,
    /// Runs one input; panics on a finding.
    pub run: fn(&[u8]),
    /// Good inputs to start from, made by the code of today.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "request_frame",
        run: requests::frame,
        seeds: requests::seeds,
    },
    Target {
        name: "stored_record",
        run: stored::record,
        seeds: stored::seeds,
    },
    Target {
        name: "batch_validator",
        run: batches::validator,
        seeds: batches::batch_seeds,
    },
    Target {
        name: "record_walker",
        run: batches::record_walker,
        seeds: batches::record_seeds,
    },
    Target {
        name: "decompressors",
        run: batches::decompressors,
        seeds: batches::compressed_seeds,
    },
    Target {
        name: "extent",
        run: fuzz::extent,
        seeds: || vec![fuzz::extent_specimen()],
    },
    Target {
        name: "wal_group",
        run: fuzz::wal_group,
        seeds: || vec![fuzz::wal_group_specimen()],
    },
    Target {
        name: "wal_scan",
        run: directory::wal_scan,
        seeds: mangle::seeds,
    },
    Target {
        name: "recovery",
        run: directory::recovery,
        seeds: mangle::seeds,
    },
    Target {
        name: "wal_manifest",
        run: fuzz::wal_manifest,
        seeds: || vec![fuzz::wal_manifest_specimen()],
    },
    Target {
        name: "partition_manifest",
        run: fuzz::partition_manifest,
        seeds: || vec![fuzz::partition_manifest_specimen()],
    },
    Target {
        name: "node_meta",
        run: fuzz::node_meta,
        seeds: || vec![fuzz::node_meta_specimen()],
    },
    Target {
        name: "producers",
        run: fuzz::producers,
        seeds: || vec![fuzz::producers_specimen()],
    },
    Target {
        name: "entries",
        run: fuzz::entries,
        seeds: || fuzz::entries_specimens().to_vec(),
    },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Where the kept inputs of a target are.
pub fn corpus(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name)
}
