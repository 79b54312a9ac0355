//! Kafka's own binary formats of `__transaction_state`: the key and the value of a transactional id, as bytes in and out.
//!
//! It owns the layouts (both versions of the value are read; written is the one that says all) and the partition of a
//! transactional id. It never judges what a record means.
//!
//! ```text
//! key   v0  version i16 | transactional id str
//! value v0  version i16 | producer id i64 | epoch i16 | timeout ms i32 | state i8 | partitions i32? × (topic str |
//!           i32 × partition i32) | last update ms i64 | start ms i64
//!       v1  the same with compact lengths, tagged fields behind each topic and at the end:
//!           0 previous producer id i64 (-1) | 1 next producer id i64 (-1) | 2 transaction version of the client i16 (0)
//! str = length i16 + UTF-8; v1: unsigned varint of length + 1; the list of partitions may be null
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::BufMut;

use super::types::TopicPartition;
use crate::codec::{CodecError, Reader, put_compact_length, put_string, put_varint};

/// `transaction.state.log.num.partitions` unless configured.
pub const PARTITIONS_DEFAULT: i32 = 50;

const VALUE_FLEXIBLE: i16 = 1;
const VALUE_HIGHEST: i16 = 1;
/// A topic without a name and partitions in version 1.
const TOPIC_BYTES_MIN: usize = 3;
const TAG_PREVIOUS_PRODUCER_ID: u32 = 0;
const TAG_NEXT_PRODUCER_ID: u32 = 1;
const TAG_CLIENT_VERSION: u32 = 2;

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionState {
    /// There is none since the producer was initialised.
    Empty,
    /// Partitions were added.
    Ongoing,
    /// It will commit; its markers are on their way.
    PrepareCommit,
    /// It will abort; its markers are on their way.
    PrepareAbort,
    /// It was committed, and all its markers are written.
    CompleteCommit,
    /// It was aborted, and all its markers are written.
    CompleteAbort,
    /// The transactional id has expired.
    Dead,
    /// Its producer is being fenced.
    PrepareEpochFence,
}

impl TransactionState {
    const ALL: [TransactionState; 8] = [
        TransactionState::Empty,
        TransactionState::Ongoing,
        TransactionState::PrepareCommit,
        TransactionState::PrepareAbort,
        TransactionState::CompleteCommit,
        TransactionState::CompleteAbort,
        TransactionState::Dead,
        TransactionState::PrepareEpochFence,
    ];

    /// Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self {
            TransactionState::Empty => "Empty",
            TransactionState::Ongoing => "Ongoing",
            TransactionState::PrepareCommit => "PrepareCommit",
            TransactionState::PrepareAbort => "PrepareAbort",
            TransactionState::CompleteCommit => "CompleteCommit",
            TransactionState::CompleteAbort => "CompleteAbort",
            TransactionState::Dead => "Dead",
            TransactionState::PrepareEpochFence => "PrepareEpochFence",
        }
    }

    /// The state of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    fn id(self) -> i8 {
        match self {
            TransactionState::Empty => 0,
            TransactionState::Ongoing => 1,
            TransactionState::PrepareCommit => 2,
            TransactionState::PrepareAbort => 3,
            TransactionState::CompleteCommit => 4,
            TransactionState::CompleteAbort => 5,
            TransactionState::Dead => 6,
            TransactionState::PrepareEpochFence => 7,
        }
    }

    fn of_id(id: u8) -> Result<Self, CodecError> {
        let found = Self::ALL
            .into_iter()
            .find(|state| state.id() == id.cast_signed());
        found.ok_or(CodecError::Kind {
            what: "transaction state",
            kind: id.into(),
        })
    }
}

/// The bytes of a key.
pub fn encode_key(transactional_id: &str) -> Vec<u8> {
    let mut out = vec![0, 0];
    put_string(&mut out, transactional_id);
    out
}

/// The transactional id of a key.
pub fn decode_key(bytes: &[u8]) -> Result<String, CodecError> {
    let what = "key of __transaction_state";
    let mut reader = Reader::new(bytes);
    version(&mut reader, what, 0)?;
    let id = reader.string("transactional id")?;
    reader.finish(what)?;
    Ok(id)
}

fn version(reader: &mut Reader<'_>, what: &'static str, highest: i16) -> Result<i16, CodecError> {
    let version = reader.i16("version")?;
    if !(0..=highest).contains(&version) {
        return Err(CodecError::Version {
            what,
            version: version.into(),
            highest: highest.into(),
        });
    }
    Ok(version)
}

