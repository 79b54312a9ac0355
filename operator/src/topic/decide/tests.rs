//! The judgement as tables, and its laws over all combinations.

use std::collections::BTreeMap;
use std::time::Duration;

use keelson_crds::{
    AdoptionPolicy, ConditionStatus, ConditionType, ConfigPolicy, DeletionPolicy, DriftPolicy,
    Reason,
};
use uuid::Uuid;

use super::{Action, Decision, decide};
use crate::deletion::HOLD_MAX;
use crate::kafka::{ConfigFact, TopicFacts};
use crate::topic::facts::{
    ClusterView, Deleting, Desired, ObjectView, Observed, Owner, TopicUpdate, TopicView,
};

const ID: Uuid = Uuid::from_u128(7);

fn desired() -> Desired {
    Desired {
        topic: "orders".into(),
        partitions: Some(3),
        replication_factor: None,
        config: BTreeMap::from([("retention.ms".to_owned(), Some("1000".to_owned()))]),
        config_policy: ConfigPolicy::Merge,
        adoption_policy: AdoptionPolicy::IfMatching,
        drift_policy: DriftPolicy::Enforce,
        deletion_policy: DeletionPolicy::Retain,
        paused: false,
        owner: "uid/ns/orders".into(),
        prefix: String::new(),
    }
}

fn object() -> ObjectView {
    ObjectView {
        finalizers_exist: true,
        ..ObjectView::default()
    }
}

fn facts() -> TopicFacts {
    let fact = |value: &str, explicit| ConfigFact {
        value: Some(value.to_owned()),
        explicit,
    };
    let configs = [
        ("retention.ms", fact("1000", true)),
        ("segment.bytes", fact("9", true)),
        ("max.message.bytes", fact("1", false)),
    ];
    TopicFacts {
        id: ID,
        partitions: 3,
        replication_factor: 1,
        configs: configs
            .into_iter()
            .map(|(key, it)| (key.to_owned(), it))
            .collect(),
    }
}

fn there(facts: TopicFacts, owner: Owner) -> ClusterView {
    ClusterView::Reachable(TopicView::Present(facts, owner))
}

const ABSENT: ClusterView = ClusterView::Reachable(TopicView::Absent);

fn decided(desired: &Desired, object: ObjectView, cluster: ClusterView) -> Decision {
    decide(desired, &Observed { object, cluster })
}

fn words(decision: &Decision) -> Vec<String> {
    decision.actions.iter().map(ToString::to_string).collect()
}

/// Actions in words, and Ready with its reason.
#[track_caller]
fn check(
    desired: &Desired,
    object: ObjectView,
    cluster: ClusterView,
    actions: &[&str],
    ready: (ConditionStatus, Reason),
) -> Decision {
    let decision = decided(desired, object, cluster);
    assert_eq!(words(&decision), actions);
    let found = &decision.verdict.conditions[&ConditionType::Ready];
    assert_eq!((found.0, found.1), ready, "{}", found.2);
    decision
}

#[track_caller]
fn condition(
    decision: &Decision,
    type_: ConditionType,
    expected: (ConditionStatus, Reason),
    part: &str,
) {
    let found = &decision.verdict.conditions[&type_];
    assert_eq!((found.0, found.1), expected);
    assert!(found.2.contains(part), "{}", found.2);
}

use ConditionStatus::{False, True, Unknown};

#[test]
fn a_topic_that_is_not_there() {
    let create = "create topic orders with 3 partitions";
    let no = (False, Reason::TopicAbsent);
    let decision = check(&desired(), object(), ABSENT, &[create], no);
    let Action::Create(new) = &decision.actions[0] else {
        panic!("{:?}", decision.actions)
    };
    assert_eq!(new.config["keelson.owner"], "uid/ns/orders");
    assert_eq!(new.config["retention.ms"], "1000");
    check(
        &Desired {
            partitions: None,
            ..desired()
        },
        object(),
        ABSENT,
        &["create topic orders"],
        no,
    );
    check(
        &Desired {
            paused: true,
            ..desired()
        },
        object(),
        ABSENT,
        &[],
        (False, Reason::Paused),
    );
    let null = Desired {
        config: BTreeMap::from([("retention.ms".to_owned(), None)]),
        ..desired()
    };
    let decision = check(&null, object(), ABSENT, &[create], no);
    assert!(
        matches!(&decision.actions[0], Action::Create(new) if !new.config.contains_key("retention.ms"))
    );
    let known = ObjectView {
        applied: true,
        known_id: Some(ID),
        ..object()
    };
    let decision = check(&desired(), known.clone(), ABSENT, &[create], no);
    condition(
        &decision,
        ConditionType::Drifted,
        (True, Reason::TopicMissing),
        "deleted by somebody else",
    );
    let report = Desired {
        drift_policy: DriftPolicy::Report,
        ..desired()
    };
    let decision = check(&report, known, ABSENT, &[], (False, Reason::TopicMissing));
    assert_eq!(decision.verdict.topic, TopicUpdate::Gone);
    check(&report, object(), ABSENT, &[create], no);
}

