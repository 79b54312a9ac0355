//! Owns the system calls of [`RealDisk`]. Never retries a failed sync.

/// The machine's own disk.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDisk;
