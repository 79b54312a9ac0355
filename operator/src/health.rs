//! The state of the brokers' logs, as they tell it over HTTP.
//!
//! Owns the form of `/admin/v1/log` and what it means for one topic. It judges nothing that the broker has judged:
//! ranges, places and reasons come out in the broker's own words.

use std::time::Duration;

use keelson_crds::{ConditionStatus, LogState, LogStatus, Reason};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::kafka::{BrokerAddress, CallError, Kafka};
use crate::topic::LogView;

/// The states of a broker's log: the values of the label `state`.
pub(crate) const STATES: [&str; 4] = ["ok", "degraded", "readonly", "corrupt"];
/// Most bytes of an answer: 1,000 ranges of less than 1 KiB each, and room.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest wait for one broker.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
/// Ranges that a message names; the broker's own list has the rest.
const RANGES_IN_MESSAGE_MAX: usize = 8;

/// What all brokers said, one by one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ClusterLog {
    pub(crate) brokers: Vec<BrokerLog>,
    /// Why there is no list of brokers, if there is none.
    pub(crate) error: Option<String>,
}

/// What one broker said, or why it said nothing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BrokerLog {
    pub(crate) id: i32,
    pub(crate) answer: Result<LogAnswer, String>,
}

/// The answer of `/admin/v1/log`, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct LogAnswer {
    /// Every state that is on.
    pub(crate) health: Vec<String>,
    #[serde(default)]
    pub(crate) truncated: bool,
    #[serde(default)]
    pub(crate) unhealthy: Vec<UnhealthyRange>,
}

/// A range of offsets that cannot be served.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct UnhealthyRange {
    pub(crate) topic: Option<String>,
    pub(crate) topic_id: Option<String>,
    pub(crate) partition: i32,
    pub(crate) from: i64,
    /// Inclusive.
    pub(crate) to: i64,
    pub(crate) file: String,
    pub(crate) position: u64,
    pub(crate) reason: String,
}

impl UnhealthyRange {
    /// Damage that cost no record is an empty range.
    fn has_loss(&self) -> bool {
        self.to >= self.from
    }
}

impl ClusterLog {
    /// Asks all brokers at once.
    pub(crate) async fn fetch<K: Kafka>(kafka: &K, http: &reqwest::Client, port: u16) -> Self {
        match kafka.brokers().await {
            Ok(brokers) => {
                let calls = brokers
                    .iter()
                    .map(|broker| BrokerLog::fetch(http, broker, port));
                Self {
                    brokers: futures::future::join_all(calls).await,
                    error: None,
                }
            }
            Err(error) => Self {
                brokers: Vec::new(),
                error: Some(words(&error)),
            },
        }
    }

    /// What this means for one topic; `None` for a topic that does not exist.
    pub(crate) fn view(&self, topic: Option<(Uuid, &str)>) -> LogView {
        let unknown = |reason, message: String| LogView {
            status: None,
            condition: (ConditionStatus::Unknown, reason, message),
        };
        let Some((id, name)) = topic else {
            return unknown(Reason::TopicAbsent, String::new());
        };
        if self.brokers.is_empty() {
            return unknown(Reason::LogUnknown, self.error.clone().unwrap_or_default());
        }
        let damaged = self.damaged(id, name);
        let lost = damaged.iter().filter(|(_, it)| it.has_loss()).count();
        let count = |it: usize| i64::try_from(it).unwrap_or(i64::MAX);
        let (state, condition) = self.judge(name, &damaged);
        LogView {
            status: Some(LogStatus {
                state,
                quarantined_ranges: count(lost),
                decode_errors: count(damaged.len()),
            }),
            condition,
        }
    }

    fn answers(&self) -> impl Iterator<Item = (i32, &LogAnswer)> {
        self.brokers
            .iter()
            .filter_map(|it| Some((it.id, it.answer.as_ref().ok()?)))
    }

    /// The ranges of one topic, by id where the broker tells it.
    fn damaged(&self, id: Uuid, name: &str) -> Vec<(i32, &UnhealthyRange)> {
        let id = id.to_string();
        let of_topic = |range: &UnhealthyRange| match &range.topic_id {
            Some(other) => *other == id,
            None => range.topic.as_deref() == Some(name),
        };
        self.answers()
            .flat_map(|(broker, answer)| answer.unhealthy.iter().map(move |it| (broker, it)))
            .filter(|(_, range)| of_topic(range))
            .collect()
    }

    /// The ids of the brokers in this state, with commas.
    fn in_state(&self, state: &str) -> String {
        let ids: Vec<String> = self
            .answers()
            .filter(|(_, it)| it.health.iter().any(|have| have == state))
            .map(|(id, _)| id.to_string())
            .collect();
        ids.join(", ")
    }

