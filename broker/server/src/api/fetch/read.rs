//! One pass over the partitions of a plan: what each has to say now.
//!
//! Owns the byte budget of an answer and the promise behind it: below the high watermark there is data or an error. An
//! empty answer there is lawful only where the budget was used up by partitions before it; anything else is counted
//! and becomes UNKNOWN_SERVER_ERROR.

use bytes::Bytes;
use keelson_log::{ReadOutcome, ReadRequest};
use keelson_protocol::ErrorCode;

use super::plan::{Part, Plan, Todo};
use crate::broker::Broker;
use crate::errors;
use crate::metrics::FetchViolation;
use crate::partitions::PartitionOwner;

/// Whether a pass may touch files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    /// On a thread that may block.
    Read,
    /// On a runtime thread: what needs a file is left for later.
    Leave,
}

/// What one partition has to say.
#[derive(Debug, Default)]
pub(super) struct PartAnswer {
    pub(super) error: Option<ErrorCode>,
    pub(super) high_watermark: i64,
    pub(super) last_stable: i64,
    pub(super) log_start: i64,
    /// Producer and first offset of aborted transactions in what is read, for read_committed.
    pub(super) aborted: Vec<(i64, i64)>,
    pub(super) chunks: Vec<Bytes>,
    pub(super) bytes: u64,
    /// Offset after the last batch that is read.
    pub(super) next: i64,
    /// There is nothing to read at this offset, yet.
    pub(super) at_end: bool,
}

/// What all of them have to say, in the order of the plan.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) parts: Vec<PartAnswer>,
    pub(super) bytes: u64,
    /// Some partition has data that only a file holds.
    pub(super) needs_files: bool,
    /// Some partition has an error that is worth an answer at once.
    failed: bool,
}

impl Round {
    /// The first error, for the metrics.
    pub(super) fn first_error(&self) -> Option<ErrorCode> {
        self.parts.iter().find_map(|part| part.error)
    }

    /// True if there is no reason to wait, as Kafka judges it.
    pub(super) fn is_enough(&self, plan: &Plan) -> bool {
        !self.needs_files
            && (plan.params.wait.is_zero()
                || !plan.can_wait
                || self.bytes >= plan.params.bytes_min
                || self.failed)
    }
}

/// Reads as much as the plan allows.
pub(super) fn round(broker: &Broker, plan: &Plan, files: Files) -> Round {
    let mut round = Round {
        parts: Vec::with_capacity(plan.parts.len()),
        ..Round::default()
    };
    let mut is_full = false;
    for part in &plan.parts {
        let left = if is_full {
            0
        } else {
            plan.params.bytes_max.saturating_sub(round.bytes)
        };
        let answer = match &part.todo {
            Todo::Unknown(error) => failed(*error),
            Todo::Refuse(error) => {
                round.failed = true;
                failed(*error)
            }
            Todo::Read(owner) => {
                let budget = Budget {
                    is_first: round.bytes == 0,
                    left,
                    files,
                    committed_only: plan.params.read_committed,
                };
                let (answer, needs_files) = read(broker, part, owner, budget);
                // Its next batch does not fit into what is left. Those behind it would be read from files, each for nothing.
                is_full |= answer.is_empty() && !needs_files && left < part.bytes_max();
                round.needs_files |= needs_files;
                round.failed |= answer.error.is_some();
                answer
            }
        };
        round.bytes += answer.bytes;
        round.parts.push(answer);
    }
    round
}

/// What a partition may take.
struct Budget {
    /// The first batch of the whole answer is returned whatever its size, or a client would wait for it forever.
    is_first: bool,
    left: u64,
    files: Files,
    /// Nothing of a transaction that has not ended is read.
    committed_only: bool,
}

/// An error, and nothing else.
pub(super) fn failed(error: ErrorCode) -> PartAnswer {
    PartAnswer {
        error: Some(error),
        high_watermark: -1,
        last_stable: -1,
        log_start: -1,
        ..PartAnswer::default()
    }
}

