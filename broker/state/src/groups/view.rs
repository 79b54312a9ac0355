//! Reading without changing: committed offsets, descriptions, lists. What it shows of offsets is durable.

use bytes::Bytes;

use super::group::Group;
use super::machine::GroupCoordinator;

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// No members; it may hold offsets.
    Empty,
    /// Waits for members to join.
    PreparingRebalance,
    /// Waits for the leader's assignment.
    CompletingRebalance,
    /// Every member has its assignment.
    Stable,
    /// Being deleted.
    Dead,
}

impl GroupState {
    /// Every state.
    pub const ALL: [GroupState; 5] = [
        GroupState::Empty,
        GroupState::PreparingRebalance,
        GroupState::CompletingRebalance,
        GroupState::Stable,
        GroupState::Dead,
    ];

    /// Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

/// A committed, durable offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset to read next.
    pub offset: i64,
    /// Leader epoch of the record before it; −1 is unknown.
    pub leader_epoch: i32,
    /// The client's own note.
    pub metadata: String,
    /// When it was committed.
    pub commit_ms: i64,
    /// When it expires, where the client said so; −1 is none.
    pub expire_ms: i64,
}

/// One line of ListGroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group.
    pub group: String,
    /// "consumer", "connect", … ; empty when only offsets were committed.
    pub protocol_type: String,
    /// Where it stands.
    pub state: GroupState,
}

/// A group as DescribeGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedGroup {
    /// Where it stands.
    pub state: GroupState,
    /// "consumer", "connect", …
    pub protocol_type: String,
    /// The protocol chosen; empty unless stable.
    pub protocol: String,
    /// The members.
    pub members: Vec<DescribedMember>,
}

/// A member as DescribeGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    /// The member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// The client's name.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Its metadata; empty unless stable.
    pub metadata: Bytes,
    /// Its assignment; empty unless stable.
    pub assignment: Bytes,
}

impl GroupCoordinator {
    /// The durable offset of a group at a partition. Offsets of a deleted topic are not shown, even while their
    /// removal still waits for the log.
    pub fn offset(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        let key = (std::sync::Arc::from(topic), partition);
        self.groups
            .get(group)?
            .offsets
            .get(&key)
            .filter(|_| !self.drops_owed.contains(topic))
    }

    /// Every durable offset of a group, by topic and partition.
    pub fn offsets(&self, group: &str) -> impl Iterator<Item = (&str, i32, &CommittedOffset)> {
        let offsets = self.groups.get(group).map(|group| group.offsets.iter());
        let shown = offsets
            .into_iter()
            .flatten()
            .filter(|((topic, _), _)| !self.drops_owed.contains(&**topic));
        shown.map(|((topic, partition), offset)| (&**topic, *partition, offset))
    }

    /// Topics that any group holds offsets of: after a load, those that are gone are to be dropped.
    pub fn topics_with_offsets(&self) -> std::collections::BTreeSet<&str> {
        self.groups
            .values()
            .flat_map(|group| group.offsets.keys())
            .map(|(topic, _)| &**topic)
            .collect()
    }

    /// All groups, also those that only hold offsets.
    pub fn list(&self) -> Vec<ListedGroup> {
        let describe = |group: &Group| ListedGroup {
            group: group.id.to_string(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state,
        };
        self.groups.values().map(describe).collect()
    }

    /// One group; none when there is no such group.
    pub fn describe(&self, group: &str) -> Option<DescribedGroup> {
        let group = self.groups.get(group)?;
        let stable = group.state == GroupState::Stable;
        let members = group.members.iter().map(|(id, member)| DescribedMember {
            member_id: id.to_string(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if stable {
                member.metadata(group.protocol.as_deref())
            } else {
                Bytes::new()
            },
            // While the group rebalances, what everybody still works on.
            assignment: member.assignment.clone(),
        });
        Some(DescribedGroup {
            state: group.state,
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            protocol: group
                .protocol
                .clone()
                .filter(|_| stable)
                .unwrap_or_default(),
            members: members.collect(),
        })
    }
}
