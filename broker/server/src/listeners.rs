//! The listeners of this broker: where each is bound, which address its clients are told, and why that one.
//!
//! Owns the choice of the address, and its change while the broker runs. An address is chosen once, told in words at the
//! start and whenever it changes, and shown by `/admin/v1/identity`. Never guesses what it cannot know.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::config::{Config, Listener, NamedListener};
use crate::known::{Address, KnownDir};

/// What is told from outside is looked at this often.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Names are looked up this long after the start (a pod's own name is not known before), and then this often.
const RESOLVE_FIRST: Duration = Duration::from_secs(15);
const RESOLVE_PERIOD: Duration = Duration::from_secs(60);
/// Longest wait for a name.
const RESOLVE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Which listener a connection came in on: its place in `listeners`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerId(pub usize);

/// All listeners, bound.
#[derive(Debug)]
pub struct Listeners {
    all: Vec<One>,
    known: Option<KnownDir>,
}

#[derive(Debug)]
struct One {
    name: String,
    bound: String,
    /// Nobody configured what its clients are told, and nobody here can know it.
    is_told_outside: bool,
    advertised: ArcSwap<Advertised>,
}

/// What clients of a listener are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advertised {
    /// The address; `None` as long as nobody knows one.
    pub address: Option<Listener>,
    /// Why this one, or why none.
    pub why: String,
    /// Why clients may fail to reach it.
    pub problem: Option<String>,
}

/// One listener, as it is shown.
#[derive(Debug)]
pub struct View<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it is bound.
    pub bound: &'a str,
    /// What its clients are told.
    pub advertised: Arc<Advertised>,
}

impl Listeners {
    /// Chooses what the clients of each listener are told; `bound` has the sockets in the order of `listeners`.
    pub fn new(config: &Config, bound: &[SocketAddr], host_name: &str) -> Self {
        let known = config.known_dir.as_deref();
        let all = config.listeners.iter().zip(bound).enumerate();
        let all = all.map(|(place, (listener, bound))| {
            let configured = config.advertised_of(&listener.name);
            let is_told_outside = place > 0 && configured.is_none() && known.is_some();
            let advertised = if is_told_outside {
                Advertised {
                    why: "nobody has told yet where it is reached from outside".to_owned(),
                    ..Advertised::default()
                }
            } else {
                choose(listener, configured, *bound, host_name)
            };
            One {
                name: listener.name.clone(),
                bound: bound.to_string(),
                is_told_outside,
                advertised: ArcSwap::from_pointee(advertised),
            }
        });
        let listeners = Self {
            all: all.collect(),
            known: known.map(|dir| KnownDir::new(dir, config.node_id)),
        };
        for one in &listeners.all {
            one.tell();
        }
        listeners
    }

    /// The address that clients of a listener are told.
    pub fn advertised(&self, id: ListenerId) -> Option<Listener> {
        self.all.get(id.0)?.advertised.load().address.clone()
    }

    /// All of them.
    pub fn views(&self) -> impl Iterator<Item = View<'_>> {
        self.all.iter().map(|one| View {
            name: &one.name,
            bound: &one.bound,
            advertised: one.advertised.load_full(),
        })
    }

    /// Takes over what is told from outside. Reads files: for a thread that may block.
    fn look(&self) {
        let Some(known) = &self.known else {
            return;
        };
        for one in self.all.iter().filter(|one| one.is_told_outside) {
            let before = one.advertised.load_full();
            one.change(take_over(&before, known.address(&one.name)));
        }
    }

    /// Looks up the names that clients are told.
    async fn resolve(&self) {
        for one in &self.all {
            let before = one.advertised.load_full();
            let Some(address) = before.address.clone().filter(Listener::is_name) else {
                continue;
            };
            let looked = tokio::net::lookup_host((address.host.clone(), address.port));
            let problem = match tokio::time::timeout(RESOLVE_WAIT_MAX, looked).await {
                Ok(Ok(mut found)) => found
                    .next()
                    .is_none()
                    .then(|| "it has no address".to_owned()),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {RESOLVE_WAIT_MAX:?}")),
            };
            let problem = problem
                .map(|error| format!("the name {} is not found from here: {error}", address.host));
            one.change(Advertised {
                problem,
                ..Advertised::clone(&before)
            });
        }
    }
}

/// As Kafka writes them; one without an address is left out.
impl fmt::Display for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.views().filter_map(|view| {
            let address = view.advertised.address.clone()?;
            let name = view.name.to_owned();
            Some(NamedListener { name, address }.to_string())
        });
        f.write_str(&all.collect::<Vec<_>>().join(","))
    }
}

