//! Fetch (key 1), versions 4–17.
//!
//! - 4: isolation level; format v2. 5: log start offset. 7: sessions (KIP-227). 9: current leader epoch (KIP-320).
//! - 10: zstd. 11: rack. 12: flexible; last fetched epoch. 13: topics by id (KIP-516). 15: replica state.
//! - 16: node endpoints. 17: replica directory.
//!
//! Left out: sessions (every answer has session id 0, so clients send full requests; a request for a session is
//! answered FETCH_SESSION_ID_NOT_FOUND), followers, racks.
//!
//! The answer is built from slices of the log and never decodes a record. What is in memory is read at once, on the
//! connection's thread; what needs a file is read on a blocking thread, with a permit. A fetch that must wait is an
//! entry in the lists of its partitions, woken when a durable offset moves.

mod encode;
mod plan;
mod read;
mod wait;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::FetchRequest;

use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

pub use encode::FetchBody;
use plan::Plan;
pub(super) use plan::check_epoch;
use read::{Files, Round};

/// The handler.
pub struct Fetch;

impl Api for Fetch {
    type Request = FetchRequest;
    type Response = FetchBody;

    fn handle(broker: &Arc<Broker>, call: Call<FetchRequest>) -> Outcome<FetchBody> {
        // Session 0 with epoch 0 or -1 asks for everything: the only kind that is served.
        if call.body.session_id != 0 || call.body.session_epoch > 0 {
            let error = ErrorCode::FetchSessionIdNotFound;
            return Outcome::Ready(Answer::failed(FetchBody::failed(error), error));
        }
        let plan = Plan::new(broker, call.version, call.body);
        let round = read::round(broker, &plan, Files::Leave);
        if round.is_enough(&plan)
            && let Some(permit) = broker.budgets.replies.try_reserve(round.bytes)
        {
            return Outcome::Ready(finish(&plan, round, permit));
        }
        let broker = Arc::clone(broker);
        Outcome::later(async move { wait::fetch(broker, plan, round).await })
    }
}

fn finish(plan: &Plan, round: Round, permit: keelson_log::Reservation) -> Answer<FetchBody> {
    let error = round.first_error();
    Answer::new(FetchBody::new(plan, round, permit), error)
}
