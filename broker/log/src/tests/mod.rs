//! Tests of the whole log: a model, damage byte by byte, crashes at every disk operation.

mod bad_days;
mod classes;
mod compaction;
mod crash;
mod damage;
mod directory;
mod golden;
mod impossible;
mod in_use;
mod lost_groups;
mod model;
mod outlived;
mod passed_over;
mod readback;
mod regressions;
mod room;
mod sim;
mod support;
mod truncate;
mod watch;
mod window;
