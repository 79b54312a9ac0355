//! The global allocator and its settings.
//!
//! Owns one string that jemalloc reads before `main`: few arenas and a quick return of unused pages. The operator works
//! in bursts (a list of all objects) and then waits.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Dirty pages go back after a second, by a thread of jemalloc's own.
#[allow(unsafe_code)] // The name of a symbol that jemalloc looks up; nothing is called.
#[unsafe(export_name = "_rjem_malloc_conf")]
#[used]
static MALLOC_CONF: &[u8; 95] =
    b"narenas:2,background_thread:true,max_background_threads:1,dirty_decay_ms:1000,muzzy_decay_ms:0\0";
