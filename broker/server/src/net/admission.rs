//! Which connections are let in: so many in all, and so many from one address.
//!
//! Owns the counts. An address that is not connected costs nothing. Never waits: a connection too many is closed at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use thiserror::Error;

/// How many connections there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In all.
    pub max: usize,
    /// From one address that `overrides` does not name.
    pub per_address: usize,
    /// From these addresses.
    pub overrides: HashMap<IpAddr, usize>,
}

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Refused {
    /// There are as many as there may be.
    #[error("there are {max} connections, as many as max.connections or the open files allow")]
    Max {
        /// As many as this.
        max: usize,
    },
    /// This address has as many as it may have.
    #[error("{address} has {max} connections, as many as max.connections.per.ip allows")]
    PerAddress {
        /// Which address.
        address: IpAddr,
        /// As many as this.
        max: usize,
    },
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The counts of one listener.
#[derive(Debug, Default)]
pub(super) struct Admission {
    counts: Mutex<Counts>,
}

/// A connection that was let in; counted until it is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Admission {
    /// Lets a connection in, or says why not.
    pub(super) fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        limits: &ConnectionLimits,
    ) -> Result<Admitted, Refused> {
        // One client is one address, whichever way it reaches a socket of both families.
        let address = address.to_canonical();
        let of_address = limits.overrides.get(&address).copied();
        let per_address = of_address.unwrap_or(limits.per_address);
        let mut counts = self.counts.lock();
        if counts.all >= limits.max {
            return Err(Refused::Max { max: limits.max });
        }
        if counts.by_address.get(&address).copied().unwrap_or(0) >= per_address {
            return Err(Refused::PerAddress {
                address,
                max: per_address,
            });
        }
        counts.all += 1;
        *counts.by_address.entry(address).or_default() += 1;
        Ok(Admitted {
            admission: Arc::clone(self),
            address,
        })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock();
        counts.all -= 1;
        if let Entry::Occupied(mut count) = counts.by_address.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_share_and_all_together_have_theirs() {
        let limits = ConnectionLimits {
            max: 6,
            per_address: 2,
            overrides: HashMap::from([(address("10.0.0.9"), 3), (address("10.0.0.8"), 0)]),
        };
        let admission = Arc::new(Admission::default());
        let admit = |text: &str| admission.admit(address(text), &limits);
        let mut held = vec![admit("10.0.0.1").unwrap()];
        // The same client through a socket of both families.
        held.push(admit("::ffff:10.0.0.1").unwrap());
        let full = admit("10.0.0.1").unwrap_err();
        let (first, max) = (address("10.0.0.1"), 2);
        assert_eq!(
            full,
            Refused::PerAddress {
                address: first,
                max
            }
        );
        assert!(admit("10.0.0.8").is_err(), "an override of 0");
        held.extend((0..3).map(|_| admit("10.0.0.9").unwrap()));
        assert!(admit("10.0.0.9").is_err());
        held.push(admit("10.0.0.2").unwrap());
        assert_eq!(admit("10.0.0.2").unwrap_err(), Refused::Max { max: 6 });
        held.remove(0);
        held.push(admit("10.0.0.1").unwrap());
        drop(held);
        let counts = admission.counts.lock();
        assert_eq!((counts.all, counts.by_address.len()), (0, 0));
    }
}
