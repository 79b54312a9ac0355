//! Tests of the whole log: a model, damage byte by byte, crashes at every disk operation.

mod crash;
mod damage;
mod model;
mod regressions;
mod room;
mod support;
