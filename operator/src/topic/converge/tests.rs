//! The loop against a cluster in memory: what is ordered, and what is believed.

use std::collections::BTreeMap;
use std::sync::Mutex;

use keelson_crds::{AdoptionPolicy, DeletionPolicy};

use super::*;
use crate::deletion::Deleting;
use crate::kafka::ConfigFact;
use crate::kafka::fake::FakeKafka;

#[derive(Default)]
struct Place {
    gone: Option<String>,
    finalizers: Mutex<u32>,
    refuse: Option<String>,
}

impl Surroundings for Place {
    async fn classify(&self, _: &str, tag: Option<String>) -> Owner {
        match tag {
            None => Owner::Nobody,
            Some(tag) if tag == "me" => Owner::Ours,
            Some(tag) if tag == "gone" => Owner::Stale(tag),
            Some(tag) => Owner::Foreign(tag),
        }
    }

    async fn gone(&self) -> Option<String> {
        self.gone.clone()
    }

    async fn add_finalizer(&self) -> Result<(), String> {
        *self.finalizers.lock().unwrap() += 1;
        self.refuse.clone().map_or(Ok(()), Err)
    }
}

fn desired() -> Desired {
    let spec = keelson_crds::TopicSpec {
        partitions: Some(3),
        ..keelson_crds::TopicSpec::default()
    };
    Desired::new(&spec, "orders", "me".to_owned())
}

fn live() -> ObjectView {
    ObjectView {
        finalizers_exist: true,
        ..ObjectView::default()
    }
}

fn condition(outcome: &Outcome, type_: ConditionType) -> (ConditionStatus, Reason) {
    let it = &outcome.verdict.conditions[&type_];
    (it.0, it.1)
}

async fn run(kafka: &FakeKafka, place: &Place, desired: &Desired, object: ObjectView) -> Outcome {
    converge(kafka, place, desired, object, Mode::Execute).await
}

#[tokio::test]
async fn created_seen_and_ready() {
    let (kafka, place) = (FakeKafka::default(), Place::default());
    let first = run(&kafka, &place, &desired(), live()).await;
    assert_eq!(
        condition(&first, ConditionType::Ready),
        (ConditionStatus::True, Reason::AsDescribed)
    );
    assert_eq!(first.events[0].0, Reason::TopicCreated);
    assert!(matches!(first.verdict.topic, TopicUpdate::Is(_)));
    let second = run(&kafka, &place, &desired(), live()).await;
    assert!(second.events.is_empty());
    assert_eq!(kafka.calls(), ["create orders"]);
}

#[tokio::test]
async fn the_finalizer_comes_before_the_topic() {
    let (kafka, place) = (
        FakeKafka::default(),
        Place {
            refuse: Some("409".into()),
            ..Place::default()
        },
    );
    let desired = Desired {
        deletion_policy: DeletionPolicy::Delete,
        ..desired()
    };
    let outcome = run(&kafka, &place, &desired, live()).await;
    assert_eq!(
        outcome.failure,
        Some(Failure::passing(Reason::KubernetesError, "409"))
    );
    assert!(kafka.calls().is_empty(), "no finalizer, no topic");
    let place = Place::default();
    let outcome = run(&kafka, &place, &desired, live()).await;
    assert_eq!(
        condition(&outcome, ConditionType::Ready).0,
        ConditionStatus::True
    );
    assert_eq!(*place.finalizers.lock().unwrap(), 1);
}

#[tokio::test]
async fn the_brokers_own_words() {
    let kafka = FakeKafka::default();
    let config = BTreeMap::from([("bad.key".to_owned(), Some("1".to_owned()))]);
    let outcome = run(
        &kafka,
        &Place::default(),
        &Desired {
            config,
            ..desired()
        },
        live(),
    )
    .await;
    assert_eq!(
        condition(&outcome, ConditionType::Ready),
        (ConditionStatus::False, Reason::BrokerRefused)
    );
    let message = &outcome.verdict.conditions[&ConditionType::Ready].2;
    assert_eq!(message, "INVALID_CONFIG: bad.key is not a topic config");
    assert!(outcome.failure.unwrap().settled);
}

#[tokio::test]
async fn a_deaf_broker_makes_nothing_ready() {
    let kafka = FakeKafka::default();
    kafka.be_deaf();
    let outcome = run(&kafka, &Place::default(), &desired(), live()).await;
    assert_eq!(
        condition(&outcome, ConditionType::Ready),
        (ConditionStatus::False, Reason::NotConverging)
    );
    assert_eq!(kafka.calls().len(), LOOKS_MAX);
}

#[tokio::test]
async fn changed_back_or_reported() {
    let (kafka, place) = (FakeKafka::default(), Place::default());
    let config = BTreeMap::from([("retention.ms".to_owned(), Some("1000".to_owned()))]);
    let desired = Desired {
        config,
        ..desired()
    };
    run(&kafka, &place, &desired, live()).await;
    kafka.tamper("orders", |it| {
        it.configs.insert(
            "retention.ms".into(),
            ConfigFact {
                value: Some("5".into()),
                explicit: true,
            },
        );
    });
    let applied = ObjectView {
        applied: true,
        ..live()
    };
    let report = Desired {
        drift_policy: keelson_crds::DriftPolicy::Report,
        ..desired.clone()
    };
    let told = run(&kafka, &place, &report, applied.clone()).await;
    assert_eq!(
        condition(&told, ConditionType::Drifted),
        (ConditionStatus::True, Reason::DriftFound)
    );
    assert!(told.events.is_empty());
    let fixed = run(&kafka, &place, &desired, applied).await;
    assert_eq!(fixed.events[0].0, Reason::DriftCorrected);
    assert_eq!(
        condition(&fixed, ConditionType::Drifted),
        (ConditionStatus::False, Reason::NoDrift)
    );
}

