//! One client connection: one task that reads frames, hands them to their handlers, and writes the replies in order.
//!
//! Owns the order of replies and every bound of a connection. A Produce may follow another that still waits for its
//! ack; any other request waits for those before it, as in Kafka, so that a connection has at most one of them in
//! memory. A request whose answer is ready at once costs one read and one write. Never logs per request.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use keelson_log::Reservation;
use keelson_protocol::api;
use keelson_protocol::frame::{FrameError, FrameHead, FrameLimits, RequestHeader};
use keelson_protocol::kafka_protocol::messages::ApiKey;
use keelson_protocol::{ErrorCode, api::FrameClass, legacy};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::inbox::{Inbox, Next, Received, SCRATCH_BYTES};
use super::outbox::Outbox;
use crate::broker::Broker;
use crate::budgets::{ANSWER_FREE_BYTES, Budgets, CONTROL_FREE_BYTES, Gate, Rank, Turn, is_behind};
use crate::dispatch::{
    Answered, DECODED_BYTES_MAX, DispatchError, Dispatched, Frame, LaterFrame, Origin, ROUTES,
    route,
};
use crate::reply::Reply;

/// Produce requests of one connection that may wait for their acks at once; clients send 5, unordered ones more.
const PRODUCE_PENDING_MAX: usize = 64;
/// A frame that has begun must go on within this time: it may hold memory that others wait for.
const PARTIAL_FRAME_STALL: Duration = Duration::from_secs(10);
/// A client that takes no byte of its replies for this long is gone.
const WRITE_STALL: Duration = Duration::from_secs(60);
/// How often a connection that holds memory is looked at.
const PACE_CHECK: Duration = Duration::from_millis(100);
/// How much larger than its bytes a decoded request may be, for the budget of large requests.
const DECODED_FACTOR: usize = 16;

std::thread_local! {
    /// What one read takes from a socket; shared by all connections of a thread, so that an idle one holds no buffer.
    static SCRATCH: std::cell::RefCell<Box<[u8]>> = std::cell::RefCell::new(vec![0; SCRATCH_BYTES].into());
}

/// Why a connection ended.
#[derive(Debug, Error)]
pub(super) enum End {
    /// The client closed it, or the network did.
    #[error("closed by the client")]
    Client,
    /// Nothing happened for too long.
    #[error("idle")]
    Idle,
    /// The broker is stopping and everything due was answered.
    #[error("the broker is stopping")]
    Stopping,
    /// A frame or its header is malformed, or of an API that is not served.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A request cannot be answered.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    /// The version is not served.
    #[error("API key {api_key} version {api_version} is not served")]
    Version {
        /// Which API.
        api_key: i16,
        /// Which version.
        api_version: i16,
    },
    /// The frame can never fit the memory it draws on.
    #[error("a frame of {length} bytes is above the bound of {max}")]
    AboveBudget {
        /// Its length.
        length: usize,
        /// The bound.
        max: u64,
    },
    /// A handler said so.
    #[error("{0}")]
    Handler(&'static str),
    /// A frame began and did not go on, or replies are not taken.
    #[error("{0}")]
    Stalled(&'static str),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Client
    }
}

impl End {
    /// True if the client did something wrong that its owner should hear of.
    pub(super) fn is_fault(&self) -> bool {
        match self {
            End::Client | End::Idle | End::Stopping => false,
            End::Frame(_)
            | End::Dispatch(_)
            | End::Version { .. }
            | End::AboveBudget { .. }
            | End::Handler(_)
            | End::Stalled(_) => true,
        }
    }
}

/// A request that is not answered yet.
struct Pending {
    route: usize,
    is_produce: bool,
    /// Nothing starts before it is answered.
    is_alone: bool,
    since: std::time::Instant,
    answer: LaterFrame,
}

/// A connection and everything it owns.
pub(super) struct Connection<S> {
    io: S,
    broker: Arc<Broker>,
    origin: Origin,
    ticket: u64,
    limits: FrameLimits,
    inbox: Inbox,
    outbox: Outbox,
    pending: VecDeque<Pending>,
    /// The gate in whose queue the connection stands.
    waiting_at: Option<Arc<Gate>>,
    /// What a large frame holds while it arrives, and where.
    arriving: Option<(Arc<Gate>, Reservation)>,
    stopping: bool,
    last_move: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(io: S, broker: Arc<Broker>, origin: Origin) -> Self {
        let now = Instant::now();
        let limits = FrameLimits {
            records_bytes_max: broker.config.socket_request_max_bytes,
            ..FrameLimits::default()
        };
        let ticket = broker.ticket();
        let idle = idle_limit(&broker);
        Self {
            io,
            broker,
            origin,
            ticket,
            limits,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            pending: VecDeque::new(),
            waiting_at: None,
            arriving: None,
            stopping: false,
            last_move: now,
            timer: Box::pin(tokio::time::sleep(idle)),
        }
    }

