//! `keelson-bench`: load for any Kafka-compatible broker, with every record's content counted and verified.
//!
//! Owns: the command line and the choice of the load. Three loads stand in files of their own: `produce` and `round_trip` and
//! `consume` on librdkafka, `lean` over plain sockets for one record per request on many connections. Never takes a record
//! for good by its number alone: each payload carries a checksum, a stream and a sequence.

mod args;
mod client;
mod consume;
mod lean;
mod produce;
mod progress;
mod report;
mod round_trip;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use args::{Args, Mode};
use report::Report;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(report) => {
            report.print(args.json);
            if report.is_clean() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("keelson-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<Report> {
    args.check()?;
    if args.create_topic {
        client::create_topic(args).with_context(|| format!("creating {}", args.topic))?;
    }
    match args.mode {
        Mode::Produce if args.one_per_request => lean::run(args),
        Mode::Produce => produce::run(args),
        Mode::Consume => consume::run(args),
        Mode::RoundTrip => round_trip::run(args),
    }
}
