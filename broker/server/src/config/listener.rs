//! Addresses as Kafka writes them: `PLAINTEXT://host:port`.
//!
//! Owns their syntax and which protocols exist. Never resolves or binds.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

/// The only protocol of this version.
const PROTOCOL: &str = "PLAINTEXT";

/// A listener or an advertised listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Host name or address; empty means every interface.
    pub host: String,
    /// Port; 0 picks a free one.
    pub port: u16,
}

impl Listener {
    /// True if it listens on every interface.
    pub fn is_wildcard(&self) -> bool {
        matches!(self.host.as_str(), "" | "0.0.0.0" | "::")
    }

    /// `host:port` for binding and for people.
    pub fn address(&self) -> String {
        let host = if self.host.is_empty() {
            "0.0.0.0"
        } else {
            &self.host
        };
        join(host, self.port)
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PROTOCOL}://{}", join(&self.host, self.port))
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub fn join(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Parses the value of `listeners` or `advertised.listeners`.
///
/// # Errors
/// A sentence that says what is wrong.
pub(super) fn parse_one(value: &str) -> Result<Listener, String> {
    let mut all = value.split(',').map(str::trim).filter(|l| !l.is_empty());
    let Some(first) = all.next() else {
        return Err("it names no listener".to_owned());
    };
    if let Some(second) = all.next() {
        return Err(format!(
            "only one listener is served, {second} is the second one"
        ));
    }
    let Some((protocol, address)) = first.split_once("://") else {
        return Err(format!("{first} is not of the form {PROTOCOL}://host:port"));
    };
    if protocol != PROTOCOL {
        return Err(format!(
            "{protocol} is not served, only {PROTOCOL} is (no TLS, no SASL, no named listeners)"
        ));
    }
    split(address)
}

/// Splits `host:port`.
///
/// # Errors
/// A sentence that says what is wrong.
pub(super) fn split(address: &str) -> Result<Listener, String> {
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err(format!("{address} has no port"));
    };
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    let port = port
        .parse()
        .map_err(|_| format!("{port} is not a port (0 to 65535)"))?;
    Ok(Listener {
        host: host.to_owned(),
        port,
    })
}

/// Parses the value of `max.connections.per.ip.overrides`.
///
/// # Errors
/// A sentence that says what is wrong.
pub(super) fn limits_by_address(value: &str) -> Result<HashMap<IpAddr, usize>, String> {
    let entries = value.split(',').map(str::trim).filter(|e| !e.is_empty());
    let parsed = entries.map(|entry| {
        let (host, limit) = entry
            .rsplit_once(':')
            .ok_or_else(|| format!("{entry} is not of the form address:number"))?;
        let host = host.trim();
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        let address: IpAddr = host
            .parse()
            .map_err(|_| format!("{host} is not an address; names are not looked up"))?;
        let limit: i32 = limit
            .trim()
            .parse()
            .map_err(|_| format!("{limit} is not a number"))?;
        let limit = usize::try_from(limit).map_err(|_| format!("{limit} is below 0"))?;
        Ok((address.to_canonical(), limit))
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_addresses_are_read_or_refused() {
        let limits = limits_by_address("10.0.0.1:5, [::1]:0,::ffff:10.0.0.2:7").unwrap();
        let limit = |text: &str| limits[&text.parse::<IpAddr>().unwrap()];
        assert_eq!(
            (limit("10.0.0.1"), limit("::1"), limit("10.0.0.2")),
            (5, 0, 7)
        );
        assert!(limits_by_address("").unwrap().is_empty());
        for bad in ["10.0.0.1", "host:5", "10.0.0.1:x", "10.0.0.1:-1", ":5"] {
            assert!(limits_by_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_plaintext_listener_and_nothing_else() {
        let check = |text: &str, host: &str, port: u16| {
            let listener = parse_one(text).unwrap();
            assert_eq!((listener.host.as_str(), listener.port), (host, port));
        };
        check("PLAINTEXT://127.0.0.1:9092", "127.0.0.1", 9092);
        check("PLAINTEXT://:0", "", 0);
        check("PLAINTEXT://[::1]:9092", "::1", 9092);
        for bad in [
            "",
            "127.0.0.1:9092",
            "SSL://h:1",
            "PLAINTEXT://h",
            "PLAINTEXT://h:99999",
            "PLAINTEXT://a:1,PLAINTEXT://b:2",
        ] {
            assert!(parse_one(bad).is_err(), "{bad}");
        }
        assert_eq!(
            parse_one("PLAINTEXT://[::1]:1").unwrap().to_string(),
            "PLAINTEXT://[::1]:1"
        );
    }
}
