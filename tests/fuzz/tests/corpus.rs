//! Every target over its seeds, its kept corpus, and random changes of both, for five seconds each.
//!
//! `KEELSON_SEED` repeats a run, `KEELSON_FUZZ_SECONDS` makes it longer, `KEELSON_FUZZ_INPUT` (a file) runs that one input
//! alone. The input of a failure is written to a file, whose name is printed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keelson_fuzz::{TARGETS, Target, changes, corpus, target};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SECONDS: u64 = 5;
/// Changes of one input at once.
const CHANGES_MAX: usize = 6;
/// One input takes milliseconds; this is a debug build on a busy machine.
const INPUT_WITHIN: Duration = Duration::from_secs(20);

/// Panics of the log's own threads, which no test sees by itself.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            if thread.name().and_then(target).is_none() {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(info);
        }));
    });
}

fn number(variable: &str) -> Option<u64> {
    let word = std::env::var(variable).ok()?;
    let parsed = word.parse();
    Some(parsed.unwrap_or_else(|error| panic!("{variable}={word}: {error}")))
}

fn kept(target: &Target) -> Vec<Vec<u8>> {
    let folder = corpus(target);
    let listed = std::fs::read_dir(&folder);
    let listed = listed.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus in {}", folder.display());
    let read = |path: &PathBuf| std::fs::read(path).expect("a kept input can be read");
    paths.iter().map(read).collect()
}

/// Runs one input; when it fails, keeps it and says how to run it again.
fn run(target: &Target, input: &[u8]) {
    let before = PANICS.load(Ordering::SeqCst);
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let took = started.elapsed();
    let panicked = target.name == "recovery" && PANICS.load(Ordering::SeqCst) != before;
    if outcome.is_ok() && !panicked && took < INPUT_WITHIN {
        return;
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("finding-{}", target.name));
    std::fs::write(&path, input).expect("the target folder can be written");
    eprintln!(
        "{} ({} bytes, {took:?}): KEELSON_FUZZ_INPUT={} cargo test -p keelson-fuzz --test corpus {}",
        target.name,
        input.len(),
        path.display(),
        target.name
    );
    match outcome {
        Err(panic) => resume_unwind(panic),
        Ok(()) if panicked => panic!("a thread of the log panicked"),
        Ok(()) => panic!("one input took {took:?}"),
    }
}

#[track_caller]
fn check(name: &str) {
    count_panics();
    let target = target(name).expect("a target of that name");
    if let Ok(path) = std::env::var("KEELSON_FUZZ_INPUT") {
        let input = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        run(target, &input);
        return;
    }
    let mut inputs = kept(target);
    inputs.extend((target.seeds)());
    for input in &inputs {
        run(target, input);
    }
    let seed = number("KEELSON_SEED").unwrap_or_else(rand::random);
    let end =
        Instant::now() + Duration::from_secs(number("KEELSON_FUZZ_SECONDS").unwrap_or(SECONDS));
    println!("{name}: KEELSON_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut runs = 0_u64;
    while Instant::now() < end {
        let mut input = inputs[random.random_range(0..inputs.len())].clone();
        let other = &inputs[random.random_range(0..inputs.len())];
        for _ in 0..random.random_range(1..=CHANGES_MAX) {
            changes::change(&mut input, other, &mut |bound| {
                random.random_range(0..bound)
            });
        }
        run(target, &input);
        runs += 1;
    }
    println!("{name}: {} kept, {runs} changed inputs", inputs.len());
    assert!(runs > 0, "{name}: not one changed input in its time");
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_target_has_a_test() {
            let tested = [$(stringify!($name)),*];
            for target in TARGETS {
                assert!(tested.contains(&target.name), "{}", target.name);
            }
            assert_eq!(tested.len(), TARGETS.len());
        }
    };
}

targets! {
    request_frame stored_record batch_validator record_walker decompressors extent wal_group wal_scan recovery wal_manifest
    partition_manifest node_meta producers entries
}