    /// From most to least severe. Damage elsewhere is no news about this topic.
    fn judge(
        &self,
        name: &str,
        damaged: &[(i32, &UnhealthyRange)],
    ) -> (LogState, (ConditionStatus, Reason, String)) {
        use ConditionStatus::{False, True, Unknown};
        let truncated = self.answers().any(|(_, it)| it.truncated);
        if damaged.iter().any(|(_, it)| it.has_loss()) {
            let words = places(name, damaged, truncated);
            return (LogState::Damaged, (False, Reason::LogDamaged, words));
        }
        let readonly = self.in_state("readonly");
        if !readonly.is_empty() {
            let words = format!("broker {readonly} accepts no writes");
            return (LogState::ReadOnly, (False, Reason::LogReadOnly, words));
        }
        let silent = |it: &BrokerLog| {
            let error = it.answer.as_ref().err()?;
            Some(format!("broker {}: {error}", it.id))
        };
        let silent: Vec<String> = self.brokers.iter().filter_map(silent).collect();
        if !silent.is_empty() {
            let condition = (Unknown, Reason::LogUnknown, silent.join("; "));
            return (LogState::Unknown, condition);
        }
        if !damaged.is_empty() {
            let words = places(name, damaged, truncated);
            return (LogState::Degraded, (True, Reason::LogDegraded, words));
        }
        let healthy = (True, Reason::LogHealthy, String::new());
        (LogState::Healthy, healthy)
    }
}

/// A client for brokers' HTTP, which is never behind a proxy.
pub(crate) fn http_client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder().no_proxy().build()
}

fn places(topic: &str, damaged: &[(i32, &UnhealthyRange)], truncated: bool) -> String {
    let one = |(broker, it): &(i32, &UnhealthyRange)| {
        let UnhealthyRange {
            partition,
            from,
            to,
            reason,
            file,
            position,
            ..
        } = it;
        let offsets = if it.has_loss() {
            format!("offsets {from}-{to}")
        } else {
            format!("before offset {from}, no record lost")
        };
        format!(
            "{topic}-{partition} {offsets}: {reason} in {file} at position {position} (broker {broker})"
        )
    };
    let shown: Vec<String> = damaged
        .iter()
        .take(RANGES_IN_MESSAGE_MAX)
        .map(one)
        .collect();
    let rest = damaged.len().saturating_sub(RANGES_IN_MESSAGE_MAX);
    let more = match (rest, truncated) {
        (0, false) => String::new(),
        (rest, false) => format!("; and {rest} more"),
        (rest, true) => format!("; and {rest} more, and the broker lists only the first 1,000"),
    };
    format!("{}{more}", shown.join("; "))
}

impl BrokerLog {
    async fn fetch(http: &reqwest::Client, broker: &BrokerAddress, port: u16) -> Self {
        Self {
            id: broker.id,
            answer: ask_broker(http, broker, port, "log").await,
        }
    }
}

/// The answer of `/admin/v1/<what>` of one broker.
pub(crate) async fn ask_broker<T: DeserializeOwned>(
    http: &reqwest::Client,
    broker: &BrokerAddress,
    port: u16,
    what: &str,
) -> Result<T, String> {
    let host = if broker.host.contains(':') {
        format!("[{}]", broker.host)
    } else {
        broker.host.clone()
    };
    let url = format!("http://{host}:{port}/admin/v1/{what}");
    let answer = tokio::time::timeout(ANSWER_WAIT_MAX, ask(http, &url)).await;
    let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {ANSWER_WAIT_MAX:?}")));
    answer.map_err(|error| format!("GET {url}: {error}"))
}

