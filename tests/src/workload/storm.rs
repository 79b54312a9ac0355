//! What happens to the broker: kills, pauses short and long, kills in a pause, and now and then an orderly stop.

use std::fmt::Write;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;

use super::Run;
use super::recorder::Recorder;
use crate::Broker;
use crate::rdk::CLIENT_WITHIN;
use crate::wait::{try_wait_for, wait_until};

/// Longer than the clients wait for an answer, and than a group waits for a member.
const LONG_PAUSE_MS: std::ops::Range<u64> = 3_200..4_500;

/// What the clients do between two blows, at least, on a machine however busy.
const OPS_BETWEEN_BLOWS: usize = 40;

/// Strikes so often; tells what it did.
#[track_caller]
pub(super) fn rage(broker: &mut Broker, run: Run, recorder: &Recorder) -> String {
    let mut random = StdRng::seed_from_u64(run.seed);
    let (started, mut told) = (Instant::now(), String::new());
    for blow in 0..run.blows {
        wait(random.random_range(150..1_000));
        let before = recorder.ops();
        wait_until("the clients go on", CLIENT_WITHIN, || {
            recorder.ops() >= before + OPS_BETWEEN_BLOWS
        });
        // No run without a kill.
        let choice = match blow {
            0 => 0,
            _ => random.random_range(0..100),
        };
        let what = match choice {
            0..45 => {
                broker.kill9();
                "killed"
            }
            45..75 => {
                pause(broker, &mut random, 50..1_200);
                "paused"
            }
            75..82 => {
                pause(broker, &mut random, LONG_PAUSE_MS);
                "paused for long"
            }
            82..92 => {
                broker.signal(Signal::STOP);
                wait(random.random_range(10..1_500));
                broker.kill9();
                "killed in a pause"
            }
            _ => {
                broker.stop();
                "stopped"
            }
        };
        let _ = write!(told, "{} ms: {what}; ", started.elapsed().as_millis());
        if !broker.is_running() {
            wait(random.random_range(0..400));
            broker.restart();
        }
    }
    told
}

fn pause(broker: &Broker, random: &mut StdRng, ms: std::ops::Range<u64>) {
    broker.signal(Signal::STOP);
    wait(random.random_range(ms));
    broker.signal(Signal::CONT);
}

/// The seed's time, in which nothing is waited for but the time.
fn wait(ms: u64) {
    try_wait_for(Duration::from_millis(ms), || None::<()>);
}
