//! Kafka's own binary formats of `__consumer_offsets`: committed offsets and group metadata, as bytes in and out.
//!
//! It owns the layouts (all versions that Kafka 4 reads; written are key 1/2 and value 3) and the partition of a
//! group. It never judges what a record means.
//!
//! ```text
//! key    v0, v1  version i16 | group str | topic str | partition i32           an offset
//!        v2      version i16 | group str                                       a group
//! offset v0      version i16 | offset i64 | metadata str | commit ms i64
//!        v1      … | expire ms i64              v2  as v0
//!        v3      version i16 | offset i64 | leader epoch i32 | metadata str | commit ms i64
//!        v4      as v3, compact strings and tagged fields
//! group  v0..v4  version i16 | protocol type str | generation i32 | protocol str? | leader str? |
//!                v2+: state since ms i64 | members i32 × member
//! member         id str | v3+: instance str? | client id str | client host str | v1+: rebalance ms i32 |
//!                session ms i32 | subscription bytes | assignment bytes
//! str = length i16 + UTF-8, bytes = length i32 + bytes; v4: unsigned varint of length + 1; str? may be null
//! ```

use bytes::{BufMut, Bytes};

use crate::codec::{CodecError, Reader, put_bytes32, put_len32, put_opt_string, put_string};

/// `offsets.topic.num.partitions` unless configured.
pub const PARTITIONS_DEFAULT: i32 = 50;

const KEY_OFFSET_HIGHEST: i16 = 1;
const KEY_GROUP: i16 = 2;
const VALUE_WRITTEN: i16 = 3;
const VALUE_HIGHEST: i16 = 4;
const FLEXIBLE_FROM: i16 = 4;
/// A member of empty strings in version 0.
const MEMBER_BYTES_MIN: usize = 8;

/// The partition of a coordinator's topic that holds a group or a transactional id: Java's `String.hashCode` modulo the
/// partitions.
pub fn partition_of(id: &str, partitions: i32) -> i32 {
    let hash = id.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    (hash & i32::MAX) % partitions.max(1)
}

/// The key of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A committed offset.
    Offset {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// A group's metadata.
    Group {
        /// The group.
        group: String,
    },
}

impl Key {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Key::Offset {
                group,
                topic,
                partition,
            } => {
                out.put_i16(KEY_OFFSET_HIGHEST);
                put_string(&mut out, group);
                put_string(&mut out, topic);
                out.put_i32(*partition);
            }
            Key::Group { group } => {
                out.put_i16(KEY_GROUP);
                put_string(&mut out, group);
            }
        }
        out
    }

    /// Reads a key.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16("version")?;
        let key = match version {
            0..=KEY_OFFSET_HIGHEST => Key::Offset {
                group: reader.string("group")?,
                topic: reader.string("topic")?,
                partition: reader.i32("partition")?,
            },
            KEY_GROUP => Key::Group {
                group: reader.string("group")?,
            },
            _ => {
                let what = "key of __consumer_offsets";
                return Err(CodecError::Version {
                    what,
                    version: version.into(),
                    highest: KEY_GROUP.into(),
                });
            }
        };
        reader.finish("key of __consumer_offsets")?;
        Ok(key)
    }
}

/// The value of a committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetValue {
    /// The offset to read next.
    pub offset: i64,
    /// Leader epoch of the record before it; −1 is unknown.
    pub leader_epoch: i32,
    /// The client's own note.
    pub metadata: String,
    /// When it was committed.
    pub commit_ms: i64,
    /// When it expires, where the client said so (version 1); −1 is none.
    pub expire_ms: i64,
}

impl OffsetValue {
    /// Its bytes, version 3; version 1, as Kafka does, when it has an expiry of its own.
    pub fn encode(&self) -> Vec<u8> {
        let version = if self.expire_ms == -1 {
            VALUE_WRITTEN
        } else {
            1
        };
        let mut out = Vec::new();
        out.put_i16(version);
        out.put_i64(self.offset);
        if version >= 3 {
            out.put_i32(self.leader_epoch);
        }
        put_string(&mut out, &self.metadata);
        out.put_i64(self.commit_ms);
        if version == 1 {
            out.put_i64(self.expire_ms);
        }
        out
    }