    /// Serves until the connection ends; once `stopping` resolves, only what was asked before is answered.
    pub(super) async fn serve(mut self, stopping: impl Future<Output = ()>) -> End {
        let mut stopping = std::pin::pin!(stopping);
        std::future::poll_fn(|cx| {
            if !self.stopping && stopping.as_mut().poll(cx).is_ready() {
                self.stopping = true;
            }
            self.poll_serve(cx)
        })
        .await
    }

    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            match self.poll_once(cx) {
                Ok(true) => {}
                Ok(false) => break,
                Err(end) => return Poll::Ready(end),
            }
        }
        if self.stopping && self.outbox.is_empty() && !self.pending.iter().any(|p| p.is_produce) {
            return Poll::Ready(End::Stopping);
        }
        self.poll_timer(cx)
    }

    /// One round: answers that are ready, bytes out, frames that are complete, bytes in. True if anything moved.
    fn poll_once(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = self.poll_answers(cx)?;
        moved |= self.poll_write(cx)?;
        if self.stopping {
            return Ok(moved);
        }
        moved |= self.poll_frames(cx)?;
        moved |= self.poll_read(cx)?;
        if moved {
            self.last_move = Instant::now();
        }
        Ok(moved)
    }

    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        while let Some(front) = self.pending.front_mut() {
            let Poll::Ready(answered) = front.answer.as_mut().poll(cx) else {
                break;
            };
            let Answered { reply, error } = answered.map_err(DispatchError::Encode)?;
            self.broker
                .metrics
                .answered(front.route, error, front.since.elapsed());
            self.pending.pop_front();
            self.send(reply)?;
            moved = true;
        }
        Ok(moved)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.outbox.is_empty() {
            return Ok(false);
        }
        match self.outbox.poll_write(&mut self.io, cx) {
            Poll::Ready(written) => Ok(written? > 0),
            Poll::Pending => Ok(false),
        }
    }

    /// Whether the next request may start: replies must not pile up, and only Produce runs beside others.
    fn may_start(&self, is_produce: bool) -> bool {
        if !self.outbox.is_empty() {
            return false;
        }
        match self.pending.back() {
            None => true,
            Some(last) => {
                let beside = is_produce && last.is_produce && !last.is_alone;
                beside && self.pending.len() < PRODUCE_PENDING_MAX
            }
        }
    }

    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        loop {
            match self.inbox.next(&self.limits)? {
                Next::More => return Ok(moved),
                Next::Reserve(head) => {
                    if !self.may_start(is_produce(head)) || self.poll_arrive(head, cx).is_pending()
                    {
                        return Ok(moved);
                    }
                    // What is produced stays in its buffer: that is taken from the tail memory at once.
                    let reservation = match head.class {
                        FrameClass::Control => None,
                        FrameClass::Records => match self.poll_reserve(head, cx)? {
                            Poll::Ready(reservation) => Some(reservation),
                            Poll::Pending => return Ok(moved),
                        },
                    };
                    self.inbox.begin_large(head, reservation);
                }
                Next::Whole(head) => {
                    if !self.may_start(is_produce(head)) {
                        return Ok(moved);
                    }
                    let reservation = if needs_reservation(head) && !self.inbox.is_reserved() {
                        let Poll::Ready(reservation) = self.poll_reserve(head, cx)? else {
                            return Ok(moved);
                        };
                        Some(reservation)
                    } else {
                        None
                    };
                    let mut received = self.inbox.take(head);
                    received.reservation = received.reservation.or(reservation);
                    self.arriving = None;
                    self.start(received)?;
                }
            }
            moved = true;
        }
    }

    fn turn(&self, rank: Rank) -> Turn {
        Turn {
            ticket: self.ticket,
            address: Some(self.origin.host),
            rank,
        }
    }

    /// Reserves what a large frame holds while it arrives, in turn.
    fn poll_arrive(&mut self, head: FrameHead, cx: &mut Context<'_>) -> Poll<()> {
        if self.arriving.is_some() {
            return Poll::Ready(());
        }
        let (gate, bytes) = self.broker.budgets.arriving(head);
        let polled = gate.poll_reserve(self.turn(Rank::Complete), bytes, cx);
        self.waiting_at = polled.is_pending().then(|| Arc::clone(gate));
        polled.map(|reservation| self.arriving = Some((Arc::clone(gate), reservation)))
    }

    /// Reserves the memory of a frame from the budget of its class, in turn.
    fn poll_reserve(
        &mut self,
        head: FrameHead,
        cx: &mut Context<'_>,
    ) -> Result<Poll<Reservation>, End> {
        let (gate, bytes) = match head.class {
            FrameClass::Records => (&self.broker.budgets.records, head.length as u64),
            FrameClass::Control => {
                let decoded = (head.length * DECODED_FACTOR).min(DECODED_BYTES_MAX);
                (&self.broker.budgets.control, (head.length + decoded) as u64)
            }
        };
        if bytes > gate.bytes_max() {
            return Err(End::AboveBudget {
                length: head.length,
                max: gate.bytes_max(),
            });
        }
        let rank = if self.arriving.is_some() && head.class == FrameClass::Records {
            Budgets::rank(head)
        } else {
            Rank::Complete
        };
        let polled = gate.poll_reserve(self.turn(rank), bytes, cx);
        self.waiting_at = match &polled {
            Poll::Ready(_) => None,
            Poll::Pending => Some(Arc::clone(gate)),
        };
        Ok(polled)
    }

    /// Decodes a frame and runs its handler.
    fn start(&mut self, received: Received) -> Result<(), End> {
        let Received {
            head,
            mut bytes,
            reservation,
        } = received;
        let since = std::time::Instant::now();
        let header = RequestHeader::decode(&mut bytes)?;
        let served = api::spec(head.api_key).is_some_and(|spec| spec.supports(head.api_version));
        if !served {
            return self.refuse_version(&header, bytes);
        }
        let Some(route) = route(head.api_key) else {
            return Err(FrameError::UnknownApi {
                api_key: head.api_key,
            }
            .into());
        };
        let frame = Frame {
            header,
            body: bytes,
            origin: self.origin,
            pin: reservation.map(Arc::new),
        };
        match ROUTES[route].call(&self.broker, frame)? {
            Dispatched::Ready(answered) => self.answer_in_order(answered, route, since)?,
            Dispatched::Later(answer) => self.pend(answer, head, false, (route, since)),
            Dispatched::Alone(answer) => self.pend(answer, head, true, (route, since)),
            Dispatched::Silent => self.broker.metrics.answered(route, None, since.elapsed()),
            Dispatched::Close(reason) => return Err(End::Handler(reason)),
        }
        Ok(())
    }

    fn pend(
        &mut self,
        answer: LaterFrame,
        head: FrameHead,
        is_alone: bool,
        (route, since): (usize, std::time::Instant),
    ) {
        self.pending.push_back(Pending {
            route,
            is_produce: is_produce(head),
            is_alone,
            since,
            answer,
        });
    }

    /// An answer that is ready goes out at once, unless an earlier one is not.
    fn answer_in_order(
        &mut self,
        answered: Answered,
        route: usize,
        since: std::time::Instant,
    ) -> Result<(), End> {
        if !self.pending.is_empty() {
            self.pending.push_back(Pending {
                route,
                is_produce: true,
                is_alone: false,
                since,
                answer: Box::pin(std::future::ready(Ok(answered))),
            });
            return Ok(());
        }
        let Answered { reply, error } = answered;
        self.broker.metrics.answered(route, error, since.elapsed());
        self.send(reply)
    }

    /// Puts a reply behind those before it. One that carries records brings its permit; any other large one is charged here.
    fn send(&mut self, mut reply: Reply) -> Result<(), End> {
        let bytes: usize = reply.chunks.iter().map(Bytes::len).sum();
        if reply.permit.is_none() && bytes > ANSWER_FREE_BYTES {
            let answers = &self.broker.budgets.answers;
            let charged = (bytes as u64).min(answers.bytes_max());
            let Some(permit) = answers.try_reserve(charged) else {
                return Err(End::Stalled(
                    "there is no room for its reply: others do not take theirs",
                ));
            };
            reply.permit = Some(Box::new(permit));
        }
        self.outbox.push(reply);
        Ok(())
    }

    /// Kafka answers two kinds of requests whose version it does not serve, and closes the connection on the others.
    fn refuse_version(&mut self, header: &RequestHeader, body: Bytes) -> Result<(), End> {
        let key = header.api_key;
        let frame = if key == ApiKey::ApiVersions as i16 {
            Some(legacy::refuse_api_versions(header.correlation_id)?)
        } else if key == ApiKey::Produce as i16
            && (0..=legacy::PRODUCE_REFUSED_VERSION_MAX).contains(&header.api_version)
        {
            legacy::refuse_produce(header.api_version, header.correlation_id, body)?
        } else {
            return Err(End::Version {
                api_key: key,
                api_version: header.api_version,
            });
        };
        if let Some(frame) = frame {
            let reply = Reply {
                chunks: vec![frame.freeze()],
                permit: None,
            };
            let error = Some(ErrorCode::UnsupportedVersion);
            let route = route(key).unwrap_or(ROUTES.len());
            let answered = Answered { reply, error };
            self.answer_in_order(answered, route, std::time::Instant::now())?;
        }
        Ok(())
    }

    /// Reads what the socket has, if there is use for it: not while a complete frame waits for its turn.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if let Some((buffer, missing)) = self.inbox.large() {
            let mut limited = buffer.limit(missing);
            let polled = tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut limited);
            return match polled {
                Poll::Ready(read) => received(read?),
                Poll::Pending => Ok(false),
            };
        }
        match self.inbox.next(&self.limits)? {
            Next::More => {}
            Next::Whole(_) | Next::Reserve(_) => return Ok(false),
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Ready(result) => {
                    result?;
                    self.inbox.push(buffer.filled());
                    received(buffer.filled().len())
                }
                Poll::Pending => Ok(false),
            }
        })
    }

    /// The one timer of a connection is looked at when it fires, not moved at each request.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let (limit, end) = self.time_limit();
        let mut deadline = self.last_move + limit;
        let now = Instant::now();
        if now >= deadline {
            return Poll::Ready(end);
        }
        if self.holds_memory() {
            if let Some(end) = self.slow(now) {
                return Poll::Ready(end);
            }
            deadline = deadline.min(now + PACE_CHECK);
        }
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// A frame that arrives, or a reply that is not taken, holds memory that others may wait for.
    fn holds_memory(&self) -> bool {
        self.arriving.is_some() || self.outbox.unfinished().is_some()
    }

    /// Why the connection has to go now: others wait for the memory that it holds, and it does not move.
    fn slow(&self, now: Instant) -> Option<End> {
        let budgets = &self.broker.budgets;
        if let Some((gate, _)) = &self.arriving
            && let Some((since, arrived)) = self.inbox.unfinished()
            && gate.is_pressed()
            && is_behind(since, arrived, now)
        {
            return Some(End::Stalled("a frame arrives too slowly while others wait"));
        }
        let (since, taken) = self.outbox.unfinished()?;
        let pressed = budgets.replies.is_pressed() || budgets.answers.is_pressed();
        (pressed && is_behind(since, taken, now)).then_some(End::Stalled(
            "replies are taken too slowly while others wait",
        ))
    }

    fn time_limit(&self) -> (Duration, End) {
        if !self.outbox.is_empty() {
            return (WRITE_STALL, End::Stalled("replies are not taken"));
        }
        if !self.pending.is_empty() || self.waiting_at.is_some() {
            // It is the broker that is to move next; each request has a time limit of its own.
            return (NEVER, End::Idle);
        }
        if self.inbox.is_partial() {
            return (
                PARTIAL_FRAME_STALL,
                End::Stalled("a frame began and did not go on"),
            );
        }
        (idle_limit(&self.broker), End::Idle)
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        if let Some(gate) = self.waiting_at.take() {
            gate.forget(self.ticket);
        }
    }
}

/// Longer than any process runs, short enough for every clock.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

fn idle_limit(broker: &Broker) -> Duration {
    u64::try_from(broker.config.connections_max_idle_ms)
        .map_or(NEVER, Duration::from_millis)
        .min(NEVER)
}

fn is_produce(head: FrameHead) -> bool {
    head.class == FrameClass::Records
}

fn needs_reservation(head: FrameHead) -> bool {
    match head.class {
        FrameClass::Records => true,
        FrameClass::Control => head.length > CONTROL_FREE_BYTES,
    }
}

/// Zero bytes are the end of the stream.
fn received(bytes: usize) -> Result<bool, End> {
    if bytes == 0 {
        Err(End::Client)
    } else {
        Ok(true)
    }
}
