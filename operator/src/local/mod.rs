//! `keelson-operator apply`: the same manifests and decisions, without Kubernetes.
//!
//! Owns a place for objects that is a folder: owner `local/<namespace>/<name>`, no finalizers, and nothing is ever
//! deleted. One line per object says what happened; the exit code says whether all are Ready.

mod import;
mod manifests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use keelson_crds::{
    ConditionStatus, ConditionType, ConsumerGroup, ConsumerGroupStatus, Reason, Topic, TopicStatus,
    find,
};

use crate::group;
use crate::health::{self, ClusterLog};
use crate::kafka::real::RealKafka;
use crate::kafka::{Kafka, Mode};
use crate::outcome::Failure;
use crate::topic::{self, Desired, Frame, ObjectView, Owner, Surroundings, TopicUpdate, converge};
pub(crate) use import::import;
use manifests::{Key, Manifests, Object};

/// Pause between two rounds of `--watch`.
const WATCH_PAUSE: Duration = Duration::from_secs(5);

/// What `apply` is told.
pub(crate) struct Options {
    pub(crate) path: PathBuf,
    pub(crate) bootstrap: String,
    pub(crate) watch: bool,
    pub(crate) dry_run: bool,
    /// The brokers' HTTP port, if their logs shall be looked at.
    pub(crate) broker_http_port: Option<u16>,
}