#[test]
fn a_topic_of_ours() {
    let ours = |facts| there(facts, Owner::Ours);
    let applied = || ObjectView {
        applied: true,
        known_id: Some(ID),
        ..object()
    };
    let fine = (True, Reason::AsDescribed);
    let decision = check(&desired(), object(), ours(facts()), &[], fine);
    condition(
        &decision,
        ConditionType::Synced,
        (True, Reason::Applied),
        "",
    );
    condition(
        &decision,
        ConditionType::Conflict,
        (False, Reason::NoConflict),
        "",
    );
    condition(
        &decision,
        ConditionType::Drifted,
        (False, Reason::NoDrift),
        "",
    );
    condition(
        &decision,
        ConditionType::Deleting,
        (False, Reason::NotDeleting),
        "",
    );
    assert_eq!(decision.verdict.topic, TopicUpdate::Is(facts()));

    let grow = Desired {
        partitions: Some(5),
        ..desired()
    };
    check(
        &grow,
        object(),
        ours(facts()),
        &["grow from 3 to 5 partitions"],
        (False, Reason::DriftFound),
    );
    let unset = Desired {
        partitions: None,
        ..desired()
    };
    check(&unset, object(), ours(facts()), &[], fine);

    let shrink = Desired {
        partitions: Some(2),
        ..desired()
    };
    let impossible = (False, Reason::PartitionsCannotShrink);
    let decision = check(&shrink, object(), ours(facts()), &[], impossible);
    condition(
        &decision,
        ConditionType::Synced,
        impossible,
        "has 3 partitions, the spec asks for 2",
    );
    check(
        &Desired {
            drift_policy: DriftPolicy::Report,
            ..shrink.clone()
        },
        applied(),
        ours(facts()),
        &[],
        impossible,
    );
    check(
        &Desired {
            paused: true,
            ..shrink
        },
        applied(),
        ours(facts()),
        &[],
        impossible,
    );
    let replicas = Desired {
        replication_factor: Some(3),
        ..desired()
    };
    check(
        &replicas,
        object(),
        ours(facts()),
        &[],
        (False, Reason::ReplicationFactorCannotChange),
    );

    let config = |value: &str| Desired {
        config: BTreeMap::from([("retention.ms".to_owned(), Some(value.to_owned()))]),
        ..desired()
    };
    check(&config("01000"), object(), ours(facts()), &[], fine);
    let decision = check(
        &config("5"),
        object(),
        ours(facts()),
        &["set retention.ms=5"],
        (False, Reason::DriftFound),
    );
    condition(
        &decision,
        ConditionType::Drifted,
        (True, Reason::DriftFound),
        "config.retention.ms is 1000, should be 5",
    );
    assert!(matches!(
        &decision.actions[0],
        Action::AlterConfigs {
            cause: Reason::ConfigChanged,
            ..
        }
    ));
    let decision = check(
        &config("5"),
        applied(),
        ours(facts()),
        &["set retention.ms=5"],
        (False, Reason::DriftFound),
    );
    assert!(matches!(
        &decision.actions[0],
        Action::AlterConfigs {
            cause: Reason::DriftCorrected,
            ..
        }
    ));

    let report = Desired {
        drift_policy: DriftPolicy::Report,
        ..config("5")
    };
    let decision = check(
        &report,
        applied(),
        ours(facts()),
        &[],
        (True, Reason::DriftFound),
    );
    condition(
        &decision,
        ConditionType::Drifted,
        (True, Reason::DriftFound),
        "retention.ms",
    );
    condition(
        &decision,
        ConditionType::Synced,
        (True, Reason::Applied),
        "",
    );
    check(
        &report,
        object(),
        ours(facts()),
        &["set retention.ms=5"],
        (False, Reason::DriftFound),
    );

    let paused = Desired {
        paused: true,
        ..config("5")
    };
    check(
        &paused,
        object(),
        ours(facts()),
        &[],
        (False, Reason::Paused),
    );
    check(
        &Desired {
            paused: true,
            ..desired()
        },
        object(),
        ours(facts()),
        &[],
        (True, Reason::Paused),
    );
}

