//! The differential floor: the same scripted calls to Keelson and to Apache Kafka must give the same answers.
//!
//! Owns the scripts, what is normalised, the recorded answers and the closed list of differences. A script never knows which
//! broker it talks to. `make differential` records Apache Kafka's answers; `make test` compares Keelson's with them.

mod batches;
mod case;
mod compare;
pub mod differences;
mod normal;
pub mod recording;
mod scripts;
mod tree;

use std::path::PathBuf;
use std::time::Duration;

use kafka_protocol::messages::{
    ApiVersionsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId,
    InitProducerIdRequest,
};

use crate::wire::{Wire, text};
use crate::{tools, wait_until};
use case::Script;
use recording::Recording;

/// Settings that both brokers are started with, beside their defaults.
pub const SETTINGS: [(&str, &str); 3] = [
    ("node.id", "1"),
    ("num.partitions", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
];
/// How long a broker may take until it has made its internal topics.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// One family of APIs and what runs it.
type Family = (&'static str, fn(&mut Script));

/// Every family; each has a recording of this name.
const FAMILIES: &[Family] = &[
    ("topics", scripts::topics::run),
    ("data", scripts::data::run),
    ("groups", scripts::groups::run),
    ("offsets", scripts::offsets::run),
    ("transactions", scripts::transactions::run),
    ("configs", scripts::configs::run),
    ("cluster", scripts::cluster::run),
    ("admin", scripts::admin::run),
];

/// The names of the families.
pub fn families() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|(name, _)| *name)
}

/// Where the recorded answers lie.
pub fn recordings_dir() -> PathBuf {
    tools::root().join("tests/differential/recordings")
}

/// Runs every script whose family `wanted` accepts against the broker at `address`, the families at the same time. `run`
/// keeps the names of this run apart from those of earlier ones on the same broker.
///
/// # Panics
/// When a script cannot go on.
pub fn run_scripts(
    address: &str,
    run: &str,
    wanted: impl Fn(&str) -> bool,
) -> Vec<(&'static str, Recording)> {
    warm_up(address);
    let wanted = FAMILIES.iter().filter(|(name, _)| wanted(name));
    std::thread::scope(|scope| {
        let running: Vec<_> = wanted
            .map(|(name, script)| {
                let thread = scope.spawn(|| {
                    let mut family = Script::new(address, name, run);
                    script(&mut family);
                    family.into_recording()
                });
                (*name, thread)
            })
            .collect();
        let join = |(name, thread): (_, std::thread::ScopedJoinHandle<'_, Recording>)| {
            let recording = thread.join();
            (
                name,
                recording.unwrap_or_else(|_| panic!("the script of {name} failed")),
            )
        };
        running.into_iter().map(join).collect()
    })
}

/// What the broker advertises: `name min-max`, by key.
pub fn advertised(address: &str) -> String {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(text("keelson-tests"))
        .with_client_software_version(text("1"));
    let mut apis = Wire::connect(address).call(3, &request).api_keys;
    apis.sort_by_key(|api| api.api_key);
    apis.iter()
        .map(|api| {
            let name = kafka_protocol::messages::ApiKey::try_from(api.api_key)
                .map_or_else(|()| "Unknown".to_owned(), |key| format!("{key:?}"));
            format!(
                "{} {name} {}-{}\n",
                api.api_key, api.min_version, api.max_version
            )
        })
        .collect()
}

/// The first who asks for a coordinator has its topic made; scripts want it there.
fn warm_up(address: &str) {
    let mut wire = Wire::connect(address);
    let find = |key: &str, kind| {
        FindCoordinatorRequest::default()
            .with_key(text(key))
            .with_key_type(kind)
    };
    let describe = DescribeGroupsRequest::default().with_groups(vec![GroupId(text("warm-up"))]);
    wait_until("the coordinator of groups is ready", READY_WITHIN, || {
        wire.call(3, &find("warm-up", 0)).error_code == 0
            && wire.call(5, &describe).groups[0].error_code == 0
    });
    let init = InitProducerIdRequest::default()
        .with_transactional_id(Some(text("warm-up").into()))
        .with_transaction_timeout_ms(1_000)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    wait_until(
        "the coordinator of transactions is ready",
        READY_WITHIN,
        || wire.call(3, &find("warm-up", 1)).error_code == 0 && wire.call(4, &init).error_code == 0,
    );
}
