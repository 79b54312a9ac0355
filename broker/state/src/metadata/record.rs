//! The records of `__cluster_metadata` and their bytes. It never judges whether a record is lawful.
//!
//! A record is the value of one Kafka record (no key); batches carry the checksum. Big endian:
//!
//! ```text
//! type u8 | version u8 | body
//!
//! 1 BrokerStarted v0     broker id i32 | epoch i64
//! 2 TopicCreated v0      id 16 B | name str | partitions i32 | broker epoch i64 | configs i32 × (key str, value str)
//! 3 TopicRemoved v0      id 16 B
//! 4 PartitionsGrown v0   id 16 B | partitions i32
//! 5 ConfigChanged v0     id 16 B | key str | value str or null
//! 6 ProducerIds v0       broker id i32 | next producer id i64
//! 7 BrokerConfigChanged v0  broker id i32, -1 for all brokers | key str | value str or null
//!
//! str = length i16 + UTF-8; a null has length -1
//! ```
//!
//! A type or version that this build does not know is refused: it was written by a newer one.

use bytes::BufMut;

use super::name::TopicUuid;
use crate::codec::{CodecError, Reader, put_len32, put_opt_string, put_string};

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A broker started; the epoch is one more than that of any start before.
    BrokerStarted {
        /// The broker.
        broker_id: i32,
        /// The number of this start.
        epoch: i64,
    },
    /// A topic came to be.
    TopicCreated {
        /// Its id.
        id: TopicUuid,
        /// Its name.
        name: String,
        /// Its partitions, numbered from 0.
        partitions: i32,
        /// The broker epoch it was created in; its partitions have leader epoch 0 there.
        broker_epoch: i64,
        /// Configs set on it.
        configs: Vec<(String, String)>,
    },
    /// A topic is gone, with its partitions.
    TopicRemoved {
        /// Its id.
        id: TopicUuid,
    },
    /// A topic has more partitions.
    PartitionsGrown {
        /// Its id.
        id: TopicUuid,
        /// Partitions in all.
        partitions: i32,
    },
    /// A config was set, or removed.
    ConfigChanged {
        /// The topic.
        id: TopicUuid,
        /// The key.
        key: String,
        /// The value; none removes it.
        value: Option<String>,
    },
    /// All producer ids below this one may be in use.
    ProducerIds {
        /// The broker that took the block.
        broker_id: i32,
        /// The first id that nobody has.
        next_producer_id: i64,
    },
    /// A config of a broker was set through the API, or removed.
    BrokerConfigChanged {
        /// The broker; [`ALL_BROKERS`] for what counts where a broker has none of its own.
        broker_id: i32,
        /// The key.
        key: String,
        /// The value; none removes it.
        value: Option<String>,
    },
}

/// Stands for no broker in particular: what is set for it counts for all.
pub const ALL_BROKERS: i32 = -1;

const VERSION: u8 = 0;
const HIGHEST_KIND: u8 = 7;
/// Two empty strings.
const CONFIG_BYTES_MIN: usize = 4;

impl Record {
    fn kind(&self) -> u8 {
        match self {
            Record::BrokerStarted { .. } => 1,
            Record::TopicCreated { .. } => 2,
            Record::TopicRemoved { .. } => 3,
            Record::PartitionsGrown { .. } => 4,
            Record::ConfigChanged { .. } => 5,
            Record::ProducerIds { .. } => 6,
            Record::BrokerConfigChanged { .. } => HIGHEST_KIND,
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.kind(), VERSION];
        match self {
            Record::BrokerStarted { broker_id, epoch } => {
                out.put_i32(*broker_id);
                out.put_i64(*epoch);
            }
            Record::TopicCreated {
                id,
                name,
                partitions,
                broker_epoch,
                configs,
            } => {
                out.put_slice(id);
                put_string(&mut out, name);
                out.put_i32(*partitions);
                out.put_i64(*broker_epoch);
                put_len32(&mut out, configs.len());
                for (key, value) in configs {
                    put_string(&mut out, key);
                    put_string(&mut out, value);
                }
            }
            Record::TopicRemoved { id } => out.put_slice(id),
            Record::PartitionsGrown { id, partitions } => {
                out.put_slice(id);
                out.put_i32(*partitions);
            }
            Record::ConfigChanged { id, key, value } => {
                out.put_slice(id);
                put_string(&mut out, key);
                put_opt_string(&mut out, value.as_deref());
            }
            Record::ProducerIds {
                broker_id,
                next_producer_id,
            } => {
                out.put_i32(*broker_id);
                out.put_i64(*next_producer_id);
            }
            Record::BrokerConfigChanged {
                broker_id,
                key,
                value,
            } => {
                out.put_i32(*broker_id);
                put_string(&mut out, key);
                put_opt_string(&mut out, value.as_deref());
            }
        }
        out
    }

    /// Reads one record.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8("type")?;
        let version = reader.u8("version")?;
        if version > VERSION && (1..=HIGHEST_KIND).contains(&kind) {
            let what = "metadata record of a newer Keelson";
            return Err(CodecError::Version {
                what,
                version: version.into(),
                highest: VERSION.into(),
            });
        }
        let record = match kind {
            1 => Record::BrokerStarted {
                broker_id: reader.i32("broker id")?,
                epoch: reader.i64("epoch")?,
            },
            2 => decode_topic(&mut reader)?,
            3 => Record::TopicRemoved {
                id: reader.uuid("topic id")?,
            },
            4 => Record::PartitionsGrown {
                id: reader.uuid("topic id")?,
                partitions: reader.i32("partitions")?,
            },
            5 => Record::ConfigChanged {
                id: reader.uuid("topic id")?,
                key: reader.string("key")?,
                value: reader.opt_string("value")?,
            },
            6 => Record::ProducerIds {
                broker_id: reader.i32("broker id")?,
                next_producer_id: reader.i64("next producer id")?,
            },
            HIGHEST_KIND => Record::BrokerConfigChanged {
                broker_id: reader.i32("broker id")?,
                key: reader.string("key")?,
                value: reader.opt_string("value")?,
            },
            kind => {
                let what = "metadata record of a newer Keelson";
                return Err(CodecError::Kind {
                    what,
                    kind: kind.into(),
                });
            }
        };
        reader.finish("metadata record")?;
        Ok(record)
    }
}

fn decode_topic(reader: &mut Reader<'_>) -> Result<Record, CodecError> {
    let id = reader.uuid("topic id")?;
    let name = reader.string("name")?;
    let partitions = reader.i32("partitions")?;
    let broker_epoch = reader.i64("broker epoch")?;
    let count = reader.count("configs", CONFIG_BYTES_MIN)?;
    let mut configs = Vec::with_capacity(count);
    for _ in 0..count {
        configs.push((reader.string("key")?, reader.string("value")?));
    }
    Ok(Record::TopicCreated {
        id,
        name,
        partitions,
        broker_epoch,
        configs,
    })
}
