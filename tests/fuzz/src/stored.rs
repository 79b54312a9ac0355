//! The target for what groups, transactions and metadata keep in their topics, in Kafka's record formats and our own.
//!
//! Owns what must hold of whatever decodes: it encodes, and decodes to the same again.

use std::fmt::Debug;

use bytes::Bytes;
use keelson_state::codec::CodecError;
use keelson_state::metadata::Record;
use keelson_state::offsets::{GroupValue, Key, MemberValue, OffsetValue};
use keelson_state::transactions::{TransactionState, TransactionValue, decode_key, encode_key};

use crate::memory::most_held;

/// What decoding may hold for each byte of a record: most of what is decoded has a name of its own on the heap.
const FACTOR: usize = 64;
const BESIDE_BYTES: usize = 4 * 1024;

/// The kind in the first byte, then a key or a value.
pub(crate) fn record(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 6 {
        0 => check(bytes, Key::decode, Key::encode),
        1 => check(bytes, OffsetValue::decode, OffsetValue::encode),
        2 => check(bytes, GroupValue::decode, GroupValue::encode),
        3 => check(bytes, decode_key, |id| encode_key(id)),
        4 => check(bytes, TransactionValue::decode, TransactionValue::encode),
        _ => check(bytes, Record::decode, Record::encode),
    }
}

fn check<T: Debug + PartialEq>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, CodecError>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    let (decoded, held) = most_held(|| decode(bytes));
    assert!(
        held <= FACTOR * bytes.len() + BESIDE_BYTES,
        "{held} bytes held for {}",
        bytes.len()
    );
    if let Ok(value) = decoded {
        let again = decode(&encode(&value)).expect("what decodes encodes");
        assert_eq!(again, value);
    }
}

fn key() -> Vec<u8> {
    Key::Offset {
        group: "group".to_owned(),
        topic: "orders".to_owned(),
        partition: 3,
    }
    .encode()
}

fn offset(expire_ms: i64) -> Vec<u8> {
    OffsetValue {
        offset: 7,
        leader_epoch: if expire_ms == -1 { 2 } else { -1 },
        metadata: "note".to_owned(),
        commit_ms: 1_000,
        expire_ms,
    }
    .encode()
}

fn group() -> Vec<u8> {
    let member = MemberValue {
        member_id: "member".to_owned(),
        instance_id: Some("instance".to_owned()),
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        rebalance_timeout_ms: 300_000,
        session_timeout_ms: 45_000,
        subscription: Bytes::from_static(b"subscription"),
        assignment: Bytes::from_static(b"assignment"),
    };
    GroupValue {
        protocol_type: "consumer".to_owned(),
        generation: 4,
        protocol: Some("range".to_owned()),
        leader: Some("member".to_owned()),
        state_since_ms: 1_000,
        members: vec![member],
    }
    .encode()
}

fn transaction() -> Vec<u8> {
    TransactionValue {
        producer_id: 5,
        previous_producer_id: -1,
        next_producer_id: -1,
        epoch: 3,
        timeout_ms: 60_000,
        state: TransactionState::Ongoing,
        partitions: [("orders".into(), 0), ("orders".into(), 1)].into(),
        updated_ms: 1_000,
        start_ms: 900,
        client_version: 2,
    }
    .encode()
}

fn metadata() -> [Record; 7] {
    let (id, broker_id) = (*b"metadata records", 1);
    let (key, value) = ("retention.ms".to_owned(), "1000".to_owned());
    [
        Record::BrokerStarted {
            broker_id,
            epoch: 2,
        },
        Record::TopicCreated {
            id,
            name: "orders".to_owned(),
            partitions: 3,
            broker_epoch: 2,
            configs: vec![(key.clone(), value.clone())],
        },
        Record::TopicRemoved { id },
        Record::PartitionsGrown { id, partitions: 5 },
        Record::ConfigChanged {
            id,
            key: key.clone(),
            value: Some(value.clone()),
        },
        Record::ProducerIds {
            broker_id,
            next_producer_id: 1_000,
        },
        Record::BrokerConfigChanged {
            broker_id,
            key,
            value: Some(value),
        },
    ]
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let group_key = Key::Group {
        group: "group".to_owned(),
    };
    let kinds = [
        (0, key()),
        (0, group_key.encode()),
        (1, offset(-1)),
        (1, offset(2_000)),
        (2, group()),
        (3, encode_key("id")),
        (4, transaction()),
    ];
    let records = metadata().into_iter().map(|record| (5, record.encode()));
    kinds
        .into_iter()
        .chain(records)
        .map(|(kind, bytes)| [&[kind], &bytes[..]].concat())
        .collect()
}
