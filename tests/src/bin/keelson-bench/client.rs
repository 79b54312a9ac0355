//! What the loads share of librdkafka: configuration, topic creation, metadata, and the record of what was seen.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use keelson_tests::records::check_payload;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use crate::Args;
use crate::report::Verification;

/// How long the cluster may take to answer questions about itself.
pub(crate) const CLUSTER_WITHIN: Duration = Duration::from_secs(30);

/// The configuration every client here starts from.
pub(crate) fn config(args: &Args) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &args.bootstrap_servers)
        .set("client.id", "keelson-bench")
        .set("broker.address.family", "v4");
    config
}

/// A producer's configuration: small waits, deep queues, so that librdkafka is no limit.
pub(crate) fn producer_config(args: &Args) -> ClientConfig {
    let mut config = config(args);
    config
        .set("acks", args.acks.to_string())
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "200000")
        .set("message.max.bytes", "10000000");
    config
}

/// A consumer's configuration for the run's group (a new one unless named).
pub(crate) fn consumer_config(args: &Args, run: u16) -> ClientConfig {
    let mut config = config(args);
    let group = args
        .consumer_group
        .clone()
        .unwrap_or_else(|| format!("keelson-bench-{run}"));
    config
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "100");
    config
}

/// Creates the topic; one that exists already is good.
pub(crate) fn create_topic(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let admin: AdminClient<DefaultClientContext> = config(args).create()?;
    let topic = NewTopic::new(&args.topic, args.partitions, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(CLUSTER_WITHIN));
    let results = runtime.block_on(admin.create_topics([&topic], &options))?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => bail!("{name}: {code}"),
        }
    }
    // Creation is answered before every broker may know it: wait until the leaders are known.
    leaders(args).map(|_| ())
}

/// The partitions of the topic by the address of their leader.
pub(crate) fn leaders(args: &Args) -> Result<Vec<(String, Vec<i32>)>> {
    let consumer: BaseConsumer = config(args).create()?;
    let end = std::time::Instant::now() + CLUSTER_WITHIN;
    loop {
        let metadata = consumer
            .fetch_metadata(Some(&args.topic), CLUSTER_WITHIN)
            .context("asking for metadata")?;
        let topic = metadata
            .topics()
            .first()
            .context("no answer about the topic")?;
        let known =
            !topic.partitions().is_empty() && topic.partitions().iter().all(|p| p.leader() >= 0);
        if known {
            let mut leaders: HashMap<i32, Vec<i32>> = HashMap::new();
            for partition in topic.partitions() {
                leaders
                    .entry(partition.leader())
                    .or_default()
                    .push(partition.id());
            }
            return leaders
                .into_iter()
                .map(|(id, partitions)| {
                    let broker = metadata.brokers().iter().find(|broker| broker.id() == id);
                    let broker =
                        broker.with_context(|| format!("broker {id} leads and is not listed"))?;
                    Ok((format!("{}:{}", broker.host(), broker.port()), partitions))
                })
                .collect();
        }
        if std::time::Instant::now() > end {
            bail!("topic {} has no leaders ({:?})", args.topic, topic.error());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A number that tells this run's records from those of any other.
pub(crate) fn new_run() -> u16 {
    rand::random()
}

/// The stream id of a connection of a run.
pub(crate) fn stream(run: u16, connection: u32) -> u32 {
    u32::from(run) << 16 | (connection & 0xffff)
}

/// Which records were seen, one bit each.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    streams: HashMap<u32, Vec<u64>>,
    found: Verification,
}

impl Ledger {
    /// Notes a record's value; gives its stream and sequence when it is whole and new.
    pub(crate) fn note(&mut self, value: &[u8]) -> Option<(u32, u64)> {
        let Some((stream, sequence)) = check_payload(value) else {
            self.found.corrupt += 1;
            return None;
        };
        let seen = self.streams.entry(stream).or_default();
        let (word, bit) = (usize::try_from(sequence / 64).ok()?, sequence % 64);
        if seen.len() <= word {
            seen.resize(word + 1, 0);
        }
        if seen[word] >> bit & 1 == 1 {
            self.found.duplicates += 1;
            return None;
        }
        seen[word] |= 1 << bit;
        self.found.verified += 1;
        Some((stream, sequence))
    }

    /// Whole, new records so far.
    pub(crate) fn verified(&self) -> u64 {
        self.found.verified
    }

    /// The verdict. When everything was read, what lies below the highest sequence of a stream and was not seen is missing.
    pub(crate) fn verdict(&self, everything_read: bool) -> Verification {
        let missing = self.streams.values().map(|seen| {
            let highest = seen
                .last()
                .map_or(0, |word| 64 - u64::from(word.leading_zeros()));
            let total = (seen.len() as u64 - 1) * 64 + highest;
            total
                - seen
                    .iter()
                    .map(|word| u64::from(word.count_ones()))
                    .sum::<u64>()
        });
        Verification {
            missing: everything_read.then(|| missing.sum()),
            ..self.found
        }
    }
}

#[cfg(test)]
mod tests {
    use keelson_tests::records::payload;

    use super::*;

    #[test]
    fn the_ledger_tells_gaps_from_repeats_from_damage() {
        let mut ledger = Ledger::default();
        for sequence in (0..200).filter(|n| *n != 70 && *n != 130) {
            assert!(ledger.note(&payload(32, 5, sequence)).is_some());
        }
        ledger.note(&payload(32, 5, 10));
        ledger.note(&[1; 32]);
        let verdict = ledger.verdict(true);
        assert_eq!(
            verdict,
            Verification {
                verified: 198,
                duplicates: 1,
                missing: Some(2),
                corrupt: 1
            }
        );
    }
}
