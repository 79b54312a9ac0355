//! Keys that say where the broker is found, and what is known of it from outside.

use std::path::PathBuf;

use keelson_state::config::Kind;

use super::Key;
use crate::config::listener;

pub(super) const ADVERTISED_LISTENERS: Key = Key {
    name: "advertised.listeners",
    kind: Kind::String,
    is_dynamic: false,
    default: None,
    doc: "The address that the clients of each listener are told to connect to. Port 0 stands for the bound port. \
          Default of the first: the address of `listeners`; the host's name where that is every interface. Of the \
          others the same, unless `keelson.known.dir` is set: then they wait for what it tells.",
    set: |config, value| {
        config.advertised = listener::parse_all(value)?;
        Ok(())
    },
};

pub(super) const HTTP_LISTEN: Key = Key {
    name: "http.listen",
    kind: Kind::String,
    is_dynamic: false,
    default: Some("127.0.0.1:9080"),
    doc: "Address of the HTTP server (metrics, probes, log health); port 0 picks a free one.",
    set: |config, value| {
        config.http_listen = listener::split(value)?;
        Ok(())
    },
};

pub(super) const KNOWN_DIR: Key = Key {
    name: "keelson.known.dir",
    kind: Kind::String,
    is_dynamic: false,
    default: None,
    doc: "A folder with what is known of the broker outside of its data directory; the chart mounts the operator's \
          ConfigMap as it. `broker-<id>.identity` is compared with the data directory at the start: an empty directory, \
          another one, or an older copy stops it in words, until `broker-<id>.accept` accepts exactly that. A file that \
          is not there tells nothing. \
          `broker-<id>.<listener>` is where a listener is reached from outside; it is followed without a restart. \
          Default: none.",
    set: |config, value| {
        if value.is_empty() {
            return Err("it must be a folder".to_owned());
        }
        config.known_dir = Some(PathBuf::from(value));
        Ok(())
    },
};

pub(super) const LISTENER_PROTOCOLS: Key = Key {
    name: "listener.security.protocol.map",
    kind: Kind::String,
    is_dynamic: false,
    default: Some("PLAINTEXT:PLAINTEXT"),
    doc: "The protocol of each listener that has a name of its own, as `NAME:PLAINTEXT`: there is no other.",
    set: |config, value| {
        config.listener_protocols = listener::protocols(value)?;
        Ok(())
    },
};

pub(super) const LISTENERS: Key = Key {
    name: "listeners",
    kind: Kind::String,
    is_dynamic: false,
    default: Some("PLAINTEXT://127.0.0.1:9092"),
    doc: "The addresses that clients are served on, by name (at most 4); without it only this machine is served. An \
          empty host is every interface, port 0 picks a free one.",
    set: |config, value| {
        config.listeners = listener::parse_all(value)?;
        Ok(())
    },
};
