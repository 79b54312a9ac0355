//! What every request handler can reach: one shared context, made once at the start.
//!
//! Owns nothing but the handles. Never holds state of its own: each field is the client of one owner.

/// The shared context of the process, behind one `Arc`.
#[derive(Debug)]
pub struct Broker {
    /// This broker's id.
    pub id: i32,
    /// The cluster's id.
    pub cluster_id: String,
}
