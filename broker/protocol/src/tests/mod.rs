//! Tests of the whole crate, by subject.

mod batches;
mod bodies;
mod frames;
