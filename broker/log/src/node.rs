//! Owns the identity of a data directory: `LOCK` and `node.meta`. Never touches logs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;

/// Who lives in a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The cluster's id.
    pub cluster_id: String,
    /// The broker's id.
    pub broker_id: i32,
    /// The directory's own id (a UUID).
    pub directory_id: String,
}

/// What a caller expects to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOptions {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The broker's id.
    pub broker_id: i32,
    /// The cluster's id, if it is prescribed; a new directory without one gets a random one.
    pub cluster_id: Option<String>,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The disk refused an operation (a read-only directory, a full volume).
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another broker runs on it.
    #[error("another broker is running on the data directory {}", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// It belongs to somebody else, or is of a form that this version does not read.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why, in words.
        reason: String,
    },
}

/// A locked data directory. The lock is held until this is dropped.
pub struct Node;

impl Node {
    /// Locks the directory, reads its identity or, in an empty one, writes it.
    pub fn open(_disk: Arc<dyn Disk>, _options: &NodeOptions) -> Result<Node, NodeError> {
        unimplemented!()
    }
    /// Reads a directory's identity without a lock and without writing (for `log verify`).
    pub fn read(_disk: &dyn Disk, _data_dir: &Path) -> Result<NodeIdentity, NodeError> {
        unimplemented!()
    }
    /// The identity.
    pub fn identity(&self) -> &NodeIdentity {
        unimplemented!()
    }
    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        unimplemented!()
    }
    /// Why the run before this one ended: empty after a kill, "stopped" after a clean stop, else the first failure.
    pub fn last_exit(&self) -> &str {
        unimplemented!()
    }
    /// Keeps the reason of an end; the first one of a run wins. A disk that fails here is not the news.
    pub fn record_exit(&self, _reason: &str) {
        unimplemented!()
    }
}
