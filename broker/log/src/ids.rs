//! The names of topics and partitions as they stand in frames and folders.

use std::fmt;
use std::str::FromStr;

/// A topic's id: 16 bytes, written as a hyphenated UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub [u8; 16]);

/// Text that is not a hyphenated UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a topic id (a hyphenated UUID)")]
pub struct BadTopicId(String);

/// Positions of the hyphens in the text form.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; 36];
        let places = (0..36).filter(|at| !HYPHENS.contains(at));
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        for (at, digit) in places.zip(digits) {
            text[at] = DIGITS[usize::from(digit)];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TopicId {
    type Err = BadTopicId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadTopicId(text.to_owned());
        let bytes = text.as_bytes();
        if bytes.len() != 36 || HYPHENS.iter().any(|at| bytes[*at] != b'-') {
            return Err(bad());
        }
        let mut digits = bytes
            .iter()
            .enumerate()
            .filter(|(at, _)| !HYPHENS.contains(at))
            .map(|(_, b)| *b);
        let mut id = [0_u8; 16];
        for byte in &mut id {
            for _ in 0..2 {
                let digit = digits.next().and_then(hex_digit).ok_or_else(bad)?;
                *byte = *byte << 4 | digit;
            }
        }
        Ok(TopicId(id))
    }
}

/// Lower case only: one topic, one folder name.
fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// One partition of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// The topic.
    pub topic: TopicId,
    /// The partition's number in it.
    pub index: i32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_refuses_other_forms() {
        let id = TopicId(*b"0123456789abcdef");
        assert_eq!(id.to_string(), "30313233-3435-3637-3839-616263646566");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "30313233-3435-3637-3839-61626364656",
            "30313233-3435-3637-3839-61626364656G",
        ] {
            assert!(bad.parse::<TopicId>().is_err(), "{bad}");
        }
        assert!(
            "3031323334353637383961626364656600000"
                .parse::<TopicId>()
                .is_err()
        );
    }
}