#[test]
fn configs_that_are_not_listed() {
    let ours = |facts| there(facts, Owner::Ours);
    check(
        &desired(),
        object(),
        ours(facts()),
        &[],
        (True, Reason::AsDescribed),
    );
    let exclusive = Desired {
        config_policy: ConfigPolicy::Exclusive,
        ..desired()
    };
    check(
        &exclusive,
        object(),
        ours(facts()),
        &["set segment.bytes=(default)"],
        (False, Reason::DriftFound),
    );
    let mut hands_off = exclusive.clone();
    hands_off.config.insert("segment.bytes".into(), None);
    check(
        &hands_off,
        object(),
        ours(facts()),
        &[],
        (True, Reason::AsDescribed),
    );
    let mut tagged = facts();
    tagged.configs.insert(
        "keelson.owner".into(),
        ConfigFact {
            value: Some("uid/ns/orders".into()),
            explicit: true,
        },
    );
    check(
        &hands_off,
        object(),
        ours(tagged),
        &[],
        (True, Reason::AsDescribed),
    );
    let default = Desired {
        config: BTreeMap::from([("max.message.bytes".to_owned(), Some("1".to_owned()))]),
        ..desired()
    };
    check(
        &default,
        object(),
        ours(facts()),
        &[],
        (True, Reason::AsDescribed),
    );
}

#[test]
fn a_topic_that_belongs_to_nobody() {
    let nobody = |facts| there(facts, Owner::Nobody);
    let adopt = "set keelson.owner=uid/ns/orders";
    let pending = (False, Reason::DriftFound);
    let decision = check(&desired(), object(), nobody(facts()), &[adopt], pending);
    assert!(matches!(
        &decision.actions[0],
        Action::AlterConfigs {
            cause: Reason::TopicAdopted,
            ..
        }
    ));
    assert_eq!(decision.verdict.topic, TopicUpdate::None);

    let other = Desired {
        partitions: Some(4),
        ..desired()
    };
    let refused = (False, Reason::DoesNotMatch);
    let decision = check(&other, object(), nobody(facts()), &[], refused);
    condition(
        &decision,
        ConditionType::Conflict,
        (True, Reason::DoesNotMatch),
        "partitions is 3, should be 4",
    );
    assert_eq!(decision.verdict.drift.len(), 1);

    let always = Desired {
        adoption_policy: AdoptionPolicy::Always,
        ..other
    };
    check(
        &always,
        object(),
        nobody(facts()),
        &[adopt, "grow from 3 to 4 partitions"],
        pending,
    );
    let never = Desired {
        adoption_policy: AdoptionPolicy::Never,
        ..desired()
    };
    check(
        &never,
        object(),
        nobody(facts()),
        &[],
        (False, Reason::AdoptionRefused),
    );
    check(
        &Desired {
            paused: true,
            ..desired()
        },
        object(),
        nobody(facts()),
        &[],
        (False, Reason::Paused),
    );

    // Somebody took the tag off: the id still tells whose it is.
    let known = ObjectView {
        applied: true,
        known_id: Some(ID),
        ..object()
    };
    let decision = check(&never, known.clone(), nobody(facts()), &[adopt], pending);
    assert!(matches!(
        &decision.actions[0],
        Action::AlterConfigs {
            cause: Reason::DriftCorrected,
            ..
        }
    ));
    let replaced = TopicFacts {
        id: Uuid::from_u128(8),
        ..facts()
    };
    check(
        &never,
        known,
        nobody(replaced),
        &[],
        (False, Reason::AdoptionRefused),
    );
}