    /// Reads any version.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let version = value_version(&mut reader, "committed offset")?;
        let offset = reader.i64("offset")?;
        let leader_epoch = if version >= 3 {
            reader.i32("leader epoch")?
        } else {
            -1
        };
        let metadata = text(&mut reader, "metadata", version)?.unwrap_or_default();
        let commit_ms = reader.i64("commit time")?;
        let expire_ms = if version == 1 {
            reader.i64("expiry")?
        } else {
            -1
        };
        skip_tags(&mut reader, version)?;
        reader.finish("committed offset")?;
        Ok(OffsetValue {
            offset,
            leader_epoch,
            metadata,
            commit_ms,
            expire_ms,
        })
    }
}

/// The value of a group's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupValue {
    /// "consumer", "connect", … ; empty for a group that has none.
    pub protocol_type: String,
    /// Its generation.
    pub generation: i32,
    /// The protocol chosen by votes.
    pub protocol: Option<String>,
    /// The member that assigns.
    pub leader: Option<String>,
    /// Since when it is in this state; −1 is unknown.
    pub state_since_ms: i64,
    /// Its members; none for an empty group.
    pub members: Vec<MemberValue>,
}

/// A member in a group's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberValue {
    /// The id that the coordinator gave.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// The client's name.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Rebalance timeout; −1 is unknown (version 0).
    pub rebalance_timeout_ms: i32,
    /// Session timeout.
    pub session_timeout_ms: i32,
    /// Metadata for the chosen protocol.
    pub subscription: Bytes,
    /// What it was assigned.
    pub assignment: Bytes,
}

impl GroupValue {
    /// Its bytes, version 3.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_i16(VALUE_WRITTEN);
        put_string(&mut out, &self.protocol_type);
        out.put_i32(self.generation);
        put_opt_string(&mut out, self.protocol.as_deref());
        put_opt_string(&mut out, self.leader.as_deref());
        out.put_i64(self.state_since_ms);
        put_len32(&mut out, self.members.len());
        for member in &self.members {
            put_string(&mut out, &member.member_id);
            put_opt_string(&mut out, member.instance_id.as_deref());
            put_string(&mut out, &member.client_id);
            put_string(&mut out, &member.client_host);
            out.put_i32(member.rebalance_timeout_ms);
            out.put_i32(member.session_timeout_ms);
            put_bytes32(&mut out, &member.subscription);
            put_bytes32(&mut out, &member.assignment);
        }
        out
    }

    /// Reads any version.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let version = value_version(&mut reader, "group metadata")?;
        let protocol_type = text(&mut reader, "protocol type", version)?.unwrap_or_default();
        let generation = reader.i32("generation")?;
        let protocol = text(&mut reader, "protocol", version)?;
        let leader = text(&mut reader, "leader", version)?;
        let state_since_ms = if version >= 2 {
            reader.i64("state since")?
        } else {
            -1
        };
        let count = member_count(&mut reader, version)?;
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            members.push(decode_member(&mut reader, version)?);
        }
        skip_tags(&mut reader, version)?;
        reader.finish("group metadata")?;
        Ok(GroupValue {
            protocol_type,
            generation,
            protocol,
            leader,
            state_since_ms,
            members,
        })
    }
}

fn decode_member(reader: &mut Reader<'_>, version: i16) -> Result<MemberValue, CodecError> {
    let member_id = text(reader, "member id", version)?.unwrap_or_default();
    let instance_id = if version >= 3 {
        text(reader, "instance id", version)?
    } else {
        None
    };
    let client_id = text(reader, "client id", version)?.unwrap_or_default();
    let client_host = text(reader, "client host", version)?.unwrap_or_default();
    let rebalance_timeout_ms = if version >= 1 {
        reader.i32("rebalance timeout")?
    } else {
        -1
    };
    let session_timeout_ms = reader.i32("session timeout")?;
    let subscription = blob(reader, "subscription", version)?;
    let assignment = blob(reader, "assignment", version)?;
    skip_tags(reader, version)?;
    Ok(MemberValue {
        member_id,
        instance_id,
        client_id,
        client_host,
        rebalance_timeout_ms,
        session_timeout_ms,
        subscription,
        assignment,
    })
}

fn value_version(reader: &mut Reader<'_>, what: &'static str) -> Result<i16, CodecError> {
    let version = reader.i16("version")?;
    if !(0..=VALUE_HIGHEST).contains(&version) {
        return Err(CodecError::Version {
            what,
            version: version.into(),
            highest: VALUE_HIGHEST.into(),
        });
    }
    Ok(version)
}

