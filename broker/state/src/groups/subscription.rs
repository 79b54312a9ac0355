//! Which topics a group of consumers reads, as its members' subscriptions say. It reads only what every version of the
//! consumer protocol begins with: the version and the topics.

use std::collections::BTreeSet;

use super::group::Group;
use super::view::GroupState;
use crate::codec::{CodecError, Reader};

/// The protocol type of consumers, whose subscriptions can be read.
const CONSUMER: &str = "consumer";

/// An empty name.
const NAME_BYTES_MIN: usize = 2;

impl Group {
    pub(super) fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// The topics that its members read; none where that is not known.
    pub(super) fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if !self.is_of_consumers() {
            return None;
        }
        if self.state == GroupState::Empty || self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut all = BTreeSet::new();
        for member in self.members.values() {
            all.extend(topics(&member.metadata(Some(protocol))).ok()?);
        }
        Some(all)
    }

    /// Whether offsets of this topic are in use. Where it is not known what consumers read, they read everything.
    pub(super) fn reads(
        subscribed: Option<&BTreeSet<String>>,
        consumers: bool,
        topic: &str,
    ) -> bool {
        subscribed.map_or(consumers, |topics| topics.contains(topic))
    }
}

fn topics(subscription: &[u8]) -> Result<Vec<String>, CodecError> {
    let mut reader = Reader::new(subscription);
    reader.i16("version")?;
    let count = reader.count("topics", NAME_BYTES_MIN)?;
    (0..count).map(|_| reader.string("topic")).collect()
}
