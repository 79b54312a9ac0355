//! The libFuzzer driver: `keelson-fuzz [libFuzzer options] CORPUS…`, with the target's name in `KEELSON_FUZZ_TARGET`.
//!
//! Owns the choice of the target, and puts its seeds into `KEELSON_FUZZ_SEEDS` before the corpus is read. libFuzzer owns
//! everything else, `main` included.
#![no_main]

use std::sync::OnceLock;

use keelson_fuzz::{TARGETS, Target, target};
use libfuzzer_sys::fuzz_target;

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fn chosen() -> &'static Target {
    CHOSEN.get_or_init(|| {
        let name = std::env::var("KEELSON_FUZZ_TARGET").unwrap_or_default();
        target(&name).unwrap_or_else(|| {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            panic!(
                "KEELSON_FUZZ_TARGET={name:?} is none of {}",
                names.join(" ")
            )
        })
    })
}

fn write_seeds() {
    let Ok(folder) = std::env::var("KEELSON_FUZZ_SEEDS") else {
        return;
    };
    for (number, seed) in (chosen().seeds)().iter().enumerate() {
        let path = std::path::Path::new(&folder).join(format!("seed-{number:02}"));
        std::fs::write(&path, seed).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

fuzz_target!(
    init: write_seeds(),
    |input: &[u8]| {
        (chosen().run)(input);
    }
);
