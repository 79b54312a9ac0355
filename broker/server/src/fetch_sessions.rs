//! The fetch sessions of this broker (KIP-227), each behind a lock of its own.
//!
//! Owns which sessions there are and what each keeps of its partitions. Decides nothing: that is
//! `keelson_state::fetch_sessions`. Sessions are in memory only: after a restart clients are told so and ask for
//! everything once. No lock is held across an await, and never two at once.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_state::fetch_sessions::{
    Cached, NO_SESSION, NewSession, Session, SessionCache, TopicKey,
};
use parking_lot::Mutex;

use crate::broker::{Broker, now_ms};
use crate::metrics::Metrics;
use crate::partitions::{PartitionOwner, Watch};

/// All sessions.
pub struct FetchSessions {
    cache: Mutex<SessionCache<Arc<Live>>>,
    metrics: Arc<Metrics>,
}

/// One session.
pub struct Live {
    /// Its id.
    pub id: i32,
    /// What its partitions tell when they move.
    pub watch: Arc<Watch>,
    /// What it knows.
    pub held: Mutex<Held>,
}

/// What a session knows.
pub struct Held {
    /// What the client fetches and was told.
    pub session: Session<Attached>,
    /// The isolation level that the settled partitions are settled under.
    pub read_committed: bool,
}

/// What is kept beside each partition of a session.
#[derive(Default)]
pub struct Attached {
    bound: Option<Bound>,
    /// The topic's name, once an id was found.
    name: Option<Arc<str>>,
    /// The partition will tell when it moves.
    pub watched: bool,
}

struct Bound {
    owner: Arc<PartitionOwner>,
    leader_epoch: i32,
}

/// Where a partition is read.
pub enum Source {
    /// It is here.
    Here {
        /// Its owner.
        owner: Arc<PartitionOwner>,
        /// Its leader epoch.
        leader_epoch: i32,
    },
    /// The broker does not know it; it may come to know it.
    Unknown(ErrorCode),
    /// Its topic was made again under another id.
    Refused(ErrorCode),
}

impl FetchSessions {
    /// None yet; so many slots and bytes for all of them. A client for whose session there is no room goes on with full fetches.
    pub fn new((slots_max, bytes_max): (usize, u64), metrics: Arc<Metrics>) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Self {
            cache: Mutex::new(SessionCache::new(slots_max, bytes_max)),
            metrics,
        }
    }

    /// The session of this id.
    pub fn get(&self, id: i32) -> Option<Arc<Live>> {
        self.cache.lock().get(id).cloned()
    }

    /// Closes a session, if it is there.
    pub fn close(&self, id: i32) {
        let mut cache = self.cache.lock();
        let closed = cache.remove(id);
        self.show(&cache);
        drop(cache);
        drop(closed);
    }

    /// A session was used and is of this size now; false if it cannot be kept.
    pub fn touch(&self, id: i32, size: NewSession) -> bool {
        let mut cache = self.cache.lock();
        let kept = cache.touch(now_ms(), id, size);
        self.show(&cache);
        kept
    }

    /// Keeps a new session, if there is room; its id, else [`NO_SESSION`].
    pub fn keep(&self, held: Held) -> i32 {
        let new = held.size();
        let mut evicted = Vec::new();
        let mut cache = self.cache.lock();
        let now_ms = now_ms();
        let id = cache.reserve(now_ms, new, rand::random, &mut evicted);
        if let Some(id) = id {
            let live = Live {
                id,
                watch: Arc::new(Watch::default()),
                held: Mutex::new(held),
            };
            cache.insert(now_ms, id, new, Arc::new(live));
        }
        let metrics = &self.metrics.fetch_sessions;
        metrics.evictions.inc_by(evicted.len() as u64);
        self.show(&cache);
        drop(cache);
        drop(evicted);
        id.unwrap_or(NO_SESSION)
    }

    fn show(&self, cache: &SessionCache<Arc<Live>>) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let metrics = &self.metrics.fetch_sessions;
        metrics.kept.set(count(cache.len()));
        metrics.partitions.set(count(cache.partitions()));
        metrics.bytes.set(count(cache.bytes()));
    }
}

impl Held {
    /// Its size, for the bounds.
    pub fn size(&self) -> NewSession {
        NewSession {
            partitions: self.session.len(),
            bytes: self.session.bytes(),
        }
    }
}

impl Attached {
    /// Whoever was watched tells nothing any more.
    pub fn unwatch(&mut self, watch: &Arc<Watch>) {
        if std::mem::take(&mut self.watched)
            && let Some(bound) = &self.bound
        {
            bound.owner.waiters().forget(watch);
        }
    }
}

/// Finds a partition of a session, in the topics of this moment.
pub fn find(broker: &Broker, cached: &mut Cached<Attached>) -> Source {
    let attached = &mut cached.attached;
    if let Some(bound) = &attached.bound {
        if !bound.owner.waiters().is_removed() {
            return Source::Here {
                owner: Arc::clone(&bound.owner),
                leader_epoch: bound.leader_epoch,
            };
        }
        attached.bound = None;
        attached.watched = false;
    }
    let state = match &cached.topic {
        TopicKey::Name(name) => broker.partitions.topic(name),
        TopicKey::Id(id) => broker.partitions.topic_by_id(id),
    };
    let Some(state) = state else {
        return unknown_topic(broker, &cached.topic, attached.name.as_deref());
    };
    attached.name = match &cached.topic {
        TopicKey::Name(_) => None,
        TopicKey::Id(_) => Some(Arc::clone(&state.topic.name)),
    };
    let Some(owner) = state.partition(cached.index) else {
        return Source::Unknown(ErrorCode::UnknownTopicOrPartition);
    };
    attached.bound = Some(Bound {
        owner: Arc::clone(owner),
        leader_epoch: state.leader_epoch,
    });
    Source::Here {
        owner: Arc::clone(owner),
        leader_epoch: state.leader_epoch,
    }
}

/// As Kafka has it: an id that was never known is another error than one whose topic has gone since, and a topic that was
/// made again is a third.
fn unknown_topic(broker: &Broker, topic: &TopicKey, known_as: Option<&str>) -> Source {
    match (topic, known_as) {
        (TopicKey::Name(_), _) => Source::Unknown(ErrorCode::UnknownTopicOrPartition),
        (TopicKey::Id(_), None) => Source::Unknown(ErrorCode::UnknownTopicId),
        (TopicKey::Id(_), Some(name)) if broker.partitions.topic(name).is_some() => {
            Source::Refused(ErrorCode::InconsistentTopicId)
        }
        (TopicKey::Id(_), Some(_)) => Source::Unknown(ErrorCode::UnknownTopicOrPartition),
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let Live { watch, held, .. } = self;
        for cached in held.get_mut().session.parts_mut() {
            cached.attached.unwatch(watch);
        }
    }
}
