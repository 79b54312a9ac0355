//! Writers that note what was acknowledged, and the recount afterwards: who was killed must still have all of it.
//!
//! Owns the ledger of acknowledgements. Writes over the wire, since a killed broker must not be retried behind the test's
//! back; recounts with librdkafka, which shares no line with the broker.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::rdk;
use crate::records::{fresh_batch, payload};
use crate::wire::Wire;

/// A number in the environment, for seeds and rounds.
///
/// # Panics
/// When it is there and no number.
pub fn number(variable: &str) -> Option<u64> {
    let word = std::env::var(variable).ok()?;
    let parsed = word.parse();
    Some(parsed.unwrap_or_else(|error| panic!("{variable}={word}: {error}")))
}

/// What was acknowledged, by topic: partition, offset, and what was sent.
type AckedByTopic = BTreeMap<String, Vec<(i32, i64, Made)>>;

/// What a value is made from.
#[derive(Debug, Clone, Copy)]
struct Made {
    bytes: usize,
    stream: u32,
    sequence: u64,
}

/// Everything acknowledged of one topic that must still be there.
#[derive(Debug, Default)]
pub struct Ledger {
    acked: BTreeMap<(i32, i64), Made>,
    starts: BTreeMap<i32, i64>,
    total: u64,
}

impl Ledger {
    /// Records acknowledged so far, also those that retention has taken since.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// A log start that the broker has told; it never goes back.
    #[track_caller]
    pub fn log_start(&mut self, partition: i32, offset: i64) {
        let known = self.starts.entry(partition).or_default();
        assert!(
            offset >= *known,
            "partition {partition}: the log start went back from {known} to {offset}"
        );
        *known = offset;
        self.acked
            .retain(|(p, o), _| *p != partition || *o >= offset);
    }

    /// Reads the topic with librdkafka: every acknowledged record is where it was acknowledged, byte for byte, nothing comes
    /// twice, and offsets have no hole from the log start on. Gives the number of records that are there.
    #[track_caller]
    pub fn recount(&mut self, bootstrap: &str, topic: &str, partitions: i32) -> usize {
        let mut wire = Wire::connect(bootstrap);
        let seen = rdk::read_all(bootstrap, topic);
        for partition in 0..partitions {
            // Retention may go on while this reads: what lies below the start that is told afterwards may be gone.
            let start = wire.list_offset(topic, partition, -2).expect("a start");
            self.log_start(partition, start);
            let here = seen.iter().filter(|record| record.partition == partition);
            let offsets: Vec<i64> = here
                .map(|record| record.offset)
                .filter(|offset| *offset >= start)
                .collect();
            let whole: Vec<i64> = (start..).take(offsets.len()).collect();
            assert!(
                offsets == whole,
                "{topic} {partition}: holes or disorder in its offsets from {start} on"
            );
        }
        let found: BTreeMap<(i32, i64), &Vec<u8>> = seen
            .iter()
            .map(|record| ((record.partition, record.offset), &record.value))
            .collect();
        for (place, made) in &self.acked {
            let value = found.get(place).unwrap_or_else(|| {
                panic!(
                    "{topic}: acknowledged and not there: {place:?}, {made:?} ({} read)",
                    seen.len()
                )
            });
            let sent = payload(made.bytes, made.stream, made.sequence);
            assert!(
                **value == sent,
                "{topic}: acknowledged with other bytes: {place:?}"
            );
        }
        seen.len()
    }
}

/// What a writer writes.
#[derive(Debug, Clone)]
pub struct Stream {
    /// To this topic.
    pub topic: String,
    /// Its partitions, in turn.
    pub partitions: i32,
    /// Its number, which makes its values different from those of others.
    pub stream: u32,
    /// Its largest value.
    pub value_bytes_max: usize,
    /// Requests after which it stops by itself.
    pub requests_max: u64,
}

/// Writers at work.
pub struct Load {
    threads: Vec<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    acks: Arc<AtomicU64>,
    acked: Arc<Mutex<AckedByTopic>>,
}

impl Load {
    /// Starts a writer for each stream. Each ends with its connection.
    pub fn start(streams: Vec<(Wire, Stream)>) -> Self {
        let mut load = Load {
            threads: Vec::new(),
            over: Arc::default(),
            acks: Arc::default(),
            acked: Arc::default(),
        };
        for (wire, stream) in streams {
            let (over, acks) = (Arc::clone(&load.over), Arc::clone(&load.acks));
            let acked = Arc::clone(&load.acked);
            load.threads.push(std::thread::spawn(move || {
                write(wire, &stream, (&over, &acks), &acked)
            }));
        }
        load
    }

    /// Acknowledged requests so far.
    pub fn acks(&self) -> u64 {
        self.acks.load(Ordering::Relaxed)
    }

    /// Waits for the writers and adds what was acknowledged to the ledgers, by topic.
    pub fn finish(self, ledgers: &mut BTreeMap<String, Ledger>) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a writer ends with its connection");
        }
        let acked = std::mem::take(&mut *self.acked.lock().expect("no holder panics"));
        for (topic, records) in acked {
            let ledger = ledgers.entry(topic).or_default();
            for (partition, offset, made) in records {
                let before = ledger.acked.insert((partition, offset), made);
                assert!(
                    before.is_none(),
                    "partition {partition}: offset {offset} was given twice"
                );
                ledger.total += 1;
            }
        }
    }
}

/// Produces one batch after the other, of one to four records of changing sizes, until the connection ends.
fn write(
    mut wire: Wire,
    to: &Stream,
    (over, acks): (&AtomicBool, &AtomicU64),
    acked: &Mutex<AckedByTopic>,
) {
    let mut sequence = 0;
    for request in 0..to.requests_max {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let partition = (u64::from(to.stream) + request) % u64::from(to.partitions.unsigned_abs());
        let partition = i32::try_from(partition).expect("a partition's index");
        let count = 1 + request % 4;
        let made: Vec<Made> = (sequence..sequence + count)
            .map(|sequence| Made {
                bytes: 100 + (sequence as usize * 3_737) % to.value_bytes_max,
                stream: to.stream,
                sequence,
            })
            .collect();
        let values: Vec<Vec<u8>> = made
            .iter()
            .map(|made| payload(made.bytes, made.stream, made.sequence))
            .collect();
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let batch = fresh_batch(&values);
        let request = Wire::produce_request(&to.topic, partition, batch, 1);
        let Ok(answer) = wire.try_call(8, &request) else {
            return;
        };
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, 0, "a healthy disk");
        let mut all = acked.lock().expect("no holder panics");
        let kept = all.entry(to.topic.clone()).or_default();
        for (n, made) in (0..).zip(made) {
            kept.push((partition, answer.base_offset + n, made));
        }
        drop(all);
        acks.fetch_add(1, Ordering::Relaxed);
        sequence += count;
    }
}
