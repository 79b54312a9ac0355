//! What administrators ask of a cluster: ACLs, replicas, leaders, log directories, quorum, quotas, offsets of groups.

mod access;
mod replicas;
mod views;

use super::super::case::Script;

pub(in super::super) fn run(script: &mut Script) {
    access::run(script);
    replicas::run(script);
    views::run(script);
}
