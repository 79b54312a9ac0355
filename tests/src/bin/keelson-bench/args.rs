//! The command line. Owns its words and their limits; knows no client.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::{Parser, ValueEnum};
use keelson_tests::records::PAYLOAD_BYTES_MIN;

/// Connections beyond this measure the client's machine, not the broker.
const CONCURRENCY_MAX: u32 = 10_000;

/// Load for a Kafka-compatible broker: throughput, latency percentiles, and every record's content verified.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Args {
    /// Where the cluster is: host:port, or several with commas.
    #[arg(long)]
    pub(crate) bootstrap_servers: String,
    /// The topic.
    #[arg(long)]
    pub(crate) topic: String,
    /// What to do.
    #[arg(long, value_enum)]
    pub(crate) mode: Mode,
    /// How many records. With `consume` and neither this nor --duration: until the end of every partition.
    #[arg(long, conflicts_with = "duration")]
    pub(crate) message_count: Option<u64>,
    /// How long: 500ms, 10s, 2m.
    #[arg(long, value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 256)]
    pub(crate) message_size: usize,
    /// Connections (clients).
    #[arg(long, default_value_t = 1)]
    pub(crate) concurrency: u32,
    /// 0, 1 or all.
    #[arg(long, default_value = "all", value_parser = parse_acks)]
    pub(crate) acks: i16,
    /// With `produce`: one record per request and one request outstanding per connection, over plain sockets with prebuilt
    /// requests, so that the load costs little CPU.
    #[arg(long)]
    pub(crate) one_per_request: bool,
    /// The consumer group; without it a new one for each run.
    #[arg(long)]
    pub(crate) consumer_group: Option<String>,
    /// Create the topic first (it may exist already).
    #[arg(long)]
    pub(crate) create_topic: bool,
    /// Partitions of a topic created here.
    #[arg(long, default_value_t = 1)]
    pub(crate) partitions: i32,
    /// Print one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Write records; latency is from hand-over to acknowledgement.
    Produce,
    /// Read records and verify each.
    Consume,
    /// Write a record and wait until it has been read, on every connection; latency is the whole way.
    RoundTrip,
}

impl Mode {
    /// The word on the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Consume => "consume",
            Self::RoundTrip => "round-trip",
        }
    }
}

impl Args {
    /// Refuses combinations that mean nothing.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.message_size >= PAYLOAD_BYTES_MIN,
            "--message-size: at least {PAYLOAD_BYTES_MIN} bytes (checksum, stream, sequence)"
        );
        ensure!(
            (1..=CONCURRENCY_MAX).contains(&self.concurrency),
            "--concurrency: 1 to {CONCURRENCY_MAX}"
        );
        ensure!(self.partitions >= 1, "--partitions: at least 1");
        if self.one_per_request {
            ensure!(
                self.mode == Mode::Produce,
                "--one-per-request goes with --mode produce"
            );
            ensure!(
                self.acks != 0,
                "--one-per-request waits for each answer, and acks=0 has none"
            );
        }
        if self.mode != Mode::Consume && self.message_count.is_none() && self.duration.is_none() {
            bail!("say --message-count or --duration");
        }
        Ok(())
    }

    /// When the load ends by the clock, if it does.
    pub(crate) fn end(&self, started: Instant) -> Option<Instant> {
        self.duration.map(|duration| started + duration)
    }

    /// How many of `message_count` connection `index` has to do: the shares differ by at most one.
    pub(crate) fn share(&self, index: u32) -> u64 {
        let Some(count) = self.message_count else {
            return u64::MAX;
        };
        let connections = u64::from(self.concurrency);
        count / connections + u64::from(u64::from(index) < count % connections)
    }
}

fn parse_acks(word: &str) -> Result<i16, String> {
    match word {
        "0" => Ok(0),
        "1" => Ok(1),
        "all" | "-1" => Ok(-1),
        other => Err(format!("{other} is none of 0, 1, all")),
    }
}

fn parse_duration(word: &str) -> Result<Duration, String> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{word} is no duration such as 10s"))?;
    let ms = match &word[digits.len()..] {
        "ms" => Some(number),
        "s" | "" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        unit => return Err(format!("{unit} is none of ms, s, m, h")),
    };
    ms.filter(|ms| *ms > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{word} is no usable duration"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (word, ms) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("2m", 120_000),
            ("3", 3_000),
        ] {
            assert_eq!(
                parse_duration(word),
                Ok(Duration::from_millis(ms)),
                "{word}"
            );
        }
        for word in ["", "s", "0s", "10 parsecs", "-1s", "99999999999999999999h"] {
            assert!(parse_duration(word).is_err(), "{word}");
        }
    }

    #[test]
    fn shares_add_up() {
        let args = Args::parse_from([
            "keelson-bench",
            "--bootstrap-servers",
            "b:1",
            "--topic",
            "t",
            "--mode",
            "produce",
            "--message-count",
            "1001",
            "--concurrency",
            "128",
        ]);
        assert_eq!((0..128).map(|index| args.share(index)).sum::<u64>(), 1001);
    }
}
