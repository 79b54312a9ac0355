//! Calls about consumer groups and offsets.
//!
//! Owns how each call becomes a request and its answer a struct. Commits only from outside a group, which the coordinator
//! allows while the group has no members.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use keelson_protocol::BatchHeader;
use keelson_protocol::kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use keelson_protocol::kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsTopic,
};
use keelson_protocol::kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use keelson_protocol::kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use keelson_protocol::kafka_protocol::messages::offset_fetch_response::OffsetFetchResponse;
use keelson_protocol::kafka_protocol::messages::{
    ApiKey, BrokerId, DeleteGroupsRequest, DescribeGroupsRequest, FetchRequest,
    FindCoordinatorRequest, ListGroupsRequest, ListOffsetsRequest, OffsetCommitRequest,
    OffsetFetchRequest,
};
use uuid::Uuid;

use crate::admin::{only, port, refused, text};
use crate::connection::malformed;
use crate::{
    AdminClient, BrokerError, CommittedOffset, Coordinator, Error, GroupDescription, GroupListing,
    GroupMember, ListedOffset, NewOffset, OffsetSpec,
};

const TIMESTAMP_LATEST: i64 = -1;
const TIMESTAMP_EARLIEST: i64 = -2;
const NO_OFFSET: i64 = -1;
/// First version of OffsetFetch that asks for several groups.
const OFFSET_FETCH_GROUPS_VERSION: i16 = 8;
/// First version of Fetch that names topics by id only.
const FETCH_IDS_VERSION: i16 = 13;
/// Generation and epochs of somebody who has none.
const NONE: i32 = -1;
/// The coordinator's own retention, where a version has a field for it.
const DEFAULT_RETENTION: i64 = -1;

