//! What a Fetch asks for, in the form that waits: names resolved, limits applied, nothing of the frame held.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use keelson_protocol::kafka_protocol::messages::{FetchRequest, TopicName};
use keelson_state::fetch_sessions::{NO_SESSION, TopicKey, Wanted};
use uuid::Uuid;

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::fetch_sessions::{Live, Source};
use crate::partitions::{PartitionOwner, TopicState};

/// First version whose topics are named by id.
pub(super) const TOPIC_ID_VERSION_MIN: i16 = 13;
/// The longest wait: longer ones are cut, so that a plan does not outlive what it was made from for long.
const WAIT_MS_MAX: i32 = 5 * 60 * 1000;

/// What is done with one partition.
pub(super) enum Todo {
    /// It is read.
    Read(Arc<PartitionOwner>),
    /// It cannot be read, and that is worth an answer at once.
    Refuse(ErrorCode),
    /// It is not known. Kafka waits for the others all the same.
    Unknown(ErrorCode),
}

/// One partition of a plan.
pub(super) struct Part {
    pub(super) topic: TopicKey,
    pub(super) index: i32,
    pub(super) wanted: Wanted,
    pub(super) todo: Todo,
    /// Its place in the session, or in the plan.
    pub(super) slot: u32,
}

impl Part {
    pub(super) fn new(topic: TopicKey, index: i32, wanted: Wanted, source: Source) -> Self {
        let todo = match source {
            Source::Unknown(error) => Todo::Unknown(error),
            Source::Refused(error) => Todo::Refuse(error),
            Source::Here {
                owner,
                leader_epoch,
            } => match check_epoch(leader_epoch, wanted.leader_epoch) {
                Ok(()) => Todo::Read(owner),
                Err(error) => Todo::Refuse(error),
            },
        };
        Self {
            topic,
            index,
            wanted,
            todo,
            slot: 0,
        }
    }

    /// Its owner, if it is read.
    pub(super) fn owner(&self) -> Option<&Arc<PartitionOwner>> {
        match &self.todo {
            Todo::Read(owner) => Some(owner),
            Todo::Refuse(_) | Todo::Unknown(_) => None,
        }
    }

    /// At most this many of its bytes are wanted.
    pub(super) fn bytes_max(&self) -> u64 {
        u64::try_from(self.wanted.bytes_max).unwrap_or(0)
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.todo, Todo::Unknown(_))
    }
}

/// What holds for all partitions of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Params {
    pub(super) wait: Duration,
    pub(super) bytes_min: u64,
    pub(super) bytes_max: u64,
    pub(super) read_committed: bool,
    pub(super) uses_topic_ids: bool,
    /// For whom.
    pub(super) host: IpAddr,
}

impl Params {
    pub(super) fn new(broker: &Broker, call: &Call<FetchRequest>) -> Self {
        let request = &call.body;
        let positive = |n: i32| u64::try_from(n).unwrap_or(0);
        let bytes_max = positive(request.max_bytes.min(broker.config.fetch_max_bytes))
            .min(broker.budgets.reply_bytes_max());
        Self {
            wait: Duration::from_millis(positive(request.max_wait_ms.min(WAIT_MS_MAX))),
            // More than the answer may hold would never be there.
            bytes_min: positive(request.min_bytes).min(bytes_max),
            bytes_max,
            read_committed: request.isolation_level == 1,
            uses_topic_ids: call.version >= TOPIC_ID_VERSION_MIN,
            host: call.client.host,
        }
    }
}

/// What the partitions of a plan are taken from.
pub(super) enum Scope {
    /// Everything that the request names.
    Whole {
        /// And a session from then on.
        wants_session: bool,
    },
    /// What is due in a session.
    Session {
        /// The session.
        live: Arc<Live>,
        /// Where it is as long as no other request of it came.
        epoch: i32,
    },
}

/// What a Fetch asks for.
pub(super) struct Plan {
    pub(super) params: Params,
    pub(super) scope: Scope,
    pub(super) parts: Vec<Part>,
    /// Some partition is known, in the plan or settled in the session: there is something to wait for.
    pub(super) can_wait: bool,
}