#[test]
fn a_topic_of_somebody_else() {
    let stale = |facts| there(facts, Owner::Stale("uid/ns/old".into()));
    let foreign = |facts| there(facts, Owner::Foreign("uid/ns/other".into()));
    let swap = [
        "set keelson.owner=(default)",
        "set keelson.owner=uid/ns/orders",
    ];
    check(
        &desired(),
        object(),
        stale(facts()),
        &swap,
        (False, Reason::DriftFound),
    );
    let differs = Desired {
        partitions: Some(4),
        ..desired()
    };
    check(
        &differs,
        object(),
        stale(facts()),
        &[],
        (False, Reason::DoesNotMatch),
    );
    for adoption_policy in [
        AdoptionPolicy::IfMatching,
        AdoptionPolicy::Always,
        AdoptionPolicy::Never,
    ] {
        let wish = Desired {
            adoption_policy,
            deletion_policy: DeletionPolicy::Delete,
            ..desired()
        };
        let decision = check(
            &wish,
            object(),
            foreign(facts()),
            &[],
            (False, Reason::OwnedByAnother),
        );
        condition(
            &decision,
            ConditionType::Conflict,
            (True, Reason::OwnedByAnother),
            "belongs to uid/ns/other",
        );
    }
}

#[test]
fn a_name_that_its_namespace_may_not_use() {
    let tenant = Desired {
        prefix: "tenant-".into(),
        deletion_policy: DeletionPolicy::Delete,
        adoption_policy: AdoptionPolicy::Always,
        ..desired()
    };
    let no = (False, Reason::NameNotAllowed);
    for cluster in [
        ABSENT,
        there(facts(), Owner::Nobody),
        there(facts(), Owner::Ours),
        ClusterView::Unreachable("away".into()),
    ] {
        let decision = check(&tenant, object(), cluster, &[], no);
        condition(
            &decision,
            ConditionType::Conflict,
            (True, Reason::NameNotAllowed),
            "names of this namespace begin with \"tenant-\"",
        );
        assert_eq!(decision.verdict.topic, TopicUpdate::Keep);
    }
    let named = Desired {
        topic: "tenant-orders".into(),
        ..tenant
    };
    let decision = decided(&named, object(), ABSENT);
    assert_eq!(decision.actions[0], Action::AddFinalizer);
    assert!(matches!(decision.actions[1], Action::Create(_)));
}

#[test]
fn the_finalizer_follows_the_policy() {
    let delete = Desired {
        deletion_policy: DeletionPolicy::Delete,
        ..desired()
    };
    let hold = "hold the object until the topic is deleted";
    let create = "create topic orders with 3 partitions";
    let has = || ObjectView {
        has_finalizer: true,
        ..object()
    };
    check(
        &delete,
        object(),
        ABSENT,
        &[hold, create],
        (False, Reason::TopicAbsent),
    );
    check(
        &delete,
        has(),
        ABSENT,
        &[create],
        (False, Reason::TopicAbsent),
    );
    check(
        &delete,
        object(),
        there(facts(), Owner::Ours),
        &[hold],
        (True, Reason::AsDescribed),
    );
    let off = "let the object go (TopicRetained: deletionPolicy is Retain)";
    check(
        &desired(),
        has(),
        there(facts(), Owner::Ours),
        &[off],
        (True, Reason::AsDescribed),
    );
    let nowhere = ObjectView {
        finalizers_exist: false,
        ..object()
    };
    check(
        &delete,
        nowhere,
        ABSENT,
        &[create],
        (False, Reason::TopicAbsent),
    );
}

#[test]
fn a_cluster_that_cannot_be_reached() {
    let away = || ClusterView::Unreachable("connection refused".into());
    let decision = check(
        &desired(),
        object(),
        away(),
        &[],
        (Unknown, Reason::BrokerUnreachable),
    );
    condition(
        &decision,
        ConditionType::Synced,
        (False, Reason::BrokerUnreachable),
        "connection refused",
    );
    condition(
        &decision,
        ConditionType::Conflict,
        (Unknown, Reason::BrokerUnreachable),
        "connection refused",
    );
    assert_eq!(decision.verdict.topic, TopicUpdate::Keep);
    let applied = ObjectView {
        applied: true,
        ..object()
    };
    let decision = check(
        &desired(),
        applied,
        away(),
        &[],
        (Unknown, Reason::BrokerUnreachable),
    );
    condition(
        &decision,
        ConditionType::Synced,
        (True, Reason::Applied),
        "",
    );
    let gone = ClusterView::Gone("StatefulSet k-broker does not exist".into());
    check(
        &desired(),
        object(),
        gone,
        &[],
        (Unknown, Reason::BrokerUnreachable),
    );
}

