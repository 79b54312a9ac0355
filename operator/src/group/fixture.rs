//! Wishes that tests begin with.

use keelson_crds::DeletionPolicy;

use super::facts::{Desired, Target, Wish};

/// The group that they are about.
pub(super) const GROUP: &str = "g";

/// Observes the group on the topic `t`, and nothing more.
pub(super) fn desired() -> Desired {
    Desired {
        group: GROUP.into(),
        scope: vec!["t".into()],
        initial: None,
        objective: None,
        reset: None,
        deletion_policy: DeletionPolicy::Retain,
        paused: false,
    }
}

/// A reset with the request id `a`.
pub(super) fn wish(target: Target) -> Wish {
    Wish {
        id: "a".into(),
        target,
        topics: Vec::new(),
        deadline: None,
        dry_run: false,
    }
}

/// The same as [`desired`], with a reset.
pub(super) fn asking(wish: Wish) -> Desired {
    Desired {
        reset: Some(wish),
        ..desired()
    }
}
