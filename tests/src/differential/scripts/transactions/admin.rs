//! What administrators ask about transactions: DescribeTransactions, ListTransactions, WriteTxnMarkers.

use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest,
    ListTransactionsResponse, WriteTxnMarkersRequest,
};

use super::super::super::batches::{self, By};
use super::super::super::case::Script;
use super::super::super::normal::CHOSEN_PRODUCER_ID;
use super::super::{named, produced};
use super::{added, ended};
use crate::wire::text;

pub(super) fn run(script: &mut Script) {
    describe_transactions(script);
    list_transactions(script);
    write_txn_markers(script);
}

fn describe_transactions(script: &mut Script) {
    script.each::<DescribeTransactionsRequest>("describe transactions", |case| {
        let version = case.version;
        let topic = case.topic("orders", 2, &[]);
        let describe = |names: &[&str]| {
            let names = names.iter().map(|name| text(name).into()).collect();
            DescribeTransactionsRequest::default().with_transactional_ids(names)
        };
        let sort = |answer: &mut DescribeTransactionsResponse| {
            answer
                .transaction_states
                .sort_by_key(|state| state.transactional_id.to_string());
            for state in &mut answer.transaction_states {
                for topic in &mut state.topics {
                    topic.partitions.sort_unstable();
                }
            }
        };
        let transaction = case.transactional("tx");
        let name = transaction.0.clone();
        case.call("nothing begun", &describe(&[&name]));
        added(case, &transaction, &topic, &[0, 1]);
        case.edited("open", version, &describe(&[&name]), sort);
        ended(case, &transaction, true);
        case.until(
            "the markers are written",
            version,
            &describe(&[&name]),
            |answer| {
                answer.transaction_states[0]
                    .transaction_state
                    .starts_with("Complete")
            },
        );
        case.call("committed", &describe(&[&name]));
        added(case, &transaction, &topic, &[0]);
        ended(case, &transaction, false);
        case.until(
            "the markers are written",
            version,
            &describe(&[&name]),
            |answer| {
                answer.transaction_states[0]
                    .transaction_state
                    .starts_with("CompleteAbort")
            },
        );
        case.call("aborted", &describe(&[&name]));
        let nobody = case.name("nobody");
        case.call("unknown", &describe(&[&nobody]));
        case.call("no name", &describe(&[""]));
        case.call("none", &describe(&[]));
        case.edited(
            "two, one of them unknown",
            version,
            &describe(&[&name, &nobody]),
            sort,
        );
    });
}

fn list_transactions(script: &mut Script) {
    script.each::<ListTransactionsRequest>("list transactions", |case| {
        let version = case.version;
        let own = case.name("");
        let edit = |answer: &mut ListTransactionsResponse| {
            answer
                .transaction_states
                .retain(|state| state.transactional_id.ends_with(&*own));
            answer
                .transaction_states
                .sort_by_key(|state| state.transactional_id.to_string());
        };
        let topic = case.topic("orders", 1, &[]);
        let empty = case.transactional("empty");
        let open = case.transactional("open");
        added(case, &open, &topic, &[0]);
        let all = ListTransactionsRequest::default();
        let all = if version >= 1 {
            all.with_duration_filter(-1)
        } else {
            all
        };
        case.edited("all", version, &all, edit);
        for states in [
            &["Ongoing"][..],
            &["Empty", "Ongoing"],
            &["ongoing"],
            &["CompleteCommit"],
            &["Burning"],
            &["Empty", "Burning"],
        ] {
            let states_asked = states.iter().map(|state| text(state)).collect();
            let request = all.clone().with_state_filters(states_asked);
            case.edited(&format!("states {states:?}"), version, &request, edit);
        }
        let by_id = all.clone().with_producer_id_filters(vec![empty.1.into()]);
        case.edited("by the id of its producer", version, &by_id, edit);
        let nobody = all
            .clone()
            .with_producer_id_filters(vec![CHOSEN_PRODUCER_ID.into()]);
        case.edited("by the id of nobody", version, &nobody, edit);
        if version >= 1 {
            case.edited(
                "longer than an hour",
                version,
                &all.clone().with_duration_filter(3_600_000),
                edit,
            );
        }
        ended(case, &open, false);
    });
}

fn write_txn_markers(script: &mut Script) {
    script.each::<WriteTxnMarkersRequest>("write markers", |case| {
        let topic = case.topic("orders", 1, &super::super::data::produce::KEPT);
        let marker =
            |id: i64, epoch, coordinator_epoch, commit, topic: &str, partitions: &[i32]| {
                let topic = WritableTxnMarkerTopic::default()
                    .with_name(named(topic))
                    .with_partition_indexes(partitions.to_vec());
                let marker = WritableTxnMarker::default()
                    .with_producer_id(id.into())
                    .with_producer_epoch(epoch)
                    .with_transaction_result(commit)
                    .with_topics(vec![topic])
                    .with_coordinator_epoch(coordinator_epoch);
                WriteTxnMarkersRequest::default().with_markers(vec![marker])
            };
        let id = CHOSEN_PRODUCER_ID;
        produced(
            case,
            &topic,
            batches::by(
                By {
                    id,
                    epoch: 3,
                    sequence: 0,
                    transactional: false,
                },
                &["a"],
            ),
        );
        case.call("an older epoch", &marker(id, 2, 0, false, &topic, &[0]));
        case.call("its own epoch", &marker(id, 3, 0, false, &topic, &[0]));
        case.call("the same again", &marker(id, 3, 0, false, &topic, &[0]));
        case.call("a later epoch", &marker(id, 4, 7, true, &topic, &[0]));
        case.call(
            "an older coordinator",
            &marker(id, 5, 6, true, &topic, &[0]),
        );
        case.call("of nobody", &marker(id + 1, 0, 0, true, &topic, &[0]));
        case.call("unknown partition", &marker(id, 5, 7, true, &topic, &[1]));
        case.call(
            "unknown topic",
            &marker(id, 5, 7, true, &case.name("nobody"), &[0]),
        );
        case.call("no partition", &marker(id, 5, 7, true, &topic, &[]));
        case.call("none", &WriteTxnMarkersRequest::default());
        let records = case.fetched(&topic);
        case.found("the log", records);
    });
}