impl One {
    /// Only the task of [`watch`] calls this, so that nothing comes in between.
    fn change(&self, now: Advertised) {
        if **self.advertised.load() != now {
            self.advertised.store(Arc::new(now));
            self.tell();
        }
    }

    fn tell(&self) {
        let advertised = self.advertised.load();
        let Advertised {
            address,
            why,
            problem,
        } = advertised.as_ref();
        let (listener, bound) = (&self.name, &self.bound);
        let address = address
            .as_ref()
            .map_or("none".to_owned(), Listener::address);
        match problem {
            None => tracing::info!(listener, bound, advertised = address, why, "listener"),
            Some(problem) => {
                tracing::warn!(
                    listener,
                    bound,
                    advertised = address,
                    why,
                    problem,
                    "listener"
                );
            }
        }
    }
}

/// Follows what is told from outside, and looks whether names are known, until `stopping` is cancelled.
pub async fn watch(broker: Arc<Broker>, stopping: CancellationToken) {
    let mut resolve_at = Instant::now() + RESOLVE_FIRST;
    loop {
        let looked = Arc::clone(&broker);
        let look = tokio::task::spawn_blocking(move || {
            if let Some(listeners) = looked.listeners() {
                listeners.look();
            }
        });
        if look.await.is_err() {
            return;
        }
        if Instant::now() >= resolve_at
            && let Some(listeners) = broker.listeners()
        {
            listeners.resolve().await;
            resolve_at = Instant::now() + RESOLVE_PERIOD;
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK_PERIOD) => {}
        }
    }
}

/// As configured, or where it is listened for.
fn choose(
    listener: &NamedListener,
    configured: Option<&Listener>,
    bound: SocketAddr,
    host_name: &str,
) -> Advertised {
    let own = &listener.address;
    let (mut address, why) = match configured {
        Some(configured) => (configured.clone(), "advertised.listeners says so"),
        None if own.is_wildcard() => (
            Listener {
                host: host_name.to_owned(),
                port: 0,
            },
            "the host's own name, since it listens on every interface and advertised.listeners says nothing",
        ),
        None => (
            own.clone(),
            "where it listens, since advertised.listeners says nothing",
        ),
    };
    if address.port == 0 {
        address.port = bound.port();
    }
    let here_only = address.is_loopback() && !bound.ip().is_loopback();
    Advertised {
        problem: here_only
            .then(|| "a loopback address is reached from this machine only".to_owned()),
        address: Some(address),
        why: why.to_owned(),
    }
}

/// What follows from what is told. An address that was told once stays until another one, or none, is told.
fn take_over(before: &Advertised, told: Result<Option<Address>, String>) -> Advertised {
    let with_problem = |problem: String| Advertised {
        problem: Some(problem),
        ..before.clone()
    };
    match told {
        Ok(None) => before.clone(),
        Err(error) => with_problem(error),
        Ok(Some(Address {
            host: None, why, ..
        })) => Advertised {
            address: None,
            why,
            problem: None,
        },
        Ok(Some(Address {
            host: Some(host),
            port,
            why,
        })) => {
            let address = Listener { host, port };
            if address.is_wildcard() || port == 0 {
                let address = address.address();
                return with_problem(format!(
                    "clients cannot connect to {address}, which was told: {why}"
                ));
            }
            if before.address.as_ref() == Some(&address) && before.why == why {
                return before.clone();
            }
            Advertised {
                address: Some(address),
                why,
                problem: None,
            }
        }
    }
}

