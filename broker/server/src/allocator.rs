//! The global allocator and its settings: part of the program, not of the library, so that tests use the system's.
//!
//! Owns one string that jemalloc reads before `main`: few arenas and a quick return of unused pages, so that an idle
//! broker stays at tens of megabytes.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Four arenas are enough for a few threads; dirty pages go back after a second, by a thread of jemalloc's own. What is larger
/// than 64 KiB goes back at once: a consumer that reads from files frees hundreds of megabytes per second, and a container
/// is killed for what is merely kept.
#[allow(unsafe_code)] // The name of a symbol that jemalloc looks up; nothing is called.
#[unsafe(export_name = "_rjem_malloc_conf")]
#[used]
static MALLOC_CONF: &[u8; 120] =
    b"narenas:4,background_thread:true,max_background_threads:1,dirty_decay_ms:1000,muzzy_decay_ms:0,oversize_threshold:65536\0";