#[test]
fn deletion() {
    let going = |age: Duration| ObjectView {
        has_finalizer: true,
        deleting: Some(Deleting {
            age,
            until: "12:00".into(),
        }),
        known_id: Some(ID),
        applied: true,
        ..object()
    };
    let early = Duration::from_secs(1);
    let delete = Desired {
        deletion_policy: DeletionPolicy::Delete,
        ..desired()
    };
    let check = |desired: &Desired,
                 object: ObjectView,
                 cluster: ClusterView,
                 expected: &[&str]|
     -> Decision {
        let decision = decided(desired, object, cluster);
        assert_eq!(words(&decision), expected);
        decision
    };
    let by_id = format!("delete the topic with id {ID}");
    let decision = check(
        &delete,
        going(early),
        there(facts(), Owner::Ours),
        &[&by_id],
    );
    condition(
        &decision,
        ConditionType::Deleting,
        (True, Reason::DeletingTopic),
        "orders",
    );
    check(
        &delete,
        going(early),
        ABSENT,
        &["let the object go (TopicDeleted: topic orders is gone)"],
    );
    let away = || ClusterView::Unreachable("refused".into());
    let decision = check(&delete, going(early), away(), &[]);
    condition(
        &decision,
        ConditionType::Deleting,
        (True, Reason::DeletionHeld),
        "refused; the object is let go at 12:00",
    );
    let late = check(
        &delete,
        going(HOLD_MAX),
        away(),
        &[
            "let the object go (DeletionGivenUp: topic orders was not deleted: no broker could be reached for 10 minutes: refused)",
        ],
    );
    assert!(!late.actions[0].changes_broker());
    check(
        &delete,
        going(early),
        ClusterView::Gone("no StatefulSet".into()),
        &["let the object go (ClusterGone: no StatefulSet)"],
    );
    check(
        &delete,
        going(early),
        there(facts(), Owner::Nobody),
        &["let the object go (TopicRetained: topic orders belongs to nobody any more)"],
    );
    check(
        &delete,
        going(early),
        there(facts(), Owner::Foreign("x".into())),
        &["let the object go (TopicRetained: topic orders belongs to x)"],
    );
    let retain = "let the object go (TopicRetained: deletionPolicy is Retain)";
    check(
        &desired(),
        going(early),
        there(facts(), Owner::Ours),
        &[retain],
    );
    check(&desired(), going(early), away(), &[retain]);
    let decision = check(
        &Desired {
            paused: true,
            ..delete.clone()
        },
        going(early),
        there(facts(), Owner::Ours),
        &[],
    );
    condition(
        &decision,
        ConditionType::Deleting,
        (True, Reason::Paused),
        "paused",
    );
    let unheld = ObjectView {
        has_finalizer: false,
        ..going(early)
    };
    check(&delete, unheld, there(facts(), Owner::Ours), &[]);
    // Created anew after the status was written: the owner tag proves whose it is.
    let anew = TopicFacts {
        id: Uuid::from_u128(9),
        ..facts()
    };
    check(
        &delete,
        going(early),
        there(anew, Owner::Ours),
        &["delete the topic with id 00000000-0000-0000-0000-000000000009"],
    );
}

/// Every combination of policies and sights, against the laws that hold for all of them.
#[test]
fn laws() {
    let mut cases = 0;
    for desired in all_desired() {
        for object in all_objects() {
            for cluster in all_clusters() {
                let observed = Observed {
                    object: object.clone(),
                    cluster: cluster.clone(),
                };
                let decision = decide(&desired, &observed);
                assert_eq!(
                    decision,
                    decide(&desired, &observed),
                    "equal input, equal output"
                );
                law(&desired, &object, &cluster, &decision);
                cases += 1;
            }
        }
    }
    assert!(cases > 5_000, "{cases}");
}

