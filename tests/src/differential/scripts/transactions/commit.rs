//! Offsets in a transaction: AddOffsetsToTxn and TxnOffsetCommit.

use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, OffsetFetchRequest, TxnOffsetCommitRequest,
};

use super::super::super::case::Script;
use super::super::super::normal::CHOSEN_PRODUCER_ID;
use super::super::groups::{Member, group_id, stable};
use super::{Transaction, add_offsets, added_offsets, ended, txn_commit};
use crate::wire::text;

pub(super) fn run(script: &mut Script) {
    add_offsets_to_txn(script);
    txn_offset_commit(script);
    txn_offset_commit_kept(script);
    txn_offset_commit_as_member(script);
}

fn add_offsets_to_txn(script: &mut Script) {
    script.each::<AddOffsetsToTxnRequest>("add offsets", |case| {
        let group = case.group("g");
        let transaction = case.transactional("tx");
        let (name, id, epoch) = transaction.clone();
        case.call("a group", &add_offsets(&transaction, &group));
        case.call("again", &add_offsets(&transaction, &group));
        case.call("no group", &add_offsets(&transaction, ""));
        case.call(
            "a later epoch",
            &add_offsets(&(name.clone(), id, epoch + 1), &group),
        );
        case.call(
            "an earlier epoch",
            &add_offsets(&(name.clone(), id, epoch - 1), &group),
        );
        case.call(
            "another's id",
            &add_offsets(&(name, CHOSEN_PRODUCER_ID, epoch), &group),
        );
        let nobody = (case.name("nobody"), CHOSEN_PRODUCER_ID, 0);
        case.call("unknown transaction", &add_offsets(&nobody, &group));
        case.call(
            "no transactional id",
            &add_offsets(&(String::new(), id, epoch), &group),
        );
        ended(case, &transaction, false);
    });
}

fn txn_offset_commit(script: &mut Script) {
    script.each::<TxnOffsetCommitRequest>("commit offsets in a transaction", |case| {
        let version = case.version;
        let topic = case.topic("orders", 2, &[]);
        let group = case.group("g");
        let transaction = case.transactional("tx");
        let (name, id, epoch) = transaction.clone();
        let commit = |transaction: &Transaction, offsets: &[(i32, i64)]| {
            txn_commit(version, transaction, &group, &topic, offsets)
        };
        case.call(
            "before the group was added",
            &commit(&transaction, &[(0, 3)]),
        );
        added_offsets(case, &transaction, &group);
        case.call("an offset", &commit(&transaction, &[(0, 5), (1, 6)]));
        case.call("unknown partition", &commit(&transaction, &[(2, 5)]));
        let mixed = commit(&transaction, &[(0, 5), (2, 5)]);
        case.edited(
            "one that is there, one that is not",
            version,
            &mixed,
            |answer| {
                answer.topics[0]
                    .partitions
                    .sort_by_key(|partition| partition.partition_index);
            },
        );
        let nobody = case.name("nobody");
        case.call(
            "unknown topic",
            &txn_commit(version, &transaction, &group, &nobody, &[(0, 5)]),
        );
        case.call("no partition", &commit(&transaction, &[]));
        case.call("no topic", &commit(&transaction, &[]).with_topics(vec![]));
        case.call(
            "no group",
            &txn_commit(version, &transaction, "", &topic, &[(0, 5)]),
        );
        let mut long = commit(&transaction, &[(0, 5)]);
        long.topics[0].partitions[0].committed_metadata = Some(text(&"x".repeat(4097)));
        case.call("a long note", &long);
        case.call("a negative offset", &commit(&transaction, &[(0, -1)]));
        case.call(
            "an earlier epoch",
            &commit(&(name.clone(), id, epoch - 1), &[(0, 5)]),
        );
        if version < 5 {
            // From version 5 on these depend on what the transaction's coordinator is asked.
            case.call(
                "a later epoch",
                &commit(&(name.clone(), id, epoch + 1), &[(0, 5)]),
            );
            case.call(
                "no transactional id",
                &commit(&(String::new(), id, epoch), &[(0, 5)]),
            );
        }
        case.call(
            "another's id",
            &commit(&(name, CHOSEN_PRODUCER_ID, epoch), &[(0, 5)]),
        );
    });
}

fn txn_offset_commit_kept(script: &mut Script) {
    script.each::<TxnOffsetCommitRequest>("what a transaction commits", |case| {
        let version = case.version;
        let topic = case.topic("orders", 2, &[]);
        let group = case.group("g");
        let transaction = case.transactional("tx");
        added_offsets(case, &transaction, &group);
        case.call(
            "offsets",
            &txn_commit(version, &transaction, &group, &topic, &[(0, 5), (1, 6)]),
        );
        let fetch = OffsetFetchRequest::default()
            .with_group_id(group_id(&group))
            .with_topics(None)
            .with_require_stable(true);
        let sort = |answer: &mut kafka_protocol::messages::OffsetFetchResponse| {
            for topic in &mut answer.topics {
                topic
                    .partitions
                    .sort_by_key(|partition| partition.partition_index);
            }
        };
        case.edited("while it is open", 7, &fetch, sort);
        ended(case, &transaction, true);
        case.until("the offsets are stable", 7, &fetch, |answer| {
            let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
            let mut stable = partitions
                .map(|partition| partition.error_code == 0)
                .peekable();
            stable.peek().is_some() && stable.all(|stable| stable)
        });
        case.edited("after its end", 7, &fetch, sort);
    });
}

fn txn_offset_commit_as_member(script: &mut Script) {
    let spec = keelson_protocol::api::spec(28).expect("TxnOffsetCommit is served");
    script.each_of(
        "commit offsets in a transaction as a member",
        spec,
        3..=spec.max,
        |case| {
            let version = case.version;
            let topic = case.topic("orders", 1, &[]);
            let group = case.group("g");
            let transaction = case.transactional("tx");
            added_offsets(case, &transaction, &group);
            let by = |member: &Member| {
                txn_commit(version, &transaction, &member.group, &topic, &[(0, 5)])
                    .with_generation_id(member.generation)
                    .with_member_id(text(&member.id))
            };
            let nobody = Member {
                group: group.clone(),
                id: "nobody".to_owned(),
                generation: 1,
            };
            case.call("unknown group", &by(&nobody));
            let member = stable(case, &group);
            case.call("a member", &by(&member));
            case.call("unknown member", &by(&nobody));
            for generation in [0, 2] {
                let stale = Member {
                    generation,
                    ..member.clone()
                };
                case.call(&format!("generation {generation}"), &by(&stale));
            }
            case.call(
                "a member without a generation",
                &by(&Member {
                    generation: -1,
                    ..member.clone()
                }),
            );
            case.call(
                "no member",
                &by(&Member {
                    id: String::new(),
                    generation: -1,
                    ..member.clone()
                }),
            );
            let instance = by(&member).with_group_instance_id(Some(text("one")));
            case.call("unknown instance", &instance);
            ended(case, &transaction, false);
        },
    );
}
