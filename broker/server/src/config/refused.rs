//! Keys of Apache Kafka that have no meaning here, and why: whoever brings a file of Kafka's is told, not ignored.
//!
//! Owns the reasons. Never has a key that works.

/// Keys, and prefixes that end with a dot, each with the reason.
pub(super) static REFUSED: &[(&str, &str)] = &[
    ("add.partitions.to.txn.retry.backoff.max.ms", ONE_PROCESS),
    ("add.partitions.to.txn.retry.backoff.ms", ONE_PROCESS),
    ("alter.config.policy.class.name", NO_PLUGINS),
    ("alter.log.dirs.replication.quota.", ONE_DIRECTORY),
    ("authorizer.class.name", NO_SECURITY),
    ("auto.leader.rebalance.enable", ONE_BROKER),
    ("background.threads", OWN_THREADS),
    ("broker.heartbeat.interval.ms", ONE_PROCESS),
    ("broker.rack", "racks are not served"),
    ("broker.session.timeout.ms", ONE_PROCESS),
    ("client.quota.callback.class", NO_PLUGINS),
    ("config.providers", "values are given as they are"),
    ("connection.failed.authentication.delay.ms", NO_SECURITY),
    ("connections.max.reauth.ms", NO_SECURITY),
    (
        "controlled.shutdown.enable",
        "SIGTERM always ends the broker cleanly",
    ),
    ("controller.", ONE_PROCESS),
    ("cordoned.log.dirs", ONE_DIRECTORY),
    ("create.topic.policy.class.name", NO_PLUGINS),
    ("delegation.token.", NO_SECURITY),
    (
        "delete.records.purgatory.purge.interval.requests",
        NO_PURGATORY,
    ),
    ("early.start.listeners", ONE_PROCESS),
    ("fetch.purgatory.purge.interval.requests", NO_PURGATORY),
    ("follower.fetch.last.tiered.offset.enable", NO_TIERS),
    (
        "group.consumer.",
        "only the classic group protocol is served",
    ),
    ("group.coordinator.", OWN_THREADS),
    ("group.share.", NO_SHARE),
    ("group.streams.", "streams groups are not served"),
    ("initial.broker.registration.timeout.ms", ONE_PROCESS),
    ("inter.broker.listener.name", ONE_BROKER),
    ("kafka.metrics.", METRICS),
    ("leader.imbalance.check.interval.seconds", ONE_BROKER),
    ("listener.name.", NO_SECURITY),
    ("log.cleaner.io.buffer.load.factor", OWN_MEMORY),
    ("log.cleaner.io.buffer.size", OWN_MEMORY),
    ("log.dir", "the data directory is given with --data-dir"),
    ("log.dir.failure.timeout.ms", ONE_DIRECTORY),
    ("log.dirs", "the data directory is given with --data-dir"),
    ("log.flush.offset.checkpoint.interval.ms", ALWAYS_SYNCED),
    ("log.flush.scheduler.interval.ms", ALWAYS_SYNCED),
    (
        "log.flush.start.offset.checkpoint.interval.ms",
        ALWAYS_SYNCED,
    ),
    (
        "max.connection.creation.rate",
        "connections are limited by number, and one that takes memory from others is closed",
    ),
    ("metadata.", "the metadata log needs no tuning"),
    ("metric.reporters", METRICS),
    ("metrics.", METRICS),
    ("num.io.threads", OWN_THREADS),
    ("num.network.threads", OWN_THREADS),
    ("num.recovery.threads.per.data.dir", OWN_THREADS),
    ("num.replica.alter.log.dirs.threads", ONE_DIRECTORY),
    ("num.replica.fetchers", ONE_BROKER),
    (
        "offsets.commit.timeout.ms",
        "a commit is answered when it is durable",
    ),
    ("offsets.load.buffer.size", OWN_MEMORY),
    (
        "offsets.topic.compression.codec",
        "offsets are stored uncompressed",
    ),
    ("principal.builder.class", NO_SECURITY),
    ("process.roles", ONE_PROCESS),
    ("producer.purgatory.purge.interval.requests", NO_PURGATORY),
    (
        "queued.max.request.bytes",
        "keelson.tail.memory.bytes bounds what is queued",
    ),
    (
        "queued.max.requests",
        "keelson.tail.memory.bytes bounds what is queued",
    ),
    ("quota.window.num", NO_QUOTAS),
    ("quota.window.size.seconds", NO_QUOTAS),
    ("remote.", NO_TIERS),
    ("replica.", ONE_BROKER),
    ("replication.quota.window.num", ONE_BROKER),
    ("replication.quota.window.size.seconds", ONE_BROKER),
    ("request.timeout.ms", ONE_PROCESS),
    ("sasl.", NO_SECURITY),
    ("security.inter.broker.protocol", NO_SECURITY),
    ("security.providers", NO_SECURITY),
    ("share.", NO_SHARE),
    ("socket.connection.setup.timeout.max.ms", ONE_PROCESS),
    ("socket.connection.setup.timeout.ms", ONE_PROCESS),
    ("socket.listen.backlog.size", SYSTEM),
    ("socket.receive.buffer.bytes", SYSTEM),
    ("socket.send.buffer.bytes", SYSTEM),
    ("ssl.", NO_SECURITY),
    ("telemetry.max.bytes", "client telemetry is not served"),
    (
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        ON_TIME,
    ),
    (
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        ON_TIME,
    ),
    ("transaction.state.log.load.buffer.size", OWN_MEMORY),
    (
        "transaction.two.phase.commit.enable",
        "two-phase commit is not served",
    ),
    ("zookeeper.", "there is no ZooKeeper"),
];

const ALWAYS_SYNCED: &str = "every batch is synced before it is acknowledged";
const METRICS: &str = "metrics are served at http.listen";
const NO_PLUGINS: &str = "there are no plugins";
const NO_PURGATORY: &str = "requests that wait cost nothing that would have to be purged";
const NO_QUOTAS: &str = "quotas are not served";
const NO_SECURITY: &str = "TLS, SASL and ACLs are not served";
const NO_SHARE: &str = "share groups are not served";
const NO_TIERS: &str = "there is no tiered storage";
const ONE_BROKER: &str = "there is one broker";
const ONE_DIRECTORY: &str = "there is one data directory";
const ONE_PROCESS: &str = "broker and controller are one process";
const ON_TIME: &str = "each transaction has a timer of its own";
const OWN_MEMORY: &str = "buffers are as large as what they hold";
const OWN_THREADS: &str = "the broker has as many threads as it needs";
const SYSTEM: &str = "the system's own setting counts";

/// Why a key is refused, if it is one of these.
pub(super) fn reason(key: &str) -> Option<&'static str> {
    let matches = |name: &str| key == name || name.ends_with('.') && key.starts_with(name);
    let found = REFUSED.iter().find(|(name, _)| matches(name));
    found.map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEYS;
    use keelson_state::config::TopicDefaults;

    #[test]
    fn what_works_is_not_refused() {
        assert!(REFUSED.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let own = KEYS.iter().map(|key| key.name);
        let exact = |key: &str| REFUSED.iter().any(|(name, _)| *name == key);
        for key in own.chain(TopicDefaults::keys().map(|(_, synonym)| synonym.name)) {
            assert!(!exact(key), "{key}");
        }
        assert!(reason("log.dirs").is_some() && reason("log.retention.ms").is_none());
        assert!(reason("ssl.key.password").is_some() && reason("sslx").is_none());
    }
}