impl Listener {
    fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host == "localhost",
        }
    }

    fn is_name(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(sets: &[&str], bound: &[&str]) -> Listeners {
        let sets: Vec<String> = sets.iter().map(|it| (*it).to_owned()).collect();
        let config = Config::load(None, &sets).unwrap();
        let bound: Vec<SocketAddr> = bound.iter().map(|it| it.parse().unwrap()).collect();
        Listeners::new(&config, &bound, "pod-0")
    }

    #[track_caller]
    fn check(sets: &[&str], bound: &str, address: &str, why: &str, problem: bool) {
        let listeners = listeners(sets, &[bound]);
        let told = listeners.all[0].advertised.load_full();
        assert_eq!(
            told.address.as_ref().map(Listener::address).as_deref(),
            Some(address)
        );
        assert!(told.why.contains(why), "{}", told.why);
        assert_eq!(told.problem.is_some(), problem, "{:?}", told.problem);
    }

    #[test]
    fn the_address_is_explained() {
        let all = "0.0.0.0:9092";
        let any = "listeners=PLAINTEXT://:9092";
        check(
            &[],
            "127.0.0.1:9092",
            "127.0.0.1:9092",
            "where it listens",
            false,
        );
        check(&[any], all, "pod-0:9092", "the host's own name", false);
        let named = "advertised.listeners=PLAINTEXT://kafka.example.org:0";
        check(
            &[any, named],
            all,
            "kafka.example.org:9092",
            "advertised.listeners says so",
            false,
        );
        let here = "advertised.listeners=PLAINTEXT://localhost:1";
        check(
            &[any, here],
            all,
            "localhost:1",
            "advertised.listeners says so",
            true,
        );
    }

    const TWO: &str = "listeners=PLAINTEXT://:1,EXTERNAL://:2";
    const MAP: &str = "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,EXTERNAL:PLAINTEXT";

    #[test]
    fn each_listener_has_its_own_address() {
        let both = "advertised.listeners=EXTERNAL://node:31000,PLAINTEXT://pod:1";
        let listeners = listeners(&[TWO, MAP, both], &["0.0.0.0:1", "0.0.0.0:2"]);
        let address = |id| listeners.advertised(ListenerId(id)).map(|it| it.address());
        assert_eq!(address(0).as_deref(), Some("pod:1"));
        assert_eq!(address(1).as_deref(), Some("node:31000"));
        assert_eq!(address(2), None);
    }

    #[test]
    fn what_is_told_from_outside_is_taken_over_and_nothing_impossible_is() {
        let dir = tempfile::tempdir().unwrap();
        let known = format!("keelson.known.dir={}", dir.path().display());
        let listeners = listeners(&[TWO, MAP, &known], &["0.0.0.0:1", "0.0.0.0:2"]);
        let tell = |text: &str| {
            std::fs::write(dir.path().join("broker-0.EXTERNAL"), text).unwrap();
            listeners.look();
        };
        #[track_caller]
        fn check(listeners: &Listeners, address: Option<&str>, why: &str, problem: &str) {
            let told = listeners.all[1].advertised.load_full();
            assert_eq!(
                told.address.as_ref().map(Listener::address).as_deref(),
                address
            );
            assert!(told.why.contains(why), "{}", told.why);
            let found = told.problem.clone().unwrap_or_default();
            assert!(
                found.contains(problem) && found.is_empty() == problem.is_empty(),
                "{found}"
            );
        }
        listeners.look();
        check(&listeners, None, "nobody has told", "");
        assert!(
            listeners.advertised(ListenerId(0)).is_some(),
            "the first one needs nobody"
        );
        tell(r#"{"host":null,"port":9094,"why":"the Service has no address yet"}"#);
        check(&listeners, None, "has no address yet", "");
        tell(r#"{"host":"198.51.100.7","port":9094,"why":"the Service says so"}"#);
        check(
            &listeners,
            Some("198.51.100.7:9094"),
            "the Service says so",
            "",
        );
        tell(r#"{"host":"0.0.0.0","port":9094,"why":"a mistake"}"#);
        check(
            &listeners,
            Some("198.51.100.7:9094"),
            "the Service says so",
            "cannot connect to 0.0.0.0:9094",
        );
        tell("nonsense");
        check(
            &listeners,
            Some("198.51.100.7:9094"),
            "",
            "not what the operator writes",
        );
        std::fs::remove_file(dir.path().join("broker-0.EXTERNAL")).unwrap();
        listeners.look();
        check(
            &listeners,
            Some("198.51.100.7:9094"),
            "",
            "not what the operator writes",
        );
        tell(r#"{"host":"lb.example.org","port":9094,"why":"it moved"}"#);
        check(&listeners, Some("lb.example.org:9094"), "it moved", "");
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_told() {
        let name = "advertised.listeners=PLAINTEXT://nobody.invalid:1";
        let listeners = listeners(&["listeners=PLAINTEXT://:1", name], &["0.0.0.0:1"]);
        listeners.resolve().await;
        let problem = listeners.all[0].advertised.load_full().problem.clone();
        assert!(problem.is_some_and(|it| it.contains("nobody.invalid is not found from here")));
        let listeners = self::listeners(&[], &["127.0.0.1:1"]);
        listeners.resolve().await;
        assert_eq!(listeners.all[0].advertised.load().problem, None);
    }
}
