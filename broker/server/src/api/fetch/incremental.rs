//! A Fetch within a session: what the request changes in it, what is due, and what of that the answer names.
//!
//! Owns the order of a pass: what has moved becomes due, what is due is read without the session's lock, and only then
//! does the session hear of it, unless another request has come meanwhile. Never reads a partition.

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::FetchRequest;
use keelson_state::fetch_sessions::{FetchSessionError, Seen, Session};

use super::plan::{self, Params, Part, Plan, Scope};
use super::read::{PartAnswer, Round};
use crate::broker::Broker;
use crate::errors;
use crate::fetch_sessions::{self, Attached, Held, Live};

/// Takes the changes that a request brings into its session.
pub(super) fn begin(
    broker: &Broker,
    params: Params,
    (id, epoch): (i32, i32),
    request: &FetchRequest,
) -> Result<Plan, ErrorCode> {
    let refused = |error: FetchSessionError| errors::fetch_session(&error);
    let sessions = &broker.fetch_sessions;
    let live = sessions
        .get(id)
        .ok_or(refused(FetchSessionError::NotFound))?;
    let mut held = live.held.lock();
    held.session
        .check(epoch, params.uses_topic_ids)
        .map_err(refused)?;
    change(&mut held, &live, params, request);
    let size = held.size();
    let epoch = held.session.advance();
    drop(held);
    if size.partitions == 0 {
        sessions.close(id);
        return Ok(Plan::whole(broker, params, false, request));
    }
    if !sessions.touch(id, size) {
        sessions.close(id);
        return Err(refused(FetchSessionError::NotFound));
    }
    // Whoever waits in the same session has lost it.
    live.watch.wake_all();
    let mut plan = Plan {
        params,
        scope: Scope::Session { live, epoch },
        parts: Vec::new(),
        can_wait: true,
    };
    plan.collect(broker)?;
    Ok(plan)
}

fn change(held: &mut Held, live: &Live, params: Params, request: &FetchRequest) {
    if held.read_committed != params.read_committed {
        held.read_committed = params.read_committed;
        held.session.mark_all();
    }
    for topic in &request.topics {
        let key = plan::key(params.uses_topic_ids, &topic.topic, topic.topic_id);
        let wanted = topic.partitions.iter();
        let wanted = wanted.map(|partition| (partition.partition, plan::wanted(partition)));
        held.session.want(&key, wanted);
    }
    for topic in &request.forgotten_topics_data {
        let key = plan::key(params.uses_topic_ids, &topic.topic, topic.topic_id);
        for index in &topic.partitions {
            if let Some(mut attached) = held.session.forget(&key, *index) {
                attached.unwatch(&live.watch);
            }
        }
    }
}

impl Plan {
    /// Takes up what is due in the session now; does nothing without one.
    ///
    /// # Errors
    /// If another request of the session has come.
    pub(super) fn collect(&mut self, broker: &Broker) -> Result<(), ErrorCode> {
        let Scope::Session { live, epoch } = &self.scope else {
            return Ok(());
        };
        let mut held = current(live, *epoch)?;
        let session = &mut held.session;
        for slot in live.watch.take_moved() {
            if let Some(cached) = session.get_mut(slot) {
                cached.attached.watched = false;
            }
            session.mark(slot);
        }
        let mut unknown = Vec::new();
        self.parts.clear();
        for slot in session.due() {
            let Some(cached) = session.get_mut(slot) else {
                continue;
            };
            let source = fetch_sessions::find(broker, cached);
            let mut part = Part::new(cached.topic.clone(), cached.index, cached.wanted, source);
            part.slot = slot;
            if part.is_unknown() {
                unknown.push(part);
            } else {
                self.parts.push(part);
            }
        }
        self.can_wait = session.len() > unknown.len();
        self.parts.append(&mut unknown);
        Ok(())
    }
}

/// A session that is still where this request has left it.
fn current(live: &Live, epoch: i32) -> Result<parking_lot::MutexGuard<'_, Held>, ErrorCode> {
    let held = live.held.lock();
    if held.session.epoch() == epoch {
        return Ok(held);
    }
    // What woke this request is for the one that has come since.
    live.watch.pass_on();
    Err(errors::fetch_session(&FetchSessionError::Epoch))
}

/// The session waits: its partitions will tell when they move, and what has nothing to say is not looked at until then.
///
/// # Errors
/// If another request of the session has come.
pub(super) fn settle(
    live: &Live,
    epoch: i32,
    parts: &[Part],
    round: &Round,
) -> Result<(), ErrorCode> {
    let mut held = current(live, epoch)?;
    let mut moved = false;
    for (part, answer) in parts.iter().zip(&round.parts) {
        held.session.settle(part.slot, &seen(answer));
        moved |= watch(&mut held.session, live, part, answer);
    }
    if moved {
        live.watch.pass_on();
    }
    Ok(())
}

/// Has the partition tell when it moves. True if it has moved since it was read; it is due again then.
fn watch(session: &mut Session<Attached>, live: &Live, part: &Part, answer: &PartAnswer) -> bool {
    let Some(owner) = part.owner() else {
        return false;
    };
    let Some(cached) = session.get_mut(part.slot) else {
        return false;
    };
    if cached.attached.watched {
        return false;
    }
    let moved = owner
        .waiters()
        .watch(answer.high_watermark, &live.watch, part.slot);
    cached.attached.watched = !moved;
    if moved {
        session.mark(part.slot);
    }
    moved
}

/// The answer to a request of a session: what of a round it leaves out is dropped from `parts` and `round`.
///
/// # Errors
/// If another request of the session has come.
pub(super) fn answer(
    live: &Live,
    epoch: i32,
    parts: &mut Vec<Part>,
    round: &mut Round,
) -> Result<(), ErrorCode> {
    let mut held = current(live, epoch)?;
    let answers = std::mem::take(&mut round.parts);
    let asked = std::mem::take(parts);
    for (part, answer) in asked.into_iter().zip(answers) {
        let seen = seen(&answer);
        let is_named = held.session.answer(part.slot, &seen);
        if held.session.settle(part.slot, &seen) {
            watch(&mut held.session, live, &part, &answer);
        }
        if is_named {
            parts.push(part);
            round.parts.push(answer);
        }
    }
    Ok(())
}

/// Keeps a session for a request that was answered in full; its id, or that of no session.
pub(super) fn keep(broker: &Broker, plan: &Plan, round: &Round) -> i32 {
    let mut session = Session::new(plan.params.uses_topic_ids);
    for (part, answer) in plan.parts.iter().zip(&round.parts) {
        session.want(&part.topic, [(part.index, part.wanted)]);
        session.told(&part.topic, part.index, &seen(answer));
    }
    broker.fetch_sessions.keep(Held {
        session,
        read_committed: plan.params.read_committed,
    })
}

fn seen(answer: &PartAnswer) -> Seen {
    Seen {
        has_records: answer.bytes > 0,
        failed: answer.error.is_some(),
        at_end: answer.at_end,
        high_watermark: answer.high_watermark,
        log_start: answer.log_start,
    }
}
