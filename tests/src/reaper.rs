//! Kills an operator at a request of its own.
//!
//! Owns the moment: the operator dies by SIGKILL while a proxy holds the request, and then the request either never has its
//! effect, or has it and only the answer is lost. It knows neither Topics nor groups: what a moment is, tests say.

use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use crate::apiproxy::{ApiProxy, Asked, Fault};
use crate::kafkaproxy::{KafkaAsked, KafkaFault, KafkaProxy};
use crate::operator::Operator;
use crate::stage::Stage;

/// A request of the operator, to Kubernetes or to the broker.
#[derive(Debug, Clone, Copy)]
pub enum Request<'a> {
    /// To the API server.
    Kubernetes(&'a Asked),
    /// To the broker.
    Kafka(&'a KafkaAsked),
}

/// Whether this is the request to die at.
type Point = Box<dyn FnMut(&Request<'_>) -> bool + Send>;

struct Moment {
    victim: Pid,
    after: bool,
    point: Point,
}

/// What becomes of a request.
enum Fate {
    Pass,
    Before,
    After,
}

#[derive(Clone, Default)]
struct Scythe(Arc<Mutex<Option<Moment>>>);

impl Scythe {
    fn set(&self, moment: Option<Moment>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    }

    /// One more request. The victim dies while the proxy holds it.
    fn next(&self, request: &Request<'_>) -> Fate {
        let mut moment = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut it) = moment.take() else {
            return Fate::Pass;
        };
        if !(it.point)(request) {
            *moment = Some(it);
            return Fate::Pass;
        }
        // It may have ended by the test's own hand.
        let _ = kill_process(it.victim, Signal::KILL);
        match it.after {
            true => Fate::After,
            false => Fate::Before,
        }
    }
}

/// See the module.
pub struct Reaper {
    scythe: Scythe,
    kafka: KafkaProxy,
    _kubernetes: ApiProxy,
}

impl Reaper {
    /// An operator of the stage that was not started yet, with everything it says to anybody in between.
    pub fn of(stage: &Stage) -> (Self, Operator) {
        let (kubernetes, kafka) = (
            ApiProxy::start(),
            KafkaProxy::start(stage.broker.bootstrap()),
        );
        let scythe = Scythe::default();
        let (over_http, over_kafka) = (scythe.clone(), scythe.clone());
        kubernetes.rule(move |it| match over_http.next(&Request::Kubernetes(it)) {
            Fate::Pass => Fault::Pass,
            Fate::Before => Fault::Cut,
            Fate::After => Fault::Lose,
        });
        kafka.rule_on(move |it| match over_kafka.next(&Request::Kafka(it)) {
            Fate::Pass => KafkaFault::Pass,
            Fate::Before => KafkaFault::Cut,
            Fate::After => KafkaFault::Lose,
        });
        let proxied = format!("{}-proxied", stage.cluster);
        let operator = stage
            .setup()
            .bootstrap(kafka.address())
            .through(stage.cluster, &proxied, &kubernetes)
            .prepare();
        let reaper = Self {
            scythe,
            kafka,
            _kubernetes: kubernetes,
        };
        (reaper, operator)
    }

    /// The operator that runs now will die at the first request that is `point`; if `after`, that has its effect.
    pub fn arm(
        &self,
        operator: &Operator,
        after: bool,
        point: impl FnMut(&Request<'_>) -> bool + Send + 'static,
    ) {
        self.scythe.set(Some(Moment {
            victim: operator.pid(),
            after,
            point: Box::new(point),
        }));
    }

    /// Nobody will die.
    pub fn disarm(&self) {
        self.scythe.set(None);
    }

    /// Whether the one that it was armed for is dead.
    pub fn struck(&self) -> bool {
        let moment = &self.scythe.0;
        let moment = moment.lock().unwrap_or_else(PoisonError::into_inner);
        moment.is_none()
    }

    /// The way to the broker.
    pub fn kafka(&self) -> &KafkaProxy {
        &self.kafka
    }
}
