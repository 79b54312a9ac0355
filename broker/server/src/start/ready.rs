//! The ready file: where the broker is, once clients can be served.
//!
//! Owns that file. It appears whole or not at all, and goes when the broker does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::text;
use crate::broker::Broker;

#[derive(Serialize)]
struct Body<'a> {
    kafka: Vec<String>,
    http: &'a str,
    broker_id: i32,
    cluster_id: &'a str,
}

/// A written ready file, or none.
pub(super) struct ReadyFile {
    path: Option<PathBuf>,
}

impl ReadyFile {
    pub(super) async fn write(
        path: Option<&Path>,
        broker: &Broker,
        kafka: &[SocketAddr],
        http: &str,
    ) -> anyhow::Result<Self> {
        let Some(path) = path.map(Path::to_owned) else {
            return Ok(Self { path: None });
        };
        let body = serde_json::to_string(&Body {
            kafka: kafka.iter().map(|address| text(*address)).collect(),
            http,
            broker_id: broker.id(),
            cluster_id: &broker.identity.cluster_id,
        })?;
        let target = path.clone();
        tokio::task::spawn_blocking(move || write_whole(&target, &body))
            .await?
            .with_context(|| format!("the ready file {}", path.display()))?;
        Ok(Self { path: Some(path) })
    }

    pub(super) async fn remove(self) {
        if let Some(path) = self.path {
            let removed = tokio::task::spawn_blocking(move || std::fs::remove_file(path)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(%error, "the ready file was not removed");
            }
        }
    }
}

/// Written aside and renamed, so that nobody reads half of it.
fn write_whole(path: &Path, body: &str) -> std::io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    std::fs::write(&aside, format!("{body}\n"))?;
    std::fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_appears_whole_and_alone() {
        let dir = std::env::temp_dir().join(format!("keelson-ready-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("ready.json");
        write_whole(&path, "{}").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}\n");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
