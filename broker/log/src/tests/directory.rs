//! What a data directory says of itself before it is opened, over several starts.

use std::path::Path;
use std::sync::Arc;

use super::support::{open_log, options};
use crate::directory::look_on;
use crate::disk::{Disk, SimDisk};
use crate::{DirectoryAt, FoundDirectory, Options};

fn start(disk: &SimDisk, replaces: Option<DirectoryAt>) -> FoundDirectory {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let options = Options {
        replaces,
        ..options(Path::new("/data"))
    };
    let opened = open_log(&shared, options).unwrap();
    let identity = opened.log.identity().clone();
    opened.log.shutdown();
    let found = look_on(disk, Path::new("/data")).unwrap().unwrap();
    assert_eq!(found.directory.id, identity.directory_id);
    assert_eq!(found.directory.boot, identity.boot);
    assert_eq!(found.replaces, identity.replaces);
    found
}

#[test]
fn a_directory_counts_its_starts_and_nobody_has_to_open_it_for_that() {
    let disk = SimDisk::new(1);
    assert_eq!(look_on(&disk, Path::new("/data")).unwrap(), None);
    let first = start(&disk, None);
    assert_eq!((first.directory.boot, first.broker_id), (1, 0));
    assert_eq!(start(&disk, None).directory.boot, 2);
}

#[test]
fn what_it_replaces_stays_with_it_and_an_older_copy_counts_on_above_what_was_seen() {
    let disk = SimDisk::new(1);
    let other = DirectoryAt {
        id: "another".to_owned(),
        boot: 57,
    };
    let first = start(&disk, Some(other.clone()));
    assert_eq!(
        (first.directory.boot, first.replaces),
        (1, Some(other.clone()))
    );
    assert_eq!(start(&disk, None).replaces, Some(other));
    let newer_self = DirectoryAt {
        boot: 57,
        ..first.directory
    };
    let accepted = start(&disk, Some(newer_self.clone()));
    assert_eq!(accepted.directory.boot, 58);
    let next = start(&disk, None);
    assert_eq!((next.directory.boot, next.replaces), (59, Some(newer_self)));
}
