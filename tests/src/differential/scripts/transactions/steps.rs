//! A transaction's steps: InitProducerId, AddPartitionsToTxn, EndTxn.

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTransaction;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, InitProducerIdResponse,
};
use keelson_protocol::api;

use super::super::super::batches::{self, By};
use super::super::super::case::{Case, Script};
use super::super::super::normal::CHOSEN_PRODUCER_ID;
use super::super::{produced, produced_as};
use super::{CONCURRENT_TRANSACTIONS, Transaction, add_partitions, added, end, ended, txn_topic};
use crate::wire::text;

pub(super) fn run(script: &mut Script) {
    init_producer_id(script);
    init_producer_id_with_epoch(script);
    init_producer_id_while_open(script);
    add_partitions_to_txn(script);
    add_partitions_in_batches(script);
    end_txn(script);
}

fn init(version: i16, transactional_id: Option<&str>) -> InitProducerIdRequest {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(transactional_id.map(|id| text(id).into()))
        .with_transaction_timeout_ms(60_000);
    if version >= 3 {
        request
            .with_producer_id((-1).into())
            .with_producer_epoch(-1)
    } else {
        request
    }
}

/// A call that waits until the transaction before has ended.
#[track_caller]
fn init_patiently(
    case: &mut Case<'_>,
    step: &str,
    request: &InitProducerIdRequest,
) -> InitProducerIdResponse {
    case.patiently(step, case.version, request, |answer| {
        answer.error_code != CONCURRENT_TRANSACTIONS
    })
}

fn init_producer_id(script: &mut Script) {
    script.each::<InitProducerIdRequest>("init a producer", |case| {
        let version = case.version;
        case.call("without a transactional id", &init(version, None));
        case.call("an empty transactional id", &init(version, Some("")));
        for timeout in [0, -1, i32::MAX] {
            let name = case.name("timeout");
            let request = init(version, Some(&name)).with_transaction_timeout_ms(timeout);
            case.call(&format!("a timeout of {timeout} ms"), &request);
            let request = init(version, None).with_transaction_timeout_ms(timeout);
            case.call(
                &format!("a timeout of {timeout} ms, without a transactional id"),
                &request,
            );
        }
        let name = case.name("tx");
        init_patiently(case, "a transactional id", &init(version, Some(&name)));
        init_patiently(case, "the same again", &init(version, Some(&name)));
    });
}

fn init_producer_id_with_epoch(script: &mut Script) {
    let spec = api::spec(22).expect("InitProducerId is served");
    script.each_of(
        "init a producer with its epoch",
        spec,
        3..=spec.max,
        |case| {
            let version = case.version;
            let (name, id, epoch) = case.transactional("tx");
            let with = |id: i64, epoch| {
                init(version, Some(&name))
                    .with_producer_id(id.into())
                    .with_producer_epoch(epoch)
            };
            case.call("an id without an epoch", &with(id, -1));
            case.call("an epoch without an id", &with(-1, epoch));
            case.call("another's id", &with(CHOSEN_PRODUCER_ID, epoch));
            case.call("an epoch not yet given", &with(id, epoch + 5));
            init_patiently(case, "its own", &with(id, epoch));
            init_patiently(case, "its own, said again", &with(id, epoch));
            init_patiently(case, "the next", &with(id, epoch + 1));
            case.call("an old one", &with(id, epoch));
            let loose = init(version, None)
                .with_producer_id(id.into())
                .with_producer_epoch(0);
            case.call("without a transactional id", &loose);
            let unknown = case.name("unknown");
            let request = init(version, Some(&unknown))
                .with_producer_id(CHOSEN_PRODUCER_ID.into())
                .with_producer_epoch(3);
            init_patiently(case, "of nobody", &request);
        },
    );
}

