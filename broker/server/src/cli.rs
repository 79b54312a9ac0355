//! The command line: `start`, `log verify`, `log dump`, `log accept-loss`, `config`.
//!
//! Owns arguments and exit codes. Never does the work itself.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use keelson_log::AcceptedLoss;
use keelson_log::accept::{AcceptError, AcceptRequest, GroupRequest, LOST_BESIDES};
use keelson_log::dump::DumpFilter;

use crate::config::{Config, doc};
use crate::http::rfc3339;
use crate::names::Names;
use crate::start;

/// Something does not decode (`log verify`), or the broker did not start or did not end well.
const EXIT_FAILED: u8 = 1;
/// The tool could not look (`log verify`, `log dump`); also clap's code for wrong arguments.
const EXIT_COULD_NOT_LOOK: u8 = 2;

/// A Kafka-compatible message broker that lives in Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "keelson-broker", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the broker.
    Start(StartArgs),
    /// Look into a data directory, or give up what in it cannot be read.
    Log {
        #[command(subcommand)]
        command: LogCommand,
    },
    /// Print every configuration key with its default and meaning.
    Config,
}

/// Arguments of `start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// The data directory; created if it does not exist.
    #[arg(long)]
    pub data_dir: PathBuf,
    /// A properties file.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Set one key, over what the file says; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Written once clients can be served, removed at the end.
    #[arg(long)]
    pub ready_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Decode everything and say what does not. Exit code 0: all decodes, 1: something does not, 2: could not look.
    Verify {
        /// The data directory, also of a running broker.
        #[arg(long)]
        data_dir: PathBuf,
    },
    /// Print every frame and batch.
    Dump {
        /// The data directory, also of a running broker.
        #[arg(long)]
        data_dir: PathBuf,
        /// Only this topic: its name or its id.
        #[arg(long, requires = "partition")]
        topic: Option<String>,
        /// Only this partition.
        #[arg(long, requires = "topic")]
        partition: Option<i32>,
        /// Only batches that reach this offset.
        #[arg(long)]
        from: Option<i64>,
    },
    /// Give up offsets that cannot be read, so that consumers go on behind them. The broker must be stopped; what is given
    /// up is recorded for ever. Exit code 0: recorded, 1: refused, 2: could not look.
    AcceptLoss(AcceptLossArgs),
}

/// Arguments of `log accept-loss`.
#[derive(Debug, Args)]
struct AcceptLossArgs {
    /// The data directory of a stopped broker.
    #[arg(long)]
    data_dir: PathBuf,
    #[command(flatten)]
    offsets: Option<Offsets>,
    /// In place of offsets: a commit group of the write-ahead log of which nobody knows what it held, as a refused start
    /// names it. Offsets that may have been in it are given up with it.
    #[arg(long, conflicts_with = "Offsets", required_unless_present = "Offsets")]
    group: Option<u64>,
}

/// Which offsets `log accept-loss` gives up.
#[derive(Debug, Args)]
struct Offsets {
    /// The topic: its name or its id.
    #[arg(long)]
    topic: String,
    /// The partition.
    #[arg(long)]
    partition: i32,
    /// The first offset to give up.
    #[arg(long)]
    from: i64,
    /// The last offset to give up, inclusive.
    #[arg(long)]
    to: i64,
}

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Start(args) => start_broker(&args),
        Command::Log {
            command: LogCommand::Verify { data_dir },
        } => verify(&data_dir),
        Command::Log {
            command:
                LogCommand::Dump {
                    data_dir,
                    topic,
                    partition,
                    from,
                },
        } => dump(&data_dir, topic.as_deref().zip(partition), from),
        Command::Log {
            command: LogCommand::AcceptLoss(args),
        } => accept_loss(&args),
        Command::Config => {
            print!("{}", doc::markdown());
            ExitCode::SUCCESS
        }
    }
}

fn start_broker(args: &StartArgs) -> ExitCode {
    let mut termination_message = None;
    let outcome = Config::load(args.config.as_deref(), &args.sets)
        .map_err(anyhow::Error::from)
        .and_then(|config| {
            termination_message.clone_from(&config.termination_message);
            start::run(config, args)
        });
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    eprintln!("keelson-broker: {error:#}");
    if let Some(path) = termination_message
        && let Err(unwritten) = std::fs::write(&path, format!("{error:#}"))
    {
        eprintln!("keelson-broker: {}: {unwritten}", path.display());
    }
    ExitCode::from(EXIT_FAILED)
}

