//! `keelson-operator`: topics and consumer groups as Kubernetes resources, or as files.
//!
//! Owns the command line. Judgement stands in `topic` and `group`, which know neither Kubernetes nor the wire; `run`
//! and `local` are the two places where objects live.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod allocator;
mod deletion;
mod external;
mod group;
mod health;
mod identity;
mod kafka;
mod lease;
mod local;
mod metrics;
mod outcome;
mod run;
mod topic;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Keeps topics and consumer groups of a Keelson cluster as they are described.
#[derive(Parser)]
#[command(name = "keelson-operator", version, propagate_version = true)]
struct Cli {
    /// Form of the log, on stderr.
    #[arg(long, value_enum, default_value = "text", global = true)]
    log_format: LogFormat,
    /// Least level that is logged: error, warn, info, debug, trace.
    #[arg(long, default_value = "info", global = true)]
    log_level: tracing::Level,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Looks after Topic and ConsumerGroup resources, in a Kubernetes cluster or by KUBECONFIG.
    Run(Run),
    /// Applies manifests from files to a broker, without Kubernetes. Deletes nothing.
    Apply(Apply),
    /// Prints Topic manifests of the topics that exist.
    Import(Import),
    /// Takes the finalizer off all objects of a cluster and leaves topics and groups as they are: before an uninstall.
    Release(Release),
    /// The CustomResourceDefinitions.
    Crd {
        #[command(subcommand)]
        command: Crd,
    },
}

#[derive(Args)]
struct Namespaces {
    /// Looks after this namespace, and lets its objects name only topics and groups that begin with PREFIX; may be given
    /// several times. The operator's own unless given.
    #[arg(long = "namespace", value_name = "NS[=PREFIX]")]
    namespaces: Vec<run::Watched>,
    /// Looks after all namespaces.
    #[arg(long, conflicts_with = "namespaces")]
    all_namespaces: bool,
}

#[derive(Args)]
struct Run {
    /// Name of the cluster: the Helm release.
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Kafka addresses to start from, separated by commas.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: String,
    /// HTTP port of every broker; the hosts come from Kafka's metadata.
    #[arg(long, value_name = "PORT")]
    broker_http_port: u16,
    #[command(flatten)]
    namespaces: Namespaces,
    /// Address of metrics and health.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9081")]
    http: String,
    /// Written, as JSON, once the operator is up; removed at its end.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Tells every broker the load balancer's address of its Service <cluster>-broker-<id>-external.
    #[arg(long)]
    external_services: bool,
    /// Seconds between two looks at an object that nobody changed.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    resync: u64,
}

#[derive(Args)]
struct Apply {
    /// A folder of manifests, or one file.
    #[arg(short = 'f', value_name = "DIR")]
    path: PathBuf,
    /// Kafka addresses to start from, separated by commas.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: String,
    /// Goes on until stopped: follows the files and corrects drift.
    #[arg(long)]
    watch: bool,
    /// Asks the broker whether it would accept, and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// HTTP port of every broker, to look at the state of their logs.
    #[arg(long, value_name = "PORT")]
    broker_http_port: Option<u16>,
}

#[derive(Args)]
struct Import {
    /// Kafka addresses to start from, separated by commas.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: String,
}

#[derive(Args)]
struct Release {
    /// Name of the cluster: the Helm release.
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// The operator's Deployment, which is scaled to 0 first.
    #[arg(long, value_name = "NAME")]
    deployment: Option<String>,
    #[command(flatten)]
    namespaces: Namespaces,
}

#[derive(Subcommand)]
enum Crd {
    /// Prints them as YAML.
    Print,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.log_format, cli.log_level);
    match block_on(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("keelson-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn block_on(command: Command) -> anyhow::Result<ExitCode> {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
    };
    match command {
        Command::Run(it) => {
            let options = run::Options {
                cluster: it.cluster,
                bootstrap: it.bootstrap,
                broker_http_port: it.broker_http_port,
                namespaces: it.namespaces.namespaces,
                all_namespaces: it.namespaces.all_namespaces,
                http: it.http,
                ready_file: it.ready_file,
                external_services: it.external_services,
                resync: Duration::from_secs(it.resync),
            };
            runtime()?
                .block_on(run::run(options))
                .map(|()| ExitCode::SUCCESS)
        }
        Command::Apply(it) => runtime()?.block_on(local::apply(local::Options {
            path: it.path,
            bootstrap: it.bootstrap,
            watch: it.watch,
            dry_run: it.dry_run,
            broker_http_port: it.broker_http_port,
        })),
        Command::Import(it) => runtime()?.block_on(local::import(&it.bootstrap)),
        Command::Release(it) => {
            let Namespaces {
                namespaces,
                all_namespaces,
            } = it.namespaces;
            runtime()?
                .block_on(run::release_command(
                    &it.cluster,
                    it.deployment.as_deref(),
                    all_namespaces,
                    &namespaces,
                ))
                .map(|()| ExitCode::SUCCESS)
        }
        Command::Crd {
            command: Crd::Print,
        } => {
            print!("{}", keelson_crds::crds_yaml());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn start_log(format: LogFormat, level: tracing::Level) {
    // The libraries below say at their own info level what is no news here.
    let filter = EnvFilter::new(format!(
        "warn,keelson_operator={level},keelson_client={level}"
    ));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