fn text(
    reader: &mut Reader<'_>,
    field: &'static str,
    version: i16,
) -> Result<Option<String>, CodecError> {
    if version < FLEXIBLE_FROM {
        return reader.opt_string(field);
    }
    match reader.compact_length(field)? {
        None => Ok(None),
        Some(length) => {
            let bytes = reader.take(field, length)?;
            let text = std::str::from_utf8(bytes).map_err(|_| CodecError::Utf8 { field })?;
            Ok(Some(text.to_owned()))
        }
    }
}

fn blob(reader: &mut Reader<'_>, field: &'static str, version: i16) -> Result<Bytes, CodecError> {
    if version < FLEXIBLE_FROM {
        return reader.bytes32(field).map(Bytes::copy_from_slice);
    }
    let length = reader.compact_length(field)?.unwrap_or(0);
    reader.take(field, length).map(Bytes::copy_from_slice)
}

fn member_count(reader: &mut Reader<'_>, version: i16) -> Result<usize, CodecError> {
    if version < FLEXIBLE_FROM {
        return reader.count("members", MEMBER_BYTES_MIN);
    }
    let count = reader.compact_length("members")?.unwrap_or(0);
    if count.saturating_mul(MEMBER_BYTES_MIN) > reader.left() {
        return Err(CodecError::Length {
            field: "members",
            length: count as i64,
        });
    }
    Ok(count)
}

