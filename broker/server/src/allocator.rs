//! Settings of the global allocator.
//!
//! Owns one string that jemalloc reads before `main`: few arenas and a quick return of unused pages, so that an idle
//! broker stays at tens of megabytes. The allocator itself stands in `main.rs`, so that tests use the system's.

/// Two arenas are enough for a few threads; dirty pages go back after a second, by a thread of jemalloc's own.
#[allow(unsafe_code)] // The name of a symbol that jemalloc looks up; nothing is called.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub(crate) static MALLOC_CONF: &[u8; 71] =
    b"narenas:4,background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0\0";