impl AdminClient {
    /// All groups that the broker coordinates.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, Error> {
        let answer = self
            .call(ApiKey::ListGroups, |_| ListGroupsRequest::default())
            .await?;
        refused("ListGroups", String::new(), answer.error_code, None)?;
        let listing = |group: keelson_protocol::kafka_protocol::messages::list_groups_response::ListedGroup| GroupListing {
            id: group.group_id.to_string(),
            protocol_type: group.protocol_type.to_string(),
            state: group.group_state.to_string(),
        };
        Ok(answer.groups.into_iter().map(listing).collect())
    }

    /// A group's state and members. An unknown group is `Dead` (older versions) or the error GROUP_ID_NOT_FOUND.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, Error> {
        let id = text(group);
        let request =
            move |_| DescribeGroupsRequest::default().with_groups(vec![id.clone().into()]);
        let answer = self.call(ApiKey::DescribeGroups, request).await?;
        let found = only("DescribeGroups", answer.groups)?;
        refused(
            "DescribeGroups",
            group.to_owned(),
            found.error_code,
            found.error_message.as_deref(),
        )?;
        let is_consumer = &*found.protocol_type == "consumer";
        let mut members = Vec::with_capacity(found.members.len());
        for member in found.members {
            members.push(GroupMember {
                id: member.member_id.to_string(),
                instance_id: member.group_instance_id.map(|id| id.to_string()),
                client_id: member.client_id.to_string(),
                client_host: member.client_host.to_string(),
                assignment: if is_consumer {
                    assignment(member.member_assignment)?
                } else {
                    BTreeMap::new()
                },
            });
        }
        Ok(GroupDescription {
            id: found.group_id.to_string(),
            state: found.group_state.to_string(),
            protocol_type: found.protocol_type.to_string(),
            assignor: found.protocol_data.to_string(),
            members,
        })
    }

    /// Who coordinates a group.
    pub async fn find_coordinator(&self, group: &str) -> Result<Coordinator, Error> {
        let id = text(group);
        let request = move |version| {
            let request = FindCoordinatorRequest::default();
            if version >= 4 {
                request.with_coordinator_keys(vec![id.clone()])
            } else {
                request.with_key(id.clone())
            }
        };
        let answer = self.call(ApiKey::FindCoordinator, request).await?;
        // From version 4 on the answer is a list, before it stands in the body itself.
        let (code, message, node, host, port_number) = match answer.coordinators.into_iter().next()
        {
            Some(found) => (
                found.error_code,
                found.error_message,
                found.node_id,
                found.host,
                found.port,
            ),
            None => (
                answer.error_code,
                answer.error_message,
                answer.node_id,
                answer.host,
                answer.port,
            ),
        };
        refused(
            "FindCoordinator",
            group.to_owned(),
            code,
            message.as_deref(),
        )?;
        Ok(Coordinator {
            id: node.0,
            host: host.to_string(),
            port: port("FindCoordinator", port_number)?,
        })
    }

    /// Everything that a group has committed; nothing for a group that does not exist.
    pub async fn offset_fetch(&self, group: &str) -> Result<Vec<CommittedOffset>, Error> {
        let id = text(group);
        let request = move |version| {
            let request = OffsetFetchRequest::default();
            if version >= OFFSET_FETCH_GROUPS_VERSION {
                let wanted = OffsetFetchRequestGroup::default()
                    .with_group_id(id.clone().into())
                    .with_topics(None);
                request.with_groups(vec![wanted])
            } else {
                request.with_group_id(id.clone().into()).with_topics(None)
            }
        };
        let answer = self.call(ApiKey::OffsetFetch, request).await?;
        committed(group, answer)
    }

    /// Commits offsets of a group from outside of it, in one request. Refused while the group has members
    /// (UNKNOWN_MEMBER_ID). The first error of any partition is the call's error; the other partitions are committed.
    pub async fn offset_commit(&self, group: &str, offsets: &[NewOffset]) -> Result<(), Error> {
        let id = text(group);
        let mut by_topic: BTreeMap<String, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for it in offsets {
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(it.partition)
                .with_committed_offset(it.offset)
                .with_committed_leader_epoch(NONE)
                .with_committed_metadata(Some(text(&it.metadata)));
            by_topic
                .entry(it.topic.clone())
                .or_default()
                .push(partition);
        }
        let request = move |_| {
            let topics = by_topic.iter().map(|(name, partitions)| {
                OffsetCommitRequestTopic::default()
                    .with_name(text(name).into())
                    .with_partitions(partitions.clone())
            });
            OffsetCommitRequest::default()
                .with_group_id(id.clone().into())
                .with_generation_id_or_member_epoch(NONE)
                .with_retention_time_ms(DEFAULT_RETENTION)
                .with_topics(topics.collect())
        };
        let answer = self.call(ApiKey::OffsetCommit, request).await?;
        for topic in &answer.topics {
            for partition in &topic.partitions {
                let subject = format!("{group} {}-{}", &*topic.name, partition.partition_index);
                refused("OffsetCommit", subject, partition.error_code, None)?;
            }
        }
        Ok(())
    }

    /// The newest timestamp, in ms, of the batch that holds an offset; `None` if there is no record at it or behind it.
    ///
    /// Asks for as little as Fetch allows, which is the whole batch.
    pub async fn batch_timestamp(
        &self,
        (topic, topic_id): (&str, Uuid),
        partition: i32,
        offset: i64,
    ) -> Result<Option<i64>, Error> {
        let subject = format!("{topic}-{partition} at {offset}");
        let name = text(topic);
        let request = move |version| {
            let wanted = FetchPartition::default()
                .with_partition(partition)
                .with_current_leader_epoch(NONE)
                .with_fetch_offset(offset)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(1);
            let topic = FetchTopic::default().with_partitions(vec![wanted]);
            let topic = if version >= FETCH_IDS_VERSION {
                topic.with_topic_id(topic_id)
            } else {
                topic.with_topic(name.clone().into())
            };
            FetchRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_max_wait_ms(0)
                .with_min_bytes(0)
                .with_max_bytes(1)
                .with_session_epoch(NONE)
                .with_topics(vec![topic])
        };
        let answer = self.call(ApiKey::Fetch, request).await?;
        refused("Fetch", subject.clone(), answer.error_code, None)?;
        let found = only("Fetch", answer.responses)?;
        let found = only("Fetch", found.partitions)?;
        refused("Fetch", subject, found.error_code, None)?;
        match found.records.filter(|bytes| !bytes.is_empty()) {
            None => Ok(None),
            Some(bytes) => BatchHeader::parse(&bytes)
                .map(|header| Some(header.max_timestamp))
                .map_err(|error| malformed("Fetch", error)),
        }
    }

    /// An offset of each of these partitions: earliest, latest, or by timestamp.
    pub async fn list_offsets(
        &self,
        partitions: &[(&str, i32)],
        which: OffsetSpec,
    ) -> Result<Vec<ListedOffset>, Error> {
        let timestamp = match which {
            OffsetSpec::Earliest => TIMESTAMP_EARLIEST,
            OffsetSpec::Latest => TIMESTAMP_LATEST,
            OffsetSpec::Timestamp(ms) => ms,
        };
        let mut by_topic: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in partitions {
            by_topic
                .entry((*topic).to_owned())
                .or_default()
                .push(*partition);
        }
        let request = move |_| {
            let topics = by_topic.iter().map(|(name, indexes)| {
                let wanted = |index: &i32| {
                    ListOffsetsPartition::default()
                        .with_partition_index(*index)
                        .with_timestamp(timestamp)
                };
                ListOffsetsTopic::default()
                    .with_name(text(name).into())
                    .with_partitions(indexes.iter().map(wanted).collect())
            });
            ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_topics(topics.collect())
        };
        let answer = self.call(ApiKey::ListOffsets, request).await?;
        let mut found = Vec::new();
        for topic in answer.topics {
            for partition in topic.partitions {
                found.push(ListedOffset {
                    topic: topic.name.to_string(),
                    partition: partition.partition_index,
                    offset: BrokerError::check(partition.error_code, None)
                        .map(|()| (partition.offset != NO_OFFSET).then_some(partition.offset)),
                    timestamp: partition.timestamp,
                });
            }
        }
        Ok(found)
    }

    /// Deletes a group that has no members.
    pub async fn delete_group(&self, group: &str) -> Result<(), Error> {
        let id = text(group);
        let request =
            move |_| DeleteGroupsRequest::default().with_groups_names(vec![id.clone().into()]);
        let answer = self.call(ApiKey::DeleteGroups, request).await?;
        let result = only("DeleteGroups", answer.results)?;
        refused("DeleteGroups", group.to_owned(), result.error_code, None)
    }
}