fn init_producer_id_while_open(script: &mut Script) {
    script.each::<InitProducerIdRequest>("init a producer whose transaction is open", |case| {
        let topic = case.topic("orders", 1, &[]);
        let transaction = case.transactional("tx");
        added(case, &transaction, &topic, &[0]);
        let (name, id, epoch) = &transaction;
        let by = By {
            id: *id,
            epoch: *epoch,
            sequence: 0,
            transactional: true,
        };
        produced_as(case, Some(name), &topic, batches::by(by, &["a"]));
        let request = init(case.version, Some(name));
        init_patiently(case, "once it was aborted", &request);
        case.call_at("the old epoch ends it", 3, &end(&transaction, true));
        case.call_at(
            "the old epoch adds",
            3,
            &add_partitions(&transaction, &topic, &[0]),
        );
        case.call_at(
            "the old epoch ends it, version 1",
            1,
            &end(&transaction, true),
        );
        case.call_at(
            "the old epoch adds, version 1",
            1,
            &add_partitions(&transaction, &topic, &[0]),
        );
    });
}

/// A transaction that nobody began.
fn unknown(case: &Case<'_>) -> Transaction {
    (case.name("nobody"), CHOSEN_PRODUCER_ID, 0)
}

fn add_partitions_to_txn(script: &mut Script) {
    let spec = api::spec(24).expect("AddPartitionsToTxn is served");
    script.each_of("add partitions", spec, spec.min..=3, |case| {
        let topic = case.topic("orders", 2, &[]);
        let transaction = case.transactional("tx");
        let (name, id, epoch) = transaction.clone();
        let add = |topic: &str, partitions: &[i32]| add_partitions(&transaction, topic, partitions);
        case.call("two", &add(&topic, &[0, 1]));
        case.call("one again", &add(&topic, &[0]));
        case.call("unknown partition", &add(&topic, &[2]));
        let request = add(&topic, &[0, 2]);
        case.edited(
            "one that is there, one that is not",
            case.version,
            &request,
            |answer| {
                for topic in &mut answer.results_by_topic_v3_and_below {
                    topic
                        .results_by_partition
                        .sort_by_key(|partition| partition.partition_index);
                }
            },
        );
        case.call("unknown topic", &add(&case.name("nobody"), &[0]));
        case.call("no partition", &add(&topic, &[]));
        case.call(
            "no topic",
            &add(&topic, &[]).with_v3_and_below_topics(vec![]),
        );
        let by = |transaction: Transaction| add_partitions(&transaction, &topic, &[0]);
        case.call("a later epoch", &by((name.clone(), id, epoch + 1)));
        case.call("an earlier epoch", &by((name.clone(), id, epoch - 1)));
        case.call("another's id", &by((name, CHOSEN_PRODUCER_ID, epoch)));
        case.call("unknown transaction", &by(unknown(case)));
        case.call("no transactional id", &by((String::new(), id, epoch)));
        ended(case, &transaction, false);
    });
}

fn add_partitions_in_batches(script: &mut Script) {
    let spec = api::spec(24).expect("AddPartitionsToTxn is served");
    script.each_of("add partitions in batches", spec, 4..=spec.max, |case| {
        let topic = case.topic("orders", 2, &[]);
        let (one, two) = (case.transactional("one"), case.transactional("two"));
        let of = |(name, id, epoch): &Transaction, partitions: &[i32]| {
            AddPartitionsToTxnTransaction::default()
                .with_transactional_id(text(name).into())
                .with_producer_id((*id).into())
                .with_producer_epoch(*epoch)
                .with_topics(vec![txn_topic(&topic, partitions)])
        };
        let request =
            |transactions| AddPartitionsToTxnRequest::default().with_transactions(transactions);
        case.call(
            "only looked at",
            &request(vec![of(&one, &[0]).with_verify_only(true)]),
        );
        case.call("one", &request(vec![of(&one, &[0])]));
        case.call(
            "looked at again",
            &request(vec![of(&one, &[0]).with_verify_only(true)]),
        );
        case.call(
            "another looked at",
            &request(vec![of(&one, &[1]).with_verify_only(true)]),
        );
        let version = case.version;
        let both = request(vec![of(&one, &[1]), of(&two, &[0])]);
        let sort = |answer: &mut kafka_protocol::messages::AddPartitionsToTxnResponse| {
            answer
                .results_by_transaction
                .sort_by_key(|result| result.transactional_id.to_string());
            for result in &mut answer.results_by_transaction {
                for topic in &mut result.topic_results {
                    topic
                        .results_by_partition
                        .sort_by_key(|partition| partition.partition_index);
                }
            }
        };
        case.edited("two transactions", version, &both, sort);
        let mixed = request(vec![of(&one, &[0]), of(&unknown(case), &[0])]);
        case.edited("an unknown transaction", version, &mixed, sort);
        let unknown_partition = request(vec![of(&one, &[1, 7])]);
        case.edited("unknown partition", version, &unknown_partition, sort);
        case.call(
            "a later epoch",
            &request(vec![of(&(one.0.clone(), one.1, one.2 + 1), &[0])]),
        );
        let stale = of(&(one.0.clone(), one.1, one.2 + 1), &[0]).with_verify_only(true);
        case.call("a later epoch, only looked at", &request(vec![stale]));
        ended(case, &one, false);
        ended(case, &two, true);
    });
}