/// The answer of one partition, and whether only a file holds it.
fn read(
    broker: &Broker,
    part: &Part,
    owner: &PartitionOwner,
    budget: Budget,
) -> (PartAnswer, bool) {
    // Read before the log is: it only grows, so the range below it stays readable.
    let high_watermark = owner.high_watermark();
    let log_start = owner.log().log_start();
    let next_offset = owner.log().next_offset();
    let last_stable = owner.last_stable_offset(high_watermark);
    let readable = if budget.committed_only {
        last_stable
    } else {
        high_watermark
    };
    let mut answer = PartAnswer {
        high_watermark,
        last_stable,
        log_start,
        ..PartAnswer::default()
    };
    if owner.waiters().is_removed() {
        return (failed(ErrorCode::UnknownTopicOrPartition), false);
    }
    let offset = part.wanted.offset;
    if offset < log_start || offset > next_offset.max(high_watermark) {
        return (failed(ErrorCode::OffsetOutOfRange), false);
    }
    if offset >= readable {
        answer.at_end = true;
        return (answer, false);
    }
    if part.wanted.bytes_max < 0 {
        // Kafka fails on it where there is something to read.
        return (failed(ErrorCode::UnknownServerError), false);
    }
    let allowed = part.bytes_max().min(budget.left);
    if !budget.is_first && allowed == 0 {
        return (answer, false);
    }
    let request = ReadRequest {
        from: offset,
        up_to: readable,
        max_bytes: allowed,
        min_one: budget.is_first,
        tail_only: budget.files == Files::Leave,
    };
    let needs_files = match answer.take(broker, owner, request) {
        Ok(needs_files) => needs_files,
        // With an error Kafka tells no offsets.
        Err(error) => return (failed(error), false),
    };
    if budget.committed_only && answer.bytes > 0 {
        // A batch may end behind what was asked for, but not behind what is stable.
        let aborted = owner.aborted_in(offset, answer.next.min(readable));
        let each = aborted.iter().map(|a| (a.producer_id, a.first_offset));
        answer.aborted = each.collect();
    }
    (answer, needs_files)
}

impl PartAnswer {
    /// There is something to read, and none of it is here.
    fn is_empty(&self) -> bool {
        self.bytes == 0 && !self.at_end && self.error.is_none()
    }

    /// Reads, and keeps the promise that below the end there is data or an error. True if only a file holds it.
    fn take(
        &mut self,
        broker: &Broker,
        owner: &PartitionOwner,
        request: ReadRequest,
    ) -> Result<bool, ErrorCode> {
        let (chunks, bytes, next) = match owner.log().read(request) {
            Err(error) => return Err(errors::read(&error)),
            Ok(ReadOutcome::NeedsDisk) => return Ok(true),
            Ok(ReadOutcome::Data {
                chunks,
                bytes,
                next,
                ..
            }) => (chunks, bytes, next),
        };
        let violation = if bytes == 0 {
            unlawfully_empty(owner, request).then_some(FetchViolation::EmptyBelowHighWatermark)
        } else if next <= request.from {
            Some(FetchViolation::NotTheOffset)
        } else {
            None
        };
        if let Some(violation) = violation {
            report(broker, owner, request, violation);
            return Err(ErrorCode::UnknownServerError);
        }
        (self.chunks, self.bytes, self.next) = (chunks, bytes, next);
        Ok(false)
    }
}

fn report(broker: &Broker, owner: &PartitionOwner, read: ReadRequest, violation: FetchViolation) {
    broker.metrics.fetch_violation(violation);
    tracing::error!(
        partition = %owner.id(),
        offset = read.from,
        high_watermark = read.up_to,
        reason = violation.label(),
        "a fetch would have been answered with nothing"
    );
}

/// Nothing came back although there is something: lawful only if the next batch is larger than what was allowed.
fn unlawfully_empty(owner: &PartitionOwner, request: ReadRequest) -> bool {
    if request.min_one {
        return true;
    }
    let probe = ReadRequest {
        max_bytes: 1,
        min_one: true,
        ..request
    };
    match owner.log().read(probe) {
        Ok(ReadOutcome::Data { bytes, .. }) => bytes <= request.max_bytes,
        Ok(ReadOutcome::NeedsDisk) => false,
        Err(_) => true,
    }
}