/// Applies once, or until stopped.
pub(crate) async fn apply(options: Options) -> anyhow::Result<ExitCode> {
    let stop = crate::run::stop_token()?;
    let kafka = RealKafka::new(&options.bootstrap)?;
    let http = match options.broker_http_port {
        Some(port) => Some((health::http_client()?, port)),
        None => None,
    };
    let mut folder = Folder::new(kafka, options.dry_run, http);
    let mut printed = BTreeMap::new();
    loop {
        let round = match manifests::read(&options.path) {
            Ok(manifests) => folder.round(manifests).await,
            Err(error) if options.watch => Round {
                lines: vec![(String::new(), format!("{error:#}"))],
                ready: false,
            },
            Err(error) => return Err(error),
        };
        for (key, line) in &round.lines {
            if printed.get(key) != Some(line) {
                println!("{line}");
            }
        }
        printed = round.lines.into_iter().collect();
        if !options.watch {
            return Ok(if round.ready {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_PAUSE) => {}
            () = stop.cancelled() => return Ok(if round.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        }
    }
}

/// One pass over all objects.
struct Round {
    /// What is said about whom.
    lines: Vec<(String, String)>,
    ready: bool,
}

/// The objects of a folder and what is remembered of them between two rounds.
struct Folder<K> {
    kafka: K,
    mode: Mode,
    http: Option<(reqwest::Client, u16)>,
    topics: BTreeMap<Key, (Topic, TopicStatus)>,
    groups: BTreeMap<Key, ConsumerGroupStatus>,
}

struct Place {
    owner: String,
}

impl Surroundings for Place {
    async fn classify(&self, _: &str, tag: Option<String>) -> Owner {
        match tag {
            None => Owner::Nobody,
            Some(tag) if tag == self.owner => Owner::Ours,
            Some(tag) => Owner::Foreign(tag),
        }
    }

    async fn gone(&self) -> Option<String> {
        None
    }

    async fn add_finalizer(&self) -> Result<(), String> {
        Ok(())
    }
}

impl<K: Kafka> Folder<K> {
    fn new(kafka: K, dry_run: bool, http: Option<(reqwest::Client, u16)>) -> Self {
        let mode = if dry_run {
            Mode::ValidateOnly
        } else {
            Mode::Execute
        };
        Self {
            kafka,
            mode,
            http,
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
        }
    }

    async fn round(&mut self, manifests: Manifests) -> Round {
        let mut round = Round {
            lines: Vec::new(),
            ready: manifests.refused.is_empty(),
        };
        for line in &manifests.skipped {
            round.lines.push((line.clone(), format!("skipped: {line}")));
        }
        for line in &manifests.refused {
            round.lines.push((line.clone(), format!("refused: {line}")));
        }
        let log = match &self.http {
            Some((http, port)) => Some(ClusterLog::fetch(&self.kafka, http, *port).await),
            None => None,
        };
        self.topics
            .retain(|key, _| manifests.objects.contains_key(key));
        self.groups
            .retain(|key, _| manifests.objects.contains_key(key));
        for (key, object) in manifests.objects {
            let (line, ready) = match object {
                Object::Topic(topic) => self.topic(&key, *topic, log.as_ref()).await,
                Object::Group(group) => self.group(&key, &group).await,
            };
            round.ready &= ready;
            round
                .lines
                .push((key.to_string(), format!("{key}: {line}")));
        }
        round
    }

    async fn topic(&mut self, key: &Key, topic: Topic, log: Option<&ClusterLog>) -> (String, bool) {
        let (before, old) = self.topics.remove(key).unzip();
        let old = old.unwrap_or_default();
        let owner = format!("local/{}/{}", key.namespace, key.name);
        let desired = Desired::new(&topic.spec, &key.name, owner.clone());
        let synced = find(&old.conditions, ConditionType::Synced);
        let view = ObjectView {
            // A change of the file is a wish; a difference without one is drift.
            applied: before.is_some_and(|it| it.spec == topic.spec)
                && synced.is_some_and(|it| it.status == keelson_crds::ConditionStatus::True),
            known_id: old
                .topic_id
                .as_ref()
                .and_then(|it| uuid::Uuid::parse_str(it).ok()),
            ..ObjectView::default()
        };
        let outcome = converge(&self.kafka, &Place { owner }, &desired, view, self.mode).await;
        let known = match &outcome.verdict.topic {
            TopicUpdate::Is(facts) => Some((facts.id, desired.topic.as_str())),
            TopicUpdate::Keep | TopicUpdate::Gone | TopicUpdate::None => None,
        };
        let log_view = log.cloned().unwrap_or_default().view(known);
        let now = Time(Timestamp::now());
        let frame = Frame {
            topic: &desired.topic,
            generation: None,
            now: &now,
        };
        let status = topic::build(&old, &outcome.verdict, &log_view, &frame);
        let done: Vec<&str> = outcome
            .events
            .iter()
            .map(|(_, words)| words.as_str())
            .collect();
        let answer = match self.mode {
            Mode::Execute => {
                let mut line = ready_words(&status.conditions, &done);
                if log_view.condition.0 == keelson_crds::ConditionStatus::False {
                    line = format!(
                        "{line}; LogHealthy is False ({}): {}",
                        log_view.condition.1.as_str(),
                        log_view.condition.2
                    );
                }
                (line, topic::is_ready(&status))
            }
            Mode::ValidateOnly => match &outcome.failure {
                Some(failure) => (would_fail(failure), false),
                None if !done.is_empty() => (format!("would {}", done.join(", then ")), true),
                None => (
                    ready_words(&status.conditions, &done),
                    topic::is_ready(&status),
                ),
            },
        };
        self.topics.insert(key.clone(), (topic, status));
        answer
    }

    async fn group(&mut self, key: &Key, group: &ConsumerGroup) -> (String, bool) {
        let desired = match group::Desired::new(&group.spec, &key.name) {
            Ok(desired) => desired,
            Err(words) => return (format!("not Ready (InvalidSpec): {words}"), false),
        };
        let old = self.groups.remove(key).unwrap_or_default();
        // Nothing recorded here outlives this process, so no reset is carried out: each call would do it again.
        let view = group::ObjectView::default();
        let outcome = group::converge(&self.kafka, &Files, &desired, view, self.mode).await;
        let status = group::build(&old, &outcome.verdict, None, &Time(Timestamp::now()));
        let events = outcome.events.iter();
        let done: Vec<&str> = events.map(|(_, words)| words.as_str()).collect();
        let answer = match (&outcome.failure, self.mode) {
            (Some(failure), Mode::ValidateOnly) => (would_fail(failure), false),
            (None, Mode::ValidateOnly) if !done.is_empty() => {
                (format!("would {}", done.join(", then ")), true)
            }
            (_, Mode::Execute | Mode::ValidateOnly) => group_words(&status, &done),
        };
        self.groups.insert(key.clone(), status);
        answer
    }
}

/// Where a ConsumerGroup of a folder lives.
struct Files;

impl group::Surroundings for Files {
    async fn gone(&self) -> Option<String> {
        None
    }

    async fn add_finalizer(&self) -> Result<(), String> {
        Ok(())
    }

    async fn remember(&self, _: &group::Memory) -> Result<(), String> {
        Ok(())
    }

    async fn record(&self, _: &group::Verdict) -> Result<(), String> {
        Err("nothing is recorded here".to_owned())
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// What is said about a group, and whether all that was asked for was done.
fn group_words(status: &ConsumerGroupStatus, done: &[&str]) -> (String, bool) {
    let mut line = ready_words(&status.conditions, done);
    if let (Some(state), Some(lag)) = (&status.state, status.total_lag) {
        let members = status.members.unwrap_or(0);
        line = format!("{line}: {state}, {members} members, {lag} records behind");
        if let Some(seconds) = status.max_lag_seconds {
            line = format!("{line}, {seconds} seconds");
        }
    }
    for (type_, silent) in [
        (ConditionType::LagWithinObjective, Reason::NoObjective),
        (ConditionType::ResetSucceeded, Reason::NoReset),
    ] {
        let told = find(&status.conditions, type_).filter(|it| it.reason != silent.as_str());
        if let Some(it) = told {
            let (name, status) = (type_.as_str(), it.status.as_str());
            line = format!("{line}; {name} is {status} ({}): {}", it.reason, it.message);
        }
    }
    for it in status.last_reset.iter().flat_map(|it| &it.partitions) {
        let from = it
            .from
            .map_or_else(|| "none".to_owned(), |it| it.to_string());
        line = format!("{line}; {}-{}: {from} → {}", it.topic, it.partition, it.to);
    }
    let undone = find(&status.conditions, ConditionType::ResetSucceeded)
        .is_some_and(|it| it.status == ConditionStatus::False);
    (line, group::is_ready(status) && !undone)
}

fn would_fail(failure: &Failure) -> String {
    format!(
        "would fail ({}): {}",
        failure.reason.as_str(),
        failure.message
    )
}

/// `Ready (AsDescribed): create topic a`, or `not Ready (BrokerRefused): INVALID_CONFIG: …`.
fn ready_words(conditions: &[keelson_crds::Condition], done: &[&str]) -> String {
    let Some(ready) = find(conditions, ConditionType::Ready) else {
        return "not Ready".to_owned();
    };
    if ready.status == keelson_crds::ConditionStatus::True {
        let did = if done.is_empty() {
            String::new()
        } else {
            format!(": {}", done.join(", then "))
        };
        format!("Ready ({}){did}", ready.reason)
    } else {
        format!("not Ready ({}): {}", ready.reason, ready.message)
    }
}

#[cfg(test)]
mod tests {
    use keelson_crds::{Kind, TopicSpec};

    use super::*;
    use crate::kafka::fake::FakeKafka;

    fn folder(topics: &[(&str, TopicSpec)]) -> Manifests {
        let one = |(name, spec): &(&str, TopicSpec)| {
            let key = Key {
                kind: Kind::Topic,
                namespace: "default".into(),
                name: (*name).into(),
            };
            (key, Object::Topic(Box::new(Topic::new(name, spec.clone()))))
        };
        Manifests {
            objects: topics.iter().map(one).collect(),
            ..Manifests::default()
        }
    }

    fn spec(partitions: i32) -> TopicSpec {
        TopicSpec {
            partitions: Some(partitions),
            ..TopicSpec::default()
        }
    }

    fn lines(round: &Round) -> Vec<&str> {
        round.lines.iter().map(|it| it.1.as_str()).collect()
    }

    #[tokio::test]
    async fn applied_again_and_changed() {
        let mut it = Folder::new(FakeKafka::default(), false, None);
        let round = it.round(folder(&[("a", spec(3))])).await;
        assert!(round.ready);
        assert_eq!(
            lines(&round),
            ["Topic default/a: Ready (AsDescribed): create topic a with 3 partitions"]
        );
        let round = it.round(folder(&[("a", spec(3))])).await;
        assert_eq!(lines(&round), ["Topic default/a: Ready (AsDescribed)"]);
        let round = it.round(folder(&[("a", spec(5))])).await;
        assert_eq!(
            lines(&round),
            ["Topic default/a: Ready (AsDescribed): grow from 3 to 5 partitions"]
        );
        let round = it.round(folder(&[("a", spec(2))])).await;
        assert!(!round.ready);
        assert!(
            lines(&round)[0].starts_with("Topic default/a: not Ready (PartitionsCannotShrink)"),
            "{:?}",
            lines(&round)
        );
        let round = it.round(folder(&[])).await;
        assert!(
            round.ready && round.lines.is_empty(),
            "a manifest that is gone deletes nothing"
        );
        assert_eq!(it.kafka.calls(), ["create a", "grow a 5"]);
    }

    #[tokio::test]
    async fn two_objects_for_one_topic() {
        let mut it = Folder::new(FakeKafka::default(), false, None);
        let same = TopicSpec {
            topic_name: Some("t".into()),
            ..TopicSpec::default()
        };
        let round = it.round(folder(&[("a", same.clone()), ("b", same)])).await;
        assert!(!round.ready);
        assert_eq!(
            lines(&round)[1],
            "Topic default/b: not Ready (OwnedByAnother): topic t belongs to local/default/a"
        );
    }

    #[tokio::test]
    async fn a_dry_run_says_what_would_be() {
        let mut it = Folder::new(FakeKafka::default(), true, None);
        let round = it.round(folder(&[("a", spec(3))])).await;
        assert!(round.ready);
        assert_eq!(
            lines(&round),
            ["Topic default/a: would create topic a with 3 partitions"]
        );
        let bad = TopicSpec {
            config: [(
                "bad.key".to_owned(),
                Some(keelson_crds::ConfigValue::Int(1)),
            )]
            .into(),
            ..spec(1)
        };
        let round = it.round(folder(&[("b", bad)])).await;
        assert!(!round.ready);
        assert_eq!(
            lines(&round),
            [
                "Topic default/b: would fail (BrokerRefused): INVALID_CONFIG: bad.key is not a topic config"
            ]
        );
        assert!(it.kafka.calls().is_empty());
    }
}