/// What is known of a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionValue {
    /// Its producer id.
    pub producer_id: i64,
    /// The one before; −1 is none.
    pub previous_producer_id: i64,
    /// The one that the producer goes on with once the transaction is complete; −1 is none.
    pub next_producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// How long a transaction may take.
    pub timeout_ms: i32,
    /// Where its transaction stands.
    pub state: TransactionState,
    /// The partitions in its transaction.
    pub partitions: BTreeSet<TopicPartition>,
    /// When this last changed.
    pub updated_ms: i64,
    /// When the transaction began; −1 is not yet.
    pub start_ms: i64,
    /// The transaction version that the client ended it with: 2, or 0 for all before.
    pub client_version: i16,
}

impl TransactionValue {
    /// Its bytes: version 1.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_i16(VALUE_FLEXIBLE);
        out.put_i64(self.producer_id);
        out.put_i16(self.epoch);
        out.put_i32(self.timeout_ms);
        out.put_i8(self.state.id());
        let by_topic = self.by_topic();
        put_compact_length(&mut out, by_topic.len());
        for (topic, partitions) in by_topic {
            put_compact_length(&mut out, topic.len());
            out.put_slice(topic.as_bytes());
            put_compact_length(&mut out, partitions.len());
            for partition in partitions {
                out.put_i32(partition);
            }
            put_varint(&mut out, 0);
        }
        out.put_i64(self.updated_ms);
        out.put_i64(self.start_ms);
        self.put_tags(&mut out);
        out
    }

    /// Fields with their defaults are left out, as Kafka does.
    fn put_tags(&self, out: &mut Vec<u8>) {
        let ids = [
            (TAG_PREVIOUS_PRODUCER_ID, self.previous_producer_id),
            (TAG_NEXT_PRODUCER_ID, self.next_producer_id),
        ];
        let ids: Vec<(u32, i64)> = ids.into_iter().filter(|(_, id)| *id != -1).collect();
        let versioned = u32::from(self.client_version != 0);
        put_varint(out, ids.len() as u32 + versioned);
        for (tag, id) in ids {
            put_varint(out, tag);
            put_varint(out, 8);
            out.put_i64(id);
        }
        if versioned > 0 {
            put_varint(out, TAG_CLIENT_VERSION);
            put_varint(out, 2);
            out.put_i16(self.client_version);
        }
    }

    /// The bytes of version 0, which leaves out the tagged fields.
    #[cfg(test)]
    pub(super) fn encode_v0(&self) -> Vec<u8> {
        let mut out = vec![0, 0];
        out.put_i64(self.producer_id);
        out.put_i16(self.epoch);
        out.put_i32(self.timeout_ms);
        out.put_i8(self.state.id());
        let by_topic = self.by_topic();
        crate::codec::put_len32(&mut out, by_topic.len());
        for (topic, partitions) in by_topic {
            put_string(&mut out, topic);
            crate::codec::put_len32(&mut out, partitions.len());
            for partition in partitions {
                out.put_i32(partition);
            }
        }
        out.put_i64(self.updated_ms);
        out.put_i64(self.start_ms);
        out
    }

    fn by_topic(&self) -> BTreeMap<&str, Vec<i32>> {
        let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &self.partitions {
            by_topic.entry(topic).or_default().push(*partition);
        }
        by_topic
    }

    /// Reads any version.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let version = version(&mut reader, "value of __transaction_state", VALUE_HIGHEST)?;
        let mut value = TransactionValue {
            producer_id: reader.i64("producer id")?,
            previous_producer_id: -1,
            next_producer_id: -1,
            epoch: reader.i16("producer epoch")?,
            timeout_ms: reader.i32("timeout")?,
            state: TransactionState::of_id(reader.u8("state")?)?,
            partitions: decode_partitions(&mut reader, version)?,
            updated_ms: reader.i64("last update")?,
            start_ms: reader.i64("start")?,
            client_version: 0,
        };
        if version >= VALUE_FLEXIBLE {
            value.take_tags(&mut reader)?;
        }
        reader.finish("value of __transaction_state")?;
        Ok(value)
    }

    fn take_tags(&mut self, reader: &mut Reader<'_>) -> Result<(), CodecError> {
        for _ in 0..reader.varint("tagged fields")? {
            let tag = reader.varint("tag")?;
            let length = reader.varint("tag length")?;
            let mut field = Reader::new(reader.take("tagged field", length as usize)?);
            match tag {
                TAG_PREVIOUS_PRODUCER_ID => {
                    self.previous_producer_id = field.i64("previous producer id")?;
                }
                TAG_NEXT_PRODUCER_ID => self.next_producer_id = field.i64("next producer id")?,
                TAG_CLIENT_VERSION => self.client_version = field.i16("transaction version")?,
                // Of a later Kafka: tagged fields may be passed over.
                _ => continue,
            }
            field.finish("tagged field")?;
        }
        Ok(())
    }
}

