//! Crashes in simulation: a log on a simulated disk, on one thread ([`crate::stepped`]), so that a seed replays everything.
//!
//! `make sim` runs [`points::random_lives`] and the scripts for long; `make test` runs them for a while.
//!
//! | File | What |
//! |---|---|
//! | `told` | what clients were told, and the invariants |
//! | `life` | what can be done to a log, and the check after a crash |
//! | `scripts` | scripted workloads: a crash at every disk operation of each |
//! | `points` | random workloads, random faults |
//! | `damage` | disks that lie |
//! | `found` | what the long runs have found, each without chance |

mod damage;
mod found;
mod life;
mod points;
mod scripts;
mod told;

pub(super) use life::sim_options;