#[track_caller]
fn end_patiently(case: &mut Case<'_>, step: &str, request: &EndTxnRequest) -> i16 {
    let version = case.version;
    let answer = case.patiently(step, version, request, |answer| {
        answer.error_code != CONCURRENT_TRANSACTIONS
    });
    if version >= 5 && answer.error_code == 0 {
        answer.producer_epoch
    } else {
        request.producer_epoch
    }
}

fn end_txn(script: &mut Script) {
    script.each::<EndTxnRequest>("end a transaction", |case| {
        let topic = case.topic("orders", 1, &[]);
        for (kind, commit) in [("commit", true), ("abort", false)] {
            let mut transaction = case.transactional(kind);
            let (name, id, epoch) = transaction.clone();
            end_patiently(
                case,
                &format!("{kind} of nothing"),
                &end(&transaction, commit),
            );
            transaction = case.transactional(kind);
            added(case, &transaction, &topic, &[0]);
            end_patiently(
                case,
                &format!("{kind} with an old epoch"),
                &end(&(name.clone(), id, epoch), commit),
            );
            let later = (name.clone(), id, transaction.2 + 1);
            end_patiently(
                case,
                &format!("{kind} with a later epoch"),
                &end(&later, commit),
            );
            let others = (name.clone(), CHOSEN_PRODUCER_ID, transaction.2);
            end_patiently(
                case,
                &format!("{kind} with another's id"),
                &end(&others, commit),
            );
            let epoch = end_patiently(case, kind, &end(&transaction, commit));
            end_patiently(case, &format!("{kind} again"), &end(&transaction, commit));
            end_patiently(
                case,
                &format!("{kind}, then the opposite"),
                &end(&transaction, !commit),
            );
            let next = (name, id, epoch);
            end_patiently(case, &format!("{kind}, then nothing"), &end(&next, commit));
        }
        case.call("unknown transaction", &end(&unknown(case), true));
        case.call(
            "no transactional id",
            &end(&(String::new(), CHOSEN_PRODUCER_ID, 0), true),
        );
    });
    script.each::<EndTxnRequest>("what a transaction leaves", |case| {
        let topic = case.topic("orders", 1, &super::super::data::produce::KEPT);
        let transaction = case.transactional("tx");
        added(case, &transaction, &topic, &[0]);
        let (name, id, epoch) = &transaction;
        let by = By {
            id: *id,
            epoch: *epoch,
            sequence: 0,
            transactional: true,
        };
        produced_as(case, Some(name), &topic, batches::by(by, &["a"]));
        end_patiently(case, "its end", &end(&transaction, true));
        case.settled_offset(&topic, 0, 2);
        produced(case, &topic, batches::plain(&["after"]));
        let records = case.fetched(&topic);
        case.found("the log", records);
    });
}
