//! Fetch (key 1), versions 4–17.
//!
//! - 4: isolation level; format v2. 5: log start offset. 7: sessions (KIP-227). 9: current leader epoch (KIP-320).
//! - 10: zstd. 11: rack. 12: flexible; last fetched epoch. 13: topics by id (KIP-516). 15: replica state.
//! - 16: node endpoints. 17: replica directory.
//!
//! Left out: followers, racks. Sessions are kept in memory: after a restart, or when there is no room, a client asks for
//! everything again.
//!
//! The answer is built from slices of the log and never decodes a record. What is in memory is read at once, on the
//! connection's thread; what needs a file is read on a blocking thread, with a permit. A fetch that must wait is an
//! entry in the lists of its partitions, woken when a durable offset moves. An incremental fetch looks at those partitions
//! of its session that have moved or have something to say, and at no other.

mod encode;
mod incremental;
mod plan;
mod read;
mod wait;

#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use keelson_log::Reservation;
use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::FetchRequest;
use keelson_state::fetch_sessions::{Ask, NO_SESSION};

use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

pub use encode::FetchBody;
pub(super) use plan::check_epoch;
use plan::{Params, Plan, Scope};
use read::{Files, Round};

/// First version with sessions.
const SESSION_VERSION_MIN: i16 = 7;
/// Uncommitted and committed reads. Kafka fails on any other, which clients are told as an unknown error.
const ISOLATION_LEVELS: std::ops::RangeInclusive<i8> = 0..=1;

/// The handler.
pub struct Fetch;

impl Api for Fetch {
    type Request = FetchRequest;
    type Response = FetchBody;

    fn handle(broker: &Arc<Broker>, call: Call<FetchRequest>) -> Outcome<FetchBody> {
        if !ISOLATION_LEVELS.contains(&call.body.isolation_level) {
            let error = ErrorCode::UnknownServerError;
            let body = FetchBody::refused(error, call.version, &call.body);
            return Outcome::Ready(Answer::failed(body, error));
        }
        let plan = match plan(broker, &call) {
            Ok(plan) => plan,
            Err(error) => {
                let body = FetchBody::failed(error, NO_SESSION);
                return Outcome::Ready(Answer::failed(body, error));
            }
        };
        let round = read::round(broker, &plan, Files::Leave);
        if round.is_enough(&plan)
            && let Some(permit) = broker.budgets.replies.try_reserve(round.bytes)
        {
            return Outcome::Ready(finish(broker, plan, round, permit));
        }
        let broker = Arc::clone(broker);
        Outcome::later(async move { wait::fetch(broker, plan, round).await })
    }
}

fn plan(broker: &Broker, call: &Call<FetchRequest>) -> Result<Plan, ErrorCode> {
    let request = &call.body;
    let params = Params::new(broker, call);
    let (wants_session, close) = match Ask::of(request.session_id, request.session_epoch) {
        Ask::Sessionless { close } => (false, close),
        Ask::Full { close } => (call.version >= SESSION_VERSION_MIN, close),
        Ask::Incremental { id, epoch } => {
            return incremental::begin(broker, params, (id, epoch), request);
        }
    };
    if let Some(id) = close {
        broker.fetch_sessions.close(id);
    }
    Ok(Plan::whole(broker, params, wants_session, request))
}

/// The answer; what a session leaves out of it is dropped here, and a session begins here.
fn finish(
    broker: &Broker,
    mut plan: Plan,
    mut round: Round,
    permit: Reservation,
) -> Answer<FetchBody> {
    let session_id = match &plan.scope {
        Scope::Whole {
            wants_session: false,
        } => NO_SESSION,
        Scope::Whole {
            wants_session: true,
        } => incremental::keep(broker, &plan, &round),
        Scope::Session { live, epoch } => {
            match incremental::answer(live, *epoch, &mut plan.parts, &mut round) {
                Ok(()) => live.id,
                Err(error) => return Answer::failed(FetchBody::failed(error, live.id), error),
            }
        }
    };
    let error = round.first_error();
    let about = (session_id, plan.params.read_committed);
    Answer::new(FetchBody::new(about, plan.parts, round, permit), error)
}
