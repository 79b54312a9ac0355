//! Owns the simulated disk.

/// A disk in memory.
#[derive(Debug, Default)]
pub struct SimDisk;

/// What goes wrong on a simulated disk.
#[derive(Debug, Clone, Default)]
pub struct SimFaults;
