//! Big-endian reading and writing of the small binary forms in this crate: it owns bounds checks and nothing else.
//!
//! It never allocates from a count that it has not checked against the bytes that are left.

use bytes::BufMut;

/// Bytes that are not the form they claim to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end before the field does.
    #[error("{field}: needs {needed} bytes, {left} are left")]
    Short {
        /// The field being read.
        field: &'static str,
        /// Bytes it needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A length or count is negative or above its limit.
    #[error("{field}: impossible length {length}")]
    Length {
        /// The field being read.
        field: &'static str,
        /// The length it claims.
        length: i64,
    },
    /// A string is not UTF-8.
    #[error("{field}: not UTF-8")]
    Utf8 {
        /// The field being read.
        field: &'static str,
    },
    /// A record type or version that this build does not know.
    #[error("{what}: version {version} is unknown (highest known: {highest})")]
    Version {
        /// What is being read.
        what: &'static str,
        /// The version it names.
        version: i32,
        /// The highest version that this build reads.
        highest: i32,
    },
    /// A tag that names no known kind.
    #[error("{what}: unknown kind {kind}")]
    Kind {
        /// What is being read.
        what: &'static str,
        /// The tag found.
        kind: i32,
    },
    /// Bytes are left after the last field.
    #[error("{what}: {left} bytes after the end")]
    Trailing {
        /// What was read.
        what: &'static str,
        /// Bytes left over.
        left: usize,
    },
}

/// A cursor over bytes that names the field in every error.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes }
    }

    /// Bytes not yet read.
    pub fn left(&self) -> usize {
        self.bytes.len()
    }

    /// The next `count` bytes.
    pub fn take(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], CodecError> {
        if self.bytes.len() < count {
            return Err(CodecError::Short {
                field,
                needed: count,
                left: self.bytes.len(),
            });
        }
        let (head, tail) = self.bytes.split_at(count);
        self.bytes = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CodecError> {
        let mut out = [0_u8; N];
        out.copy_from_slice(self.take(field, N)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    /// A signed 16-bit number.
    pub fn i16(&mut self, field: &'static str) -> Result<i16, CodecError> {
        Ok(i16::from_be_bytes(self.array(field)?))
    }

    /// A signed 32-bit number.
    pub fn i32(&mut self, field: &'static str) -> Result<i32, CodecError> {
        Ok(i32::from_be_bytes(self.array(field)?))
    }

    /// A signed 64-bit number.
    pub fn i64(&mut self, field: &'static str) -> Result<i64, CodecError> {
        Ok(i64::from_be_bytes(self.array(field)?))
    }

    /// 16 bytes of a UUID.
    pub fn uuid(&mut self, field: &'static str) -> Result<[u8; 16], CodecError> {
        self.array(field)
    }

    /// A string with a 16-bit length; −1 is none.
    pub fn opt_string(&mut self, field: &'static str) -> Result<Option<String>, CodecError> {
        let length = self.i16(field)?;
        if length == -1 {
            return Ok(None);
        }
        let count = usize::try_from(length).map_err(|_| CodecError::Length {
            field,
            length: length.into(),
        })?;
        let text = std::str::from_utf8(self.take(field, count)?)
            .map_err(|_| CodecError::Utf8 { field })?;
        Ok(Some(text.to_owned()))
    }

    /// A string with a 16-bit length that must be there.
    pub fn string(&mut self, field: &'static str) -> Result<String, CodecError> {
        self.opt_string(field)?
            .ok_or(CodecError::Length { field, length: -1 })
    }

    /// Bytes with a 32-bit length.
    pub fn bytes32(&mut self, field: &'static str) -> Result<&'a [u8], CodecError> {
        let length = self.i32(field)?;
        let count = usize::try_from(length).map_err(|_| CodecError::Length {
            field,
            length: length.into(),
        })?;
        self.take(field, count)
    }

    /// A 32-bit count of elements of at least `each_min` bytes; a count the rest cannot hold is refused.
    pub fn count(&mut self, field: &'static str, each_min: usize) -> Result<usize, CodecError> {
        let length = self.i32(field)?;
        let count = usize::try_from(length).map_err(|_| CodecError::Length {
            field,
            length: length.into(),
        })?;
        match count.checked_mul(each_min.max(1)) {
            Some(bytes) if bytes <= self.bytes.len() => Ok(count),
            _ => Err(CodecError::Length {
                field,
                length: length.into(),
            }),
        }
    }

    /// An unsigned varint of 32 bits.
    pub fn varint(&mut self, field: &'static str) -> Result<u32, CodecError> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.u8(field)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| CodecError::Length {
                    field,
                    length: value as i64,
                });
            }
        }
        Err(CodecError::Length {
            field,
            length: value as i64,
        })
    }

    /// A length of a flexible form: an unsigned varint of it plus one; 0 is null.
    pub fn compact_length(&mut self, field: &'static str) -> Result<Option<usize>, CodecError> {
        Ok(self
            .varint(field)?
            .checked_sub(1)
            .map(|length| length as usize))
    }

    /// Refuses bytes after the last field.
    pub fn finish(self, what: &'static str) -> Result<(), CodecError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(CodecError::Trailing { what, left }),
        }
    }
}

/// Writes a string with a 16-bit length. Strings come from decoded requests and validated configs, so a longer one is
/// a broken invariant of ours.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    let length =
        i16::try_from(text.len()).expect("strings are limited to 32,767 bytes where they enter");
    out.put_i16(length);
    out.put_slice(text.as_bytes());
}

/// Writes a string that may be absent.
pub fn put_opt_string(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.put_i16(-1),
    }
}

/// Writes a count or length that the wire holds in 32 bits.
pub fn put_len32(out: &mut Vec<u8>, length: usize) {
    out.put_i32(i32::try_from(length).expect("lengths are limited to 2 GiB where they enter"));
}

/// Writes an unsigned varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Writes a length of a flexible form.
pub fn put_compact_length(out: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("lengths are limited to 2 GiB where they enter");
    put_varint(out, length + 1);
}

/// Writes bytes with a 32-bit length.
pub fn put_bytes32(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len32(out, bytes.len());
    out.put_slice(bytes);
}