fn law(desired: &Desired, object: &ObjectView, cluster: &ClusterView, decision: &Decision) {
    let context = || format!("{desired:#?}\n{object:#?}\n{cluster:#?}\n{decision:#?}");
    let deletes = decision
        .actions
        .iter()
        .any(|it| matches!(it, Action::DeleteTopic { .. }));
    let changes = decision.actions.iter().any(Action::changes_broker);
    let ours = matches!(
        cluster,
        ClusterView::Reachable(TopicView::Present(_, Owner::Ours))
    );
    let foreign = matches!(
        cluster,
        ClusterView::Reachable(TopicView::Present(_, Owner::Foreign(_)))
    );
    if deletes {
        assert!(
            ours && object.deleting.is_some() && desired.deletion_policy == DeletionPolicy::Delete,
            "{}",
            context()
        );
    }
    if desired.paused || foreign || !matches!(cluster, ClusterView::Reachable(_)) {
        assert!(!changes, "{}", context());
    }
    if object.deleting.is_some() && changes {
        assert!(deletes && decision.actions.len() == 1, "{}", context());
    }
    let ready = decision.verdict.conditions.get(&ConditionType::Ready);
    if ready.is_some_and(|it| it.0 == True) {
        assert!(
            !changes && object.deleting.is_none(),
            "Ready with work left: {}",
            context()
        );
        let ClusterView::Reachable(TopicView::Present(facts, _)) = cluster else {
            panic!("{}", context())
        };
        assert!(
            desired
                .partitions
                .is_none_or(|wish| wish >= facts.partitions),
            "Ready though impossible: {}",
            context()
        );
        assert!(
            desired
                .replication_factor
                .is_none_or(|wish| wish == facts.replication_factor),
            "{}",
            context()
        );
    }
    if !object.finalizers_exist || desired.deletion_policy == DeletionPolicy::Retain {
        assert!(
            !decision.actions.contains(&Action::AddFinalizer),
            "{}",
            context()
        );
    }
    let at = |wanted: fn(&Action) -> bool| decision.actions.iter().position(wanted);
    if let (Some(finalizer), Some(create)) = (
        at(|it| *it == Action::AddFinalizer),
        at(|it| matches!(it, Action::Create(_))),
    ) {
        assert!(finalizer < create, "{}", context());
    }
    if !object.has_finalizer
        && desired.deletion_policy == DeletionPolicy::Delete
        && object.finalizers_exist
        && object.deleting.is_none()
    {
        let creates = at(|it| matches!(it, Action::Create(_))).is_some();
        assert!(
            !creates || decision.actions[0] == Action::AddFinalizer,
            "{}",
            context()
        );
    }
    if object.deleting.is_none() {
        let types: Vec<ConditionType> = decision.verdict.conditions.keys().copied().collect();
        let all = [
            ConditionType::Ready,
            ConditionType::Synced,
            ConditionType::Drifted,
            ConditionType::Conflict,
            ConditionType::Deleting,
        ];
        assert_eq!(types, all, "{}", context());
    }
}

fn all_desired() -> Vec<Desired> {
    let mut all = Vec::new();
    for adoption_policy in [
        AdoptionPolicy::IfMatching,
        AdoptionPolicy::Always,
        AdoptionPolicy::Never,
    ] {
        for drift_policy in [DriftPolicy::Enforce, DriftPolicy::Report] {
            for deletion_policy in [DeletionPolicy::Retain, DeletionPolicy::Delete] {
                for (paused, config_policy) in [
                    (false, ConfigPolicy::Merge),
                    (true, ConfigPolicy::Merge),
                    (false, ConfigPolicy::Exclusive),
                ] {
                    for (partitions, replication_factor) in [
                        (Some(3), None),
                        (Some(2), None),
                        (Some(5), Some(1)),
                        (None, Some(3)),
                    ] {
                        all.push(Desired {
                            adoption_policy,
                            drift_policy,
                            deletion_policy,
                            paused,
                            config_policy,
                            partitions,
                            replication_factor,
                            ..desired()
                        });
                    }
                }
            }
        }
    }
    all
}

fn all_objects() -> Vec<ObjectView> {
    let mut all = Vec::new();
    let ages = [None, Some(Duration::ZERO), Some(HOLD_MAX)];
    for age in ages {
        for has_finalizer in [false, true] {
            for (applied, known_id) in [(false, None), (true, Some(ID))] {
                let deleting = age.map(|age| Deleting {
                    age,
                    until: "12:00".into(),
                });
                all.push(ObjectView {
                    has_finalizer,
                    finalizers_exist: true,
                    deleting,
                    applied,
                    known_id,
                });
            }
        }
    }
    all.push(ObjectView::default());
    all
}

fn all_clusters() -> Vec<ClusterView> {
    let mut all = vec![
        ABSENT,
        ClusterView::Unreachable("away".into()),
        ClusterView::Gone("gone".into()),
    ];
    let owners = [
        Owner::Ours,
        Owner::Nobody,
        Owner::Stale("s".into()),
        Owner::Foreign("f".into()),
    ];
    for owner in owners {
        all.push(there(facts(), owner.clone()));
        all.push(there(
            TopicFacts {
                id: Uuid::from_u128(8),
                configs: BTreeMap::new(),
                ..facts()
            },
            owner,
        ));
    }
    all
}