impl Plan {
    /// Everything that a request names. Partitions that are not known come last, as in Kafka.
    pub(super) fn whole(
        broker: &Broker,
        params: Params,
        wants_session: bool,
        request: &FetchRequest,
    ) -> Self {
        let topics = &request.topics;
        // There are no other brokers: a follower has lost its way.
        let follows = request.replica_id.0 >= 0 || request.replica_state.replica_id.0 >= 0;
        let count = topics.iter().map(|topic| topic.partitions.len()).sum();
        let mut parts = Vec::with_capacity(count);
        let mut unknown = Vec::new();
        let mut places = may_repeat(topics).then(|| HashMap::with_capacity(count));
        for topic in topics {
            let (key, state) = resolve(broker, params.uses_topic_ids, topic);
            for wanted in &topic.partitions {
                let part = part(&key, &state, wanted);
                let list = if part.is_unknown() {
                    &mut unknown
                } else {
                    &mut parts
                };
                let at = places.as_mut().map_or(list.len(), |places| {
                    let name = (&topic.topic, topic.topic_id, wanted.partition);
                    *places.entry(name).or_insert(list.len())
                });
                // What stands twice counts as it stands last, in the place where it stood first.
                match list.get_mut(at) {
                    Some(before) => *before = part,
                    None => list.push(part),
                }
            }
        }
        if follows {
            for part in &mut parts {
                part.todo = Todo::Refuse(ErrorCode::NotLeaderOrFollower);
            }
        }
        let can_wait = !parts.is_empty();
        parts.append(&mut unknown);
        for (part, slot) in parts.iter_mut().zip(0..) {
            part.slot = slot;
        }
        Self {
            params,
            scope: Scope::Whole { wants_session },
            parts,
            can_wait,
        }
    }
}

impl Plan {
    /// The session, 0 without one.
    pub(super) fn session_id(&self) -> i32 {
        match &self.scope {
            Scope::Whole { .. } => NO_SESSION,
            Scope::Session { live, .. } => live.id,
        }
    }
}

/// Whether a request may name a partition twice; one topic with its partitions in order, or topics in order, do not.
fn may_repeat(topics: &[FetchTopic]) -> bool {
    let in_order = |topic: &FetchTopic| {
        topic
            .partitions
            .is_sorted_by(|a, b| a.partition < b.partition)
    };
    let topics_in_order =
        topics.is_sorted_by(|a, b| (&a.topic, a.topic_id) < (&b.topic, b.topic_id));
    !topics_in_order || !topics.iter().all(in_order)
}

fn resolve(
    broker: &Broker,
    uses_topic_ids: bool,
    topic: &FetchTopic,
) -> (TopicKey, Result<Arc<TopicState>, ErrorCode>) {
    if uses_topic_ids {
        let id = *topic.topic_id.as_bytes();
        let state = broker.partitions.topic_by_id(&id);
        return (TopicKey::Id(id), state.ok_or(ErrorCode::UnknownTopicId));
    }
    match broker.partitions.topic(&topic.topic) {
        Some(state) => (TopicKey::Name(Arc::clone(&state.topic.name)), Ok(state)),
        None => (
            key(false, &topic.topic, topic.topic_id),
            Err(ErrorCode::UnknownTopicOrPartition),
        ),
    }
}

/// A topic as requests of a version name it; it does not pin the frame it came in.
pub(super) fn key(uses_topic_ids: bool, name: &TopicName, id: Uuid) -> TopicKey {
    if uses_topic_ids {
        TopicKey::Id(*id.as_bytes())
    } else {
        TopicKey::Name(Arc::from(&***name))
    }
}

/// What a client wants of a partition.
pub(super) fn wanted(partition: &FetchPartition) -> Wanted {
    Wanted {
        offset: partition.fetch_offset,
        bytes_max: partition.partition_max_bytes,
        // As in Kafka, a Fetch says nothing with any negative epoch.
        leader_epoch: partition.current_leader_epoch.max(NO_EPOCH),
    }
}

fn part(
    topic: &TopicKey,
    state: &Result<Arc<TopicState>, ErrorCode>,
    partition: &FetchPartition,
) -> Part {
    let source = match state {
        Err(error) => Source::Unknown(*error),
        Ok(state) => match state.partition(partition.partition) {
            None => Source::Unknown(ErrorCode::UnknownTopicOrPartition),
            Some(owner) => Source::Here {
                owner: Arc::clone(owner),
                leader_epoch: state.leader_epoch,
            },
        },
    };
    Part::new(
        topic.clone(),
        partition.partition,
        wanted(partition),
        source,
    )
}

/// "Not said", for leader epochs.
const NO_EPOCH: i32 = -1;

/// Compares the epoch a client knows with ours; -1 is a client that does not say (KIP-320).
pub(crate) fn check_epoch(current: i32, claimed: i32) -> Result<(), ErrorCode> {
    if claimed == NO_EPOCH || claimed == current {
        Ok(())
    } else if claimed < current {
        Err(ErrorCode::FencedLeaderEpoch)
    } else {
        Err(ErrorCode::UnknownLeaderEpoch)
    }
}