fn decode_partitions(
    reader: &mut Reader<'_>,
    version: i16,
) -> Result<BTreeSet<TopicPartition>, CodecError> {
    let mut partitions = BTreeSet::new();
    for _ in 0..count(reader, version, "topics", TOPIC_BYTES_MIN)? {
        let topic: std::sync::Arc<str> = if version >= VALUE_FLEXIBLE {
            let field = "topic";
            let length = reader.compact_length(field)?.unwrap_or(0);
            let bytes = reader.take(field, length)?;
            let text = std::str::from_utf8(bytes).map_err(|_| CodecError::Utf8 { field })?;
            text.into()
        } else {
            reader.string("topic")?.into()
        };
        for _ in 0..count(reader, version, "partitions", size_of::<i32>())? {
            partitions.insert((topic.clone(), reader.i32("partition")?));
        }
        if version >= VALUE_FLEXIBLE {
            for _ in 0..reader.varint("tagged fields")? {
                reader.varint("tag")?;
                let length = reader.varint("tag length")?;
                reader.take("tagged field", length as usize)?;
            }
        }
    }
    Ok(partitions)
}

/// A count whose elements the rest can hold; null is none.
fn count(
    reader: &mut Reader<'_>,
    version: i16,
    field: &'static str,
    each_min: usize,
) -> Result<usize, CodecError> {
    let count = if version >= VALUE_FLEXIBLE {
        reader.compact_length(field)?.unwrap_or(0)
    } else {
        match reader.i32(field)? {
            -1 => 0,
            count => usize::try_from(count).map_err(|_| CodecError::Length {
                field,
                length: count.into(),
            })?,
        }
    };
    if count.saturating_mul(each_min) > reader.left() {
        return Err(CodecError::Length {
            field,
            length: count as i64,
        });
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value() -> TransactionValue {
        TransactionValue {
            producer_id: 7,
            previous_producer_id: 6,
            next_producer_id: 9,
            epoch: 2,
            timeout_ms: 60_000,
            state: TransactionState::PrepareCommit,
            partitions: [("b".into(), 1), ("a".into(), 3), ("a".into(), 0)].into(),
            updated_ms: 12,
            start_ms: 11,
            client_version: 2,
        }
    }

    #[test]
    fn keys_are_golden() {
        assert_eq!(encode_key("tx"), b"\0\0\0\x02tx");
        assert_eq!(decode_key(b"\0\0\0\x02tx"), Ok("tx".to_owned()));
        assert!(decode_key(b"\0\x01\0\x02tx").is_err());
        assert!(decode_key(b"\0\0\0\x02txx").is_err());
    }

    #[test]
    fn values_are_golden_in_every_version() {
        let v1 = b"\0\x01\0\0\0\0\0\0\0\x07\0\x02\0\0\xea\x60\x02\x03\
            \x02a\x03\0\0\0\0\0\0\0\x03\0\x02b\x02\0\0\0\x01\0\
            \0\0\0\0\0\0\0\x0c\0\0\0\0\0\0\0\x0b\x03\
            \0\x08\0\0\0\0\0\0\0\x06\x01\x08\0\0\0\0\0\0\0\x09\x02\x02\0\x02";
        assert_eq!(value().encode(), v1);
        assert_eq!(TransactionValue::decode(v1), Ok(value()));
        for cut in 0..v1.len() {
            assert!(
                TransactionValue::decode(&v1[..cut]).is_err(),
                "cut at {cut}"
            );
        }
        let plain = TransactionValue {
            previous_producer_id: -1,
            next_producer_id: -1,
            client_version: 0,
            ..value()
        };
        let v0 = b"\0\0\0\0\0\0\0\0\0\x07\0\x02\0\0\xea\x60\x02\0\0\0\x02\
            \0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x03\0\x01b\0\0\0\x01\0\0\0\x01\
            \0\0\0\0\0\0\0\x0c\0\0\0\0\0\0\0\x0b";
        assert_eq!(plain.encode_v0(), v0);
        assert_eq!(TransactionValue::decode(v0), Ok(plain.clone()));
        assert_eq!(TransactionValue::decode(&plain.encode()), Ok(plain));
    }

    #[test]
    fn null_lists_and_unknown_tags_are_read() {
        let head = b"\0\0\0\0\0\0\0\x07\0\x02\0\0\xea\x60\0";
        let times = [0_u8; 16];
        let v0 = [b"\0\0", &head[..], b"\xff\xff\xff\xff", &times].concat();
        assert!(TransactionValue::decode(&v0).unwrap().partitions.is_empty());
        let v1 = [b"\0\x01", &head[..], b"\0", &times, b"\x01\x03\x02\0\x05"].concat();
        let read = TransactionValue::decode(&v1).unwrap();
        assert_eq!((read.epoch, read.state), (2, TransactionState::Empty));
        let many = [b"\0\x01", &head[..], b"\xff\xff\xff\xff\x0f"].concat();
        assert!(matches!(
            TransactionValue::decode(&many),
            Err(CodecError::Length {
                field: "topics",
                ..
            })
        ));
    }
}