fn verify(data_dir: &Path) -> ExitCode {
    let names = match Names::read(data_dir) {
        Ok(names) => names,
        Err(error) => return could_not_look(&error),
    };
    let mut out = io::stdout().lock();
    match keelson_log::verify::verify(data_dir, &|id| names.name(id), &mut out) {
        Ok(report) => {
            // A list that does not verify is a problem that the pass has told.
            for loss in keelson_log::accept::accepted_losses(data_dir).unwrap_or_default() {
                if writeln!(out, "given up (no error): {}", loss_text(&loss)).is_err() {
                    return ExitCode::from(EXIT_COULD_NOT_LOOK);
                }
            }
            let summary = writeln!(
                out,
                "{} batches, {} bytes: {} problems, {} torn tails",
                report.batches, report.bytes, report.problems, report.torn_tails
            );
            if summary.is_err() {
                ExitCode::from(EXIT_COULD_NOT_LOOK)
            } else if report.problems == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(EXIT_FAILED)
            }
        }
        Err(error) => could_not_look(&error),
    }
}

fn dump(data_dir: &Path, topic: Option<(&str, i32)>, from: Option<i64>) -> ExitCode {
    let dumped = dump_to(
        data_dir,
        topic,
        from,
        &mut io::BufWriter::new(io::stdout().lock()),
    );
    match dumped {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => could_not_look(&error),
    }
}

fn dump_to(
    data_dir: &Path,
    topic: Option<(&str, i32)>,
    from: Option<i64>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let names = Names::read(data_dir)?;
    let partition = topic
        .map(|(topic, index)| names.partition(topic, index))
        .transpose()?;
    let filter = DumpFilter { partition, from };
    keelson_log::dump::dump(data_dir, filter, &|id| names.name(id), out)?;
    out.flush()?;
    Ok(())
}

fn accept_loss(args: &AcceptLossArgs) -> ExitCode {
    let names = match Names::read(&args.data_dir) {
        Ok(names) => names,
        Err(error) => return could_not_look(&error),
    };
    let accepted = match (args.group, &args.offsets) {
        (None, Some(offsets)) => {
            let partition = match names.partition(&offsets.topic, offsets.partition) {
                Ok(partition) => partition,
                Err(error) => return could_not_look(&error),
            };
            let name = names.name(partition.topic);
            let request = AcceptRequest {
                partition,
                topic: name.unwrap_or_else(|| offsets.topic.clone()),
                from: offsets.from,
                to: offsets.to,
                by: who(),
            };
            keelson_log::accept::accept_loss(&args.data_dir, &request)
        }
        (group, _) => {
            let request = GroupRequest {
                group: group.unwrap_or(0),
                partitions: names.partitions(),
                by: who(),
            };
            keelson_log::accept::accept_group(&args.data_dir, &request)
        }
    };
    match accepted {
        Ok(losses) if losses.is_empty() => {
            println!("all of it was given up before");
            ExitCode::SUCCESS
        }
        Ok(losses) => {
            for loss in &losses {
                println!("given up: {}", loss_text(loss));
            }
            if losses.iter().any(|loss| loss.group().is_some()) {
                println!("besides records, what the group held of these is lost: {LOST_BESIDES}");
            }
            ExitCode::SUCCESS
        }
        Err(error @ AcceptError::Look(_)) => could_not_look(&error),
        Err(
            error @ (AcceptError::Running { .. }
            | AcceptError::Refused(_)
            | AcceptError::Write { .. }),
        ) => {
            eprintln!("keelson-broker: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Who runs this command, for the record.
fn who() -> String {
    let host = rustix::system::uname();
    format!(
        "uid {} on {}",
        rustix::process::getuid().as_raw(),
        host.nodename().to_string_lossy()
    )
}

fn loss_text(loss: &AcceptedLoss) -> String {
    let range = &loss.range;
    let what = match loss.group() {
        Some(group) => format!("commit group={group}"),
        None => format!(
            "topic={} partition={} offsets={}..={}",
            loss.topic,
            range.partition.map_or(-1, |id| id.index),
            range.from,
            range.to
        ),
    };
    format!(
        "file={} position={} {what} reason={} source={} accepted={} by={:?}",
        range.file,
        range.position,
        range.reason,
        range.source,
        rfc3339(loss.accepted_ms),
        loss.by
    )
}

fn could_not_look(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("keelson-broker: {error}");
    ExitCode::from(EXIT_COULD_NOT_LOOK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_the_contracts() {
        Cli::command().debug_assert();
        for line in [
            "keelson-broker start --data-dir D --config F --set a=b --set c=d --ready-file R",
            "keelson-broker log verify --data-dir D",
            "keelson-broker log dump --data-dir D --topic T --partition 0 --from 5",
            "keelson-broker log accept-loss --data-dir D --topic T --partition 0 --from 5 --to 9",
            "keelson-broker log accept-loss --data-dir D --group 7",
            "keelson-broker config",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap();
        }
        for line in [
            "keelson-broker log accept-loss",
            "keelson-broker log accept-loss --data-dir D",
            "keelson-broker log accept-loss --data-dir D --topic T --partition 0 --from 5",
            "keelson-broker log accept-loss --data-dir D --topic T --partition 0 --from 5 --to 9 --group 7",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
