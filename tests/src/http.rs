//! A request over plain HTTP and the Prometheus text format, as small as tests need them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Status and body of an answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Fetches `path` from `address` (`host:port`).
pub fn get(address: &str, path: &str) -> std::io::Result<Answer> {
    request(address, ("GET", path), "", "")
}

/// Sends `method` and `path` with a body.
pub fn request(
    address: &str,
    (method, path): (&str, &str),
    content_type: &str,
    body: &str,
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let length = body.len();
    let about = match length {
        0 => String::new(),
        _ => format!("Content-Type: {content_type}\r\nContent-Length: {length}\r\n"),
    };
    // HTTP/1.0: the body ends with the connection, so that no chunked encoding has to be read.
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\n{about}\r\n{body}"
    )?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let bad = || std::io::Error::new(std::io::ErrorKind::InvalidData, "not an HTTP answer");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(bad)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(bad)?;
    Ok(Answer {
        status,
        body: body.to_owned(),
    })
}

/// A server that gives every request the same answer, whatever it asks.
#[derive(Debug)]
pub struct Canned {
    /// Its port on the loopback address.
    pub port: u16,
    body: Arc<Mutex<String>>,
}

impl Canned {
    /// Answers with this body from now on.
    pub fn start(body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let body = Arc::new(Mutex::new(body.to_owned()));
        let serving = Arc::clone(&body);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 4096];
                // Requests without a body come in one piece; who went away gets no answer.
                let _ = stream.read(&mut request);
                let body = serving
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
            }
        });
        Self { port, body }
    }

    /// Answers with another body from now on.
    pub fn say(&self, body: &str) {
        body.clone_into(&mut self.body.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// One scrape: series with their values.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    series: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Metrics {
    /// Parses the Prometheus text format.
    ///
    /// # Panics
    /// At a line that is none.
    pub fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a TYPE line names a type");
                metrics.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
                let value = value
                    .parse()
                    .unwrap_or_else(|error| panic!("{line}: {error}"));
                metrics.series.insert(series.to_owned(), value);
            }
        }
        metrics
    }

    /// The type of a family (`counter`, `gauge`, `histogram`), if it exists.
    pub fn family(&self, name: &str) -> Option<&str> {
        self.types.get(name).map(String::as_str)
    }

    /// All series of a name whose labels hold every given pair, with their values.
    pub fn select<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = (&'a str, f64)> {
        self.series.iter().filter_map(move |(series, value)| {
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            let wanted = |(label, value): &(&str, &str)| {
                let pair = format!("{label}=\"{value}\"");
                rest.trim_end_matches('}')
                    .split("\",")
                    .any(|part| part.trim_end_matches('"') == pair.trim_end_matches('"'))
            };
            (found == name && labels.iter().all(wanted)).then_some((series.as_str(), *value))
        })
    }

    /// The sum over all series of a name whose labels hold every given pair.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.select(name, labels).map(|(_, value)| value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn series_are_selected_by_labels() {
        let metrics = Metrics::parse(
            "# TYPE a counter\na{stage=\"fetch\",reason=\"crc\"} 2\na{stage=\"replay\",reason=\"crc\"} 3\nb 1\n",
        );
        assert_eq!(metrics.sum("a", &[("reason", "crc")]), 5.0);
        assert_eq!(metrics.sum("a", &[("stage", "replay")]), 3.0);
        assert_eq!(metrics.sum("a", &[("stage", "re")]), 0.0);
        assert_eq!(metrics.sum("b", &[]), 1.0);
        assert_eq!(metrics.family("a"), Some("counter"));
    }
}