fn skip_tags(reader: &mut Reader<'_>, version: i16) -> Result<(), CodecError> {
    if version < FLEXIBLE_FROM {
        return Ok(());
    }
    for _ in 0..reader.varint("tagged fields")? {
        reader.varint("tag")?;
        let length = reader.varint("tag length")?;
        reader.take("tagged field", length as usize)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_lie_where_java_puts_them() {
        // "group".hashCode() in Java is 98629247.
        for (group, hash) in [
            ("", 0),
            ("a", 97),
            ("group", 98_629_247_i64),
            ("ü€", 252 * 31 + 8364),
        ] {
            assert_eq!(i64::from(partition_of(group, 50)), hash % 50, "{group}");
        }
        let hash = "a-rather-long-group-name"
            .chars()
            .fold(0_i32, |h, c| h.wrapping_mul(31).wrapping_add(c as i32));
        assert_eq!(
            partition_of("a-rather-long-group-name", 7),
            (hash & 0x7fff_ffff) % 7
        );
    }

    #[test]
    fn keys_are_golden() {
        let offset = Key::Offset {
            group: "g".to_owned(),
            topic: "tp".to_owned(),
            partition: 3,
        };
        assert_eq!(
            offset.encode(),
            b"\x00\x01\x00\x01g\x00\x02tp\x00\x00\x00\x03"
        );
        let group = Key::Group {
            group: "g".to_owned(),
        };
        assert_eq!(group.encode(), b"\x00\x02\x00\x01g");
        assert_eq!(
            Key::decode(b"\x00\x00\x00\x01g\x00\x02tp\x00\x00\x00\x03"),
            Ok(offset.clone())
        );
        assert_eq!(Key::decode(&offset.encode()), Ok(offset));
        assert_eq!(Key::decode(&group.encode()), Ok(group));
        assert!(matches!(
            Key::decode(b"\x00\x03\x00\x01g"),
            Err(CodecError::Version { version: 3, .. })
        ));
        assert!(Key::decode(b"\x00\x02\x00\x01gx").is_err());
    }

    fn offset() -> OffsetValue {
        OffsetValue {
            offset: 5,
            leader_epoch: 2,
            metadata: "m".to_owned(),
            commit_ms: 9,
            expire_ms: -1,
        }
    }

    #[test]
    fn offsets_are_golden_in_every_version() {
        let number = |n: u8| [0, 0, 0, 0, 0, 0, 0, n];
        let v3 = [
            b"\x00\x03".as_slice(),
            &number(5),
            b"\0\0\0\x02",
            b"\0\x01m",
            &number(9),
        ]
        .concat();
        assert_eq!(offset().encode(), v3);
        assert_eq!(OffsetValue::decode(&v3), Ok(offset()));
        let old = OffsetValue {
            leader_epoch: -1,
            ..offset()
        };
        for version in [0_u8, 2] {
            let bytes = [&[0, version][..], &number(5), b"\0\x01m", &number(9)].concat();
            assert_eq!(OffsetValue::decode(&bytes), Ok(old.clone()), "v{version}");
        }
        let v1 = [
            b"\x00\x01".as_slice(),
            &number(5),
            b"\0\x01m",
            &number(9),
            &number(7),
        ]
        .concat();
        let expiring = OffsetValue {
            expire_ms: 7,
            ..old
        };
        assert_eq!(OffsetValue::decode(&v1), Ok(expiring.clone()));
        assert_eq!(expiring.encode(), v1);
        let tagged = b"\x01\x00\x02xy";
        let v4 = [
            b"\x00\x04".as_slice(),
            &number(5),
            b"\0\0\0\x02",
            b"\x02m",
            &number(9),
            tagged,
        ]
        .concat();
        assert_eq!(OffsetValue::decode(&v4), Ok(offset()));
        for cut in 0..v4.len() {
            assert!(OffsetValue::decode(&v4[..cut]).is_err(), "cut at {cut}");
        }
        assert!(OffsetValue::decode(b"\0\x05").is_err());
    }

    fn group() -> GroupValue {
        GroupValue {
            protocol_type: "consumer".to_owned(),
            generation: 3,
            protocol: Some("range".to_owned()),
            leader: Some("m1".to_owned()),
            state_since_ms: 8,
            members: vec![MemberValue {
                member_id: "m1".to_owned(),
                instance_id: Some("i".to_owned()),
                client_id: "c".to_owned(),
                client_host: "/h".to_owned(),
                rebalance_timeout_ms: 6,
                session_timeout_ms: 7,
                subscription: Bytes::from_static(b"sub"),
                assignment: Bytes::from_static(b"as"),
            }],
        }
    }

    #[test]
    fn groups_are_golden_in_every_version() {
        let v3 = b"\0\x03\0\x08consumer\0\0\0\x03\0\x05range\0\x02m1\0\0\0\0\0\0\0\x08\0\0\0\x01\
            \0\x02m1\0\x01i\0\x01c\0\x02/h\0\0\0\x06\0\0\0\x07\0\0\0\x03sub\0\0\0\x02as";
        assert_eq!(group().encode(), v3);
        assert_eq!(GroupValue::decode(v3), Ok(group()));
        for cut in 0..v3.len() {
            assert!(GroupValue::decode(&v3[..cut]).is_err(), "cut at {cut}");
        }
        let v4 = b"\0\x04\x09consumer\0\0\0\x03\x06range\x03m1\0\0\0\0\0\0\0\x08\x02\
            \x03m1\x02i\x02c\x03/h\0\0\0\x06\0\0\0\x07\x04sub\x03as\0\0";
        assert_eq!(GroupValue::decode(v4), Ok(group()));
        let v0 = b"\0\0\0\x08consumer\0\0\0\x03\xff\xff\xff\xff\0\0\0\x01\
            \0\x02m1\0\x01c\0\x02/h\0\0\0\x07\0\0\0\x03sub\0\0\0\x02as";
        let mut old = GroupValue {
            protocol: None,
            leader: None,
            state_since_ms: -1,
            ..group()
        };
        old.members[0].instance_id = None;
        old.members[0].rebalance_timeout_ms = -1;
        assert_eq!(GroupValue::decode(v0), Ok(old.clone()));
        let v1 = b"\0\x01\0\x08consumer\0\0\0\x03\xff\xff\xff\xff\0\0\0\x01\
            \0\x02m1\0\x01c\0\x02/h\0\0\0\x06\0\0\0\x07\0\0\0\x03sub\0\0\0\x02as";
        old.members[0].rebalance_timeout_ms = 6;
        assert_eq!(GroupValue::decode(v1), Ok(old));
    }

    #[test]
    fn hostile_counts_are_refused() {
        let many = b"\0\x03\0\0\0\0\0\x01\xff\xff\xff\xff\0\0\0\0\0\0\0\0\x7f\xff\xff\xff";
        assert!(matches!(
            GroupValue::decode(many),
            Err(CodecError::Length {
                field: "members",
                ..
            })
        ));
        let many = b"\0\x04\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\x0f";
        assert!(matches!(
            GroupValue::decode(many),
            Err(CodecError::Length {
                field: "members",
                ..
            })
        ));
    }
}