async fn ask<T: DeserializeOwned>(http: &reqwest::Client, url: &str) -> Result<T, String> {
    let mut response = http
        .get(url)
        .send()
        .await
        .map_err(|error| root_cause(&error))?;
    if !response.status().is_success() {
        return Err(format!("HTTP status {}", response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| root_cause(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("an answer of more than {ANSWER_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|error| format!("not the expected JSON: {error}"))
}

/// The last link of the chain says what happened; the others only where.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

fn words(error: &CallError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(7);

    fn range(topic_id: Uuid, partition: i32, from: i64) -> UnhealthyRange {
        UnhealthyRange {
            topic: Some("orders".into()),
            topic_id: Some(topic_id.to_string()),
            partition,
            from,
            to: from + 9,
            file: "wal/00000001.wal".into(),
            position: 4096,
            reason: "payload_crc".into(),
        }
    }

    fn broker(id: i32, health: &[&str], unhealthy: Vec<UnhealthyRange>) -> BrokerLog {
        let health = health.iter().map(|it| (*it).to_owned()).collect();
        BrokerLog {
            id,
            answer: Ok(LogAnswer {
                health,
                truncated: false,
                unhealthy,
            }),
        }
    }

    #[track_caller]
    fn check(
        brokers: Vec<BrokerLog>,
        expected: (LogState, ConditionStatus, Reason, i64),
        words: &str,
    ) {
        let view = ClusterLog {
            brokers,
            error: None,
        }
        .view(Some((ID, "orders")));
        let status = view.status.unwrap();
        let found = (
            status.state,
            view.condition.0,
            view.condition.1,
            status.quarantined_ranges,
        );
        assert_eq!(found, expected);
        assert!(view.condition.2.contains(words), "{}", view.condition.2);
    }

    #[test]
    fn what_the_brokers_say_about_a_topic() {
        use ConditionStatus::{False, True, Unknown};
        let healthy = (LogState::Healthy, True, Reason::LogHealthy, 0);
        check(vec![broker(0, &["ok"], vec![])], healthy, "");
        let others = vec![range(Uuid::from_u128(8), 0, 10)];
        check(vec![broker(0, &["corrupt"], others)], healthy, "");
        check(
            vec![broker(0, &["corrupt"], vec![range(ID, 2, 10)])],
            (LogState::Damaged, False, Reason::LogDamaged, 1),
            "orders-2 offsets 10-19: payload_crc in wal/00000001.wal at position 4096 (broker 0)",
        );
        check(
            vec![broker(
                0,
                &["readonly", "corrupt"],
                (0..9).map(|at| range(ID, at, 0)).collect(),
            )],
            (LogState::Damaged, False, Reason::LogDamaged, 9),
            "; and 1 more",
        );
        check(
            vec![broker(0, &["ok"], vec![]), broker(1, &["readonly"], vec![])],
            (LogState::ReadOnly, False, Reason::LogReadOnly, 0),
            "broker 1 accepts no writes",
        );
        check(
            vec![broker(0, &["degraded", "corrupt"], vec![])],
            healthy,
            "",
        );
        let free = UnhealthyRange {
            to: 9,
            ..range(ID, 1, 10)
        };
        check(
            vec![broker(0, &["degraded"], vec![free])],
            (LogState::Degraded, True, Reason::LogDegraded, 0),
            "orders-1 before offset 10, no record lost: payload_crc in",
        );
        let silent = BrokerLog {
            id: 1,
            answer: Err("connection refused".into()),
        };
        check(
            vec![broker(0, &["ok"], vec![]), silent.clone()],
            (LogState::Unknown, Unknown, Reason::LogUnknown, 0),
            "broker 1: connection refused",
        );
        check(
            vec![broker(0, &["corrupt"], vec![range(ID, 0, 0)]), silent],
            (LogState::Damaged, False, Reason::LogDamaged, 1),
            "orders-0",
        );
    }

    #[test]
    fn a_range_without_an_id_goes_by_name() {
        let nameless = UnhealthyRange {
            topic_id: None,
            ..range(ID, 0, 0)
        };
        check(
            vec![broker(0, &["corrupt"], vec![nameless])],
            (
                LogState::Damaged,
                ConditionStatus::False,
                Reason::LogDamaged,
                1,
            ),
            "orders-0",
        );
    }

    #[test]
    fn nobody_to_ask_is_unknown() {
        let nobody = ClusterLog {
            brokers: Vec::new(),
            error: Some("no route".into()),
        };
        let view = nobody.view(Some((ID, "orders")));
        assert_eq!(
            view.condition,
            (
                ConditionStatus::Unknown,
                Reason::LogUnknown,
                "no route".into()
            )
        );
        assert_eq!(nobody.view(None).condition.1, Reason::TopicAbsent);
    }

    #[test]
    fn the_answer_of_the_broker_is_read() {
        let text = r#"{"health":["corrupt"],"broker_id":0,"cluster_id":"x","wal":{"files":4,"boot":1},"decode_errors":1,
            "quarantined_ranges":1,"truncated":false,"unhealthy":[{"topic":"orders","topic_id":"00000000-0000-0000-0000-000000000007",
            "partition":0,"from":10,"to":19,"file":"wal/00000001.wal","position":4096,"reason":"payload_crc","source":"wal",
            "stage":"replay","since":"2026-11-24T16:00:00Z"}]}"#;
        let answer: LogAnswer = serde_json::from_str(text).unwrap();
        assert_eq!(answer.unhealthy, vec![range(ID, 0, 10)]);
    }
}
