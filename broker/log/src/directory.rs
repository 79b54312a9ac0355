//! Which data directory this is, and how far it has counted: what tells a volume from another one, and from a copy of itself.
//!
//! Owns the name of a directory at one of its starts, and a look at a directory before anything in it is opened. Judges
//! nothing, never writes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::disk::{Disk, RealDisk};
use crate::log::OpenError;
use crate::node::{NODE_META, Node};
use crate::wal;

/// Starts are counted up to here: one more must still be a number that the WAL's manifest can hold.
const BOOT_MAX: u64 = i64::MAX as u64 - 1;

/// A data directory at one of its starts, written `<directory id>@<number of the start>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryAt {
    /// The directory's own id.
    pub id: String,
    /// Starts of a broker on it.
    pub boot: u64,
}

impl fmt::Display for DirectoryAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.boot)
    }
}

/// This is not how a directory at one of its starts is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form <directory id>@<number of a start>")]
pub struct BadDirectoryAt(String);

impl FromStr for DirectoryAt {
    type Err = BadDirectoryAt;

    fn from_str(text: &str) -> Result<Self, BadDirectoryAt> {
        let bad = || BadDirectoryAt(text.to_owned());
        let (id, boot) = text.rsplit_once('@').ok_or_else(bad)?;
        let lawful = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let boot = boot.parse().ok().filter(|boot| *boot <= BOOT_MAX);
        if id.is_empty() || !id.chars().all(lawful) {
            return Err(bad());
        }
        Ok(Self {
            id: id.to_owned(),
            boot: boot.ok_or_else(bad)?,
        })
    }
}

/// What a data directory says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDirectory {
    /// The cluster it belongs to.
    pub cluster_id: String,
    /// The broker it belongs to.
    pub broker_id: i32,
    /// Its id, and how many starts it has counted.
    pub directory: DirectoryAt,
    /// What it was accepted in place of, if it ever was.
    pub replaces: Option<DirectoryAt>,
}

/// Looks at a data directory without a lock and without writing; `None`: no broker ever wrote its identity here.
///
/// # Errors
/// In the words of the start that would fail for the same reason.
pub fn look(data_dir: &Path) -> Result<Option<FoundDirectory>, OpenError> {
    look_on(&RealDisk, data_dir)
}

pub(crate) fn look_on(
    disk: &dyn Disk,
    data_dir: &Path,
) -> Result<Option<FoundDirectory>, OpenError> {
    let stop = |message: String| OpenError { message };
    let path: PathBuf = data_dir.join(NODE_META);
    let exists = disk.exists(&path);
    if !exists.map_err(|e| stop(format!("cannot look for {}: {e}", path.display())))? {
        return Ok(None);
    }
    let looked = Node::look_if_written(disk, data_dir);
    let Some(slot) = looked.map_err(|e| stop(e.to_string()))? else {
        return Ok(None);
    };
    let boot = wal::boots(disk, data_dir).map_err(|e| stop(e.to_string()))?;
    let identity = slot.identity;
    Ok(Some(FoundDirectory {
        cluster_id: identity.cluster_id,
        broker_id: identity.broker_id,
        directory: DirectoryAt {
            id: identity.directory_id,
            boot,
        },
        replaces: slot.replaces,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_at_a_start_is_read_as_it_is_written() {
        let at: DirectoryAt = "6f9619ff-8b86-d011-b42d-00c04fc964ff@12".parse().unwrap();
        assert_eq!(at.boot, 12);
        assert_eq!(at.to_string().parse(), Ok(at));
        let above = format!("d@{}", BOOT_MAX + 1);
        for bad in ["", "d", "d@", "@1", "d@-1", "d d@1", "d\"@1", &above] {
            assert!(bad.parse::<DirectoryAt>().is_err(), "{bad}");
        }
    }
}