/// Partitions without a commit (offset -1) are left out; the first error of any partition is the call's error.
fn committed(group: &str, answer: OffsetFetchResponse) -> Result<Vec<CommittedOffset>, Error> {
    refused("OffsetFetch", group.to_owned(), answer.error_code, None)?;
    let mut found = Vec::new();
    let mut see = |topic: &str,
                   partition: i32,
                   offset: i64,
                   epoch: i32,
                   metadata: Option<&str>,
                   code: i16| {
        refused(
            "OffsetFetch",
            format!("{group} {topic}-{partition}"),
            code,
            None,
        )?;
        if offset != NO_OFFSET {
            found.push(CommittedOffset {
                topic: topic.to_owned(),
                partition,
                offset,
                leader_epoch: (epoch >= 0).then_some(epoch),
                metadata: metadata.unwrap_or_default().to_owned(),
            });
        }
        Ok::<(), Error>(())
    };
    for topic in &answer.topics {
        for p in &topic.partitions {
            let (index, offset, epoch) = (
                p.partition_index,
                p.committed_offset,
                p.committed_leader_epoch,
            );
            see(
                &topic.name,
                index,
                offset,
                epoch,
                p.metadata.as_deref(),
                p.error_code,
            )?;
        }
    }
    for answered in &answer.groups {
        refused("OffsetFetch", group.to_owned(), answered.error_code, None)?;
        for topic in &answered.topics {
            for p in &topic.partitions {
                let (index, offset, epoch) = (
                    p.partition_index,
                    p.committed_offset,
                    p.committed_leader_epoch,
                );
                see(
                    &topic.name,
                    index,
                    offset,
                    epoch,
                    p.metadata.as_deref(),
                    p.error_code,
                )?;
            }
        }
    }
    Ok(found)
}

/// Reads a consumer's assignment (`ConsumerProtocolAssignment`, all versions): version i16, topics (name, partitions).
fn assignment(mut bytes: Bytes) -> Result<BTreeMap<String, Vec<i32>>, Error> {
    let mut found = BTreeMap::new();
    if bytes.is_empty() {
        return Ok(found); // Rebalancing: nothing is assigned yet.
    }
    let cut = |_| malformed("DescribeGroups", "an assignment is cut off");
    bytes.try_get_i16().map_err(cut)?;
    for _ in 0..bytes.try_get_i32().map_err(cut)? {
        let length = bytes.try_get_i16().map_err(cut)?;
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= bytes.len());
        let Some(length) = length else {
            return Err(malformed(
                "DescribeGroups",
                "an assignment has an impossible topic",
            ));
        };
        let name = String::from_utf8_lossy(&bytes.split_to(length)).into_owned();
        let mut partitions = Vec::new();
        for _ in 0..bytes.try_get_i32().map_err(cut)? {
            partitions.push(bytes.try_get_i32().map_err(cut)?);
        }
        found.insert(name, partitions);
    }
    Ok(found)
}
