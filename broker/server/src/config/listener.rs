//! Addresses as Kafka writes them: `PLAINTEXT://host:port`.
//!
//! Owns their syntax and which protocols exist. Never resolves or binds.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

/// The only protocol of this version, and the listener that needs no entry in `listener.security.protocol.map`.
pub(super) const PROTOCOL: &str = "PLAINTEXT";
/// Listeners at most: inside, outside, and two more.
const LISTENERS_MAX: usize = 4;

/// Where a listener is bound, or where it is reached.
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

/// A listener by its name, as `NAME://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedListener {
    /// Its name.
    pub name: String,
    /// Where it is bound, or where it is reached.
    pub address: Listener,
}

impl fmt::Display for NamedListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listener { host, port } = &self.address;
        write!(f, "{}://{}", self.name, join(host, *port))
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
pub(super) fn parse_all(value: &str) -> Result<Vec<NamedListener>, String> {
    let mut found: Vec<NamedListener> = Vec::new();
    for one in entries(value) {
        let (name, address) = one
            .split_once("://")
            .ok_or_else(|| format!("{one} is not of the form {PROTOCOL}://host:port"))?;
        check_name(name)?;
        if found.iter().any(|other| other.name == name) {
            return Err(format!("two listeners have the name {name}"));
        }
        found.push(NamedListener {
            name: name.to_owned(),
            address: split(address)?,
        });
    }
    match found.len() {
        0 => Err("it names no listener".to_owned()),
        1..=LISTENERS_MAX => Ok(found),
        more => Err(format!("{more} listeners are more than {LISTENERS_MAX}")),
    }
}

/// Parses the value of `listener.security.protocol.map`; gives the names of the listeners.
///
/// # Errors
/// A sentence that says what is wrong.
pub(super) fn protocols(value: &str) -> Result<Vec<String>, String> {
    let names = entries(value).map(|one| {
        let (name, protocol) = one
            .split_once(':')
            .ok_or_else(|| format!("{one} is not of the form NAME:{PROTOCOL}"))?;
        if protocol != PROTOCOL {
            return Err(format!(
                "{protocol} is not served, only {PROTOCOL} is (no TLS, no SASL)"
            ));
        }
        check_name(name).map(|()| name.to_owned())
    });
    names.collect()
}

fn entries(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|it| !it.is_empty())
}

/// Kafka takes any case; here a name is also the name of a file, and it is written as everybody writes it.
fn check_name(name: &str) -> Result<(), String> {
    if matches!(name, "SSL" | "SASL_SSL" | "SASL_PLAINTEXT") {
        return Err(format!(
            "{name} is not served, only {PROTOCOL} is (no TLS, no SASL)"
        ));
    }
    let lawful = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || name.len() > 32 || !name.chars().all(lawful) {
        return Err(format!(
            "{name:?} is no name of a listener: 1 to 32 of A-Z, 0-9 and _"
        ));
    }
    Ok(())
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
    fn plaintext_listeners_and_nothing_else() {
        let check = |text: &str, host: &str, port: u16| {
            let listeners = parse_all(text).unwrap();
            let address = &listeners[0].address;
            assert_eq!((address.host.as_str(), address.port), (host, port));
        };
        check("PLAINTEXT://127.0.0.1:9092", "127.0.0.1", 9092);
        check("PLAINTEXT://:0", "", 0);
        check("PLAINTEXT://[::1]:9092", "::1", 9092);
        check("PLAINTEXT://h:1, EXTERNAL://h:2", "h", 1);
        for bad in [
            "",
            "127.0.0.1:9092",
            "SSL://h:1",
            "SASL_PLAINTEXT://h:1",
            "PLAINTEXT://h",
            "PLAINTEXT://h:99999",
            "PLAINTEXT://a:1,PLAINTEXT://b:2",
            "../x://a:1",
            "external://a:1",
            "A://:1,B://:2,C://:3,D://:4,E://:5",
        ] {
            assert!(parse_all(bad).is_err(), "{bad}");
        }
        let all = parse_all("PLAINTEXT://[::1]:1,EXTERNAL://h:2").unwrap();
        assert_eq!(all[0].to_string(), "PLAINTEXT://[::1]:1");
        assert_eq!(all[1].to_string(), "EXTERNAL://h:2");
        assert_eq!(
            protocols("PLAINTEXT:PLAINTEXT,EXTERNAL:PLAINTEXT").unwrap(),
            ["PLAINTEXT", "EXTERNAL"]
        );
        for bad in ["EXTERNAL", "EXTERNAL:SSL", "EXTERNAL:", "x:PLAINTEXT"] {
            assert!(protocols(bad).is_err(), "{bad}");
        }
    }
}