#[tokio::test]
async fn a_stale_owner_is_replaced_and_a_living_one_is_not() {
    let place = Place::default();
    for (owner, expected) in [
        ("gone", Reason::AsDescribed),
        ("other", Reason::OwnedByAnother),
    ] {
        let kafka = FakeKafka::default();
        run(&kafka, &place, &desired(), live()).await;
        kafka.tamper("orders", |it| {
            it.configs.insert(
                "keelson.owner".into(),
                ConfigFact {
                    value: Some(owner.into()),
                    explicit: true,
                },
            );
        });
        let outcome = run(&kafka, &place, &desired(), live()).await;
        assert_eq!(condition(&outcome, ConditionType::Ready).1, expected);
    }
}

#[tokio::test]
async fn deleted_by_id_and_then_released() {
    let (kafka, place) = (FakeKafka::default(), Place::default());
    let desired = Desired {
        deletion_policy: DeletionPolicy::Delete,
        ..desired()
    };
    run(&kafka, &place, &desired, live()).await;
    let deleting = Deleting {
        age: std::time::Duration::ZERO,
        until: "later".into(),
    };
    let object = ObjectView {
        has_finalizer: true,
        deleting: Some(deleting),
        ..live()
    };
    kafka.fail_with(Some(CallError::Unreachable {
        message: "away".into(),
    }));
    let held = run(&kafka, &place, &desired, object.clone()).await;
    assert_eq!(
        (held.release, held.failure.map(|it| it.reason)),
        (None, Some(Reason::BrokerUnreachable))
    );
    let gone = Place {
        gone: Some("no StatefulSet".into()),
        ..Place::default()
    };
    let let_go = run(&kafka, &gone, &desired, object.clone()).await;
    assert_eq!(let_go.release.map(|it| it.0), Some(Reason::ClusterGone));
    kafka.fail_with(None);
    let deleted = run(&kafka, &place, &desired, object.clone()).await;
    assert_eq!(deleted.release.map(|it| it.0), Some(Reason::TopicDeleted));
    assert_eq!(
        kafka.calls().last().unwrap(),
        "delete 00000000-0000-0000-0000-000000000001"
    );
    let again = run(&kafka, &place, &desired, object).await;
    assert_eq!(again.release.map(|it| it.0), Some(Reason::TopicDeleted));
}

#[tokio::test]
async fn somebody_elses_topic_survives_the_deletion() {
    let (kafka, place) = (FakeKafka::default(), Place::default());
    run(
        &kafka,
        &place,
        &Desired {
            owner: "other".into(),
            ..desired()
        },
        live(),
    )
    .await;
    let deleting = Deleting {
        age: std::time::Duration::ZERO,
        until: "later".into(),
    };
    let object = ObjectView {
        has_finalizer: true,
        deleting: Some(deleting),
        ..live()
    };
    let desired = Desired {
        deletion_policy: DeletionPolicy::Delete,
        adoption_policy: AdoptionPolicy::Always,
        ..desired()
    };
    let outcome = run(&kafka, &place, &desired, object).await;
    assert_eq!(outcome.release.map(|it| it.0), Some(Reason::TopicRetained));
    assert_eq!(kafka.calls(), ["create orders"]);
}

#[tokio::test]
async fn a_lost_topic_comes_back_unless_only_reported() {
    let (kafka, place) = (FakeKafka::default(), Place::default());
    run(&kafka, &place, &desired(), live()).await;
    kafka.remove("orders");
    let known = ObjectView {
        applied: true,
        known_id: Some(uuid::Uuid::from_u128(1)),
        ..live()
    };
    let report = Desired {
        drift_policy: keelson_crds::DriftPolicy::Report,
        ..desired()
    };
    let told = run(&kafka, &place, &report, known.clone()).await;
    assert_eq!(
        condition(&told, ConditionType::Ready),
        (ConditionStatus::False, Reason::TopicMissing)
    );
    assert_eq!(told.verdict.topic, TopicUpdate::Gone);
    let back = run(&kafka, &place, &desired(), known).await;
    assert_eq!(
        condition(&back, ConditionType::Ready).0,
        ConditionStatus::True
    );
    assert_eq!(kafka.calls(), ["create orders", "create orders"]);
}

#[tokio::test]
async fn validating_changes_nothing_and_tells_all() {
    let (kafka, place) = (FakeKafka::default(), Place::default());
    let outcome = converge(&kafka, &place, &desired(), live(), Mode::ValidateOnly).await;
    assert_eq!(
        outcome.events,
        [(
            Reason::TopicCreated,
            "create topic orders with 3 partitions".to_owned()
        )]
    );
    assert!(kafka.calls().is_empty());
}
