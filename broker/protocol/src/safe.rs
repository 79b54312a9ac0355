//! Guarded decoding of request bodies.
//!
//! Owns the proof that a body is harmless before `kafka-protocol` sees it: that crate allocates arrays from the wire
//! count, and decodes tiny elements into structs many times their size. The guard walks the body once along its
//! [`Shape`], refuses every count and length that the remaining bytes cannot hold, and adds up what the decoded arrays
//! and tagged fields will take. Never decodes by itself, never allocates.

use bytes::Bytes;
use kafka_protocol::protocol::Request;
use thiserror::Error;

use crate::api::{self, ApiSpec};
use crate::shape::{Element, Kind, Shape};

/// Default budget of one decoded request: some 100,000 elements, ten times what a client with 10,000 partitions sends.
pub const DECODED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// An unknown tagged field goes into a B-tree map: the first one allocates a leaf, later ones their share of leaves that
/// may be half full.
const FIRST_TAG_BYTES: usize = 512;
const FURTHER_TAG_BYTES: usize = 96;

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The API or version is not in the table.
    #[error("API key {api_key} version {api_version} is not served")]
    Unsupported {
        /// Which API.
        api_key: i16,
        /// Which version.
        api_version: i16,
    },
    /// The bytes are not such a request.
    #[error("{api} v{api_version}: {field} at byte {position}: {reason}")]
    Malformed {
        /// Which API.
        api: &'static str,
        /// Which version.
        api_version: i16,
        /// Which field.
        field: &'static str,
        /// Byte of the body.
        position: usize,
        /// What is wrong about it.
        reason: &'static str,
    },
    /// Decoded, it would take more memory than the budget allows.
    #[error("{api} v{api_version} would take more than {max} bytes decoded")]
    TooLarge {
        /// Which API.
        api: &'static str,
        /// Which version.
        api_version: i16,
        /// The budget.
        max: usize,
    },
    /// The guard let it pass and the decoder did not take it.
    #[error("{api} v{api_version}: {reason}")]
    Decoder {
        /// Which API.
        api: &'static str,
        /// Which version.
        api_version: i16,
        /// What the decoder said.
        reason: String,
    },
}

/// A decoded body and what it costs.
#[derive(Debug)]
pub struct Decoded<M> {
    /// The body.
    pub body: M,
    /// Upper estimate of the memory it takes beyond the frame's bytes.
    pub charge_bytes: usize,
}

/// Upper estimate of the memory that decoding takes beyond the frame's own bytes, without decoding; walks the body once
/// and refuses every impossible count and length. Bytes behind the body are ignored, as Kafka does.
pub fn decoded_bytes(
    api_key: i16,
    api_version: i16,
    body: &[u8],
    max: usize,
) -> Result<usize, DecodeError> {
    walk(api_key, api_version, body, max).map(|(charge, _)| charge)
}

/// The charge, and how many bytes the body takes.
pub(crate) fn walk(
    api_key: i16,
    api_version: i16,
    body: &[u8],
    max: usize,
) -> Result<(usize, usize), DecodeError> {
    let spec = served(api_key, api_version)?;
    let mut walk = Walk {
        spec,
        version: api_version,
        flexible: spec.flexible(api_version),
        body,
        at: 0,
        charge: 0,
        max,
    };
    walk.shape(spec.body)?;
    Ok((walk.charge, walk.at))
}

/// Decodes a request body within a memory budget; strings and record batches are slices of `body`.
pub fn decode<M: Request>(
    api_version: i16,
    mut body: Bytes,
    max: usize,
) -> Result<Decoded<M>, DecodeError> {
    let charge_bytes = decoded_bytes(M::KEY, api_version, &body, max)?;
    match M::decode(&mut body, api_version) {
        Ok(body) => Ok(Decoded { body, charge_bytes }),
        Err(error) => Err(DecodeError::Decoder {
            api: served(M::KEY, api_version)?.name,
            api_version,
            reason: error.to_string(),
        }),
    }
}

fn served(api_key: i16, api_version: i16) -> Result<&'static ApiSpec, DecodeError> {
    api::spec(api_key)
        .filter(|spec| spec.supports(api_version))
        .ok_or(DecodeError::Unsupported {
            api_key,
            api_version,
        })
}

struct Walk<'a> {
    spec: &'static ApiSpec,
    version: i16,
    flexible: bool,
    body: &'a [u8],
    at: usize,
    charge: usize,
    max: usize,
}

impl Walk<'_> {
    fn malformed(&self, field: &'static str, reason: &'static str) -> DecodeError {
        DecodeError::Malformed {
            api: self.spec.name,
            api_version: self.version,
            field,
            position: self.at,
            reason,
        }
    }

    fn remaining(&self) -> usize {
        self.body.len() - self.at
    }

    fn spend(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.charge = self.charge.saturating_add(bytes);
        if self.charge > self.max {
            return Err(DecodeError::TooLarge {
                api: self.spec.name,
                api_version: self.version,
                max: self.max,
            });
        }
        Ok(())
    }

    fn skip(&mut self, field: &'static str, n: usize) -> Result<(), DecodeError> {
        if n > self.remaining() {
            return Err(self.malformed(field, "ends behind the body"));
        }
        self.at += n;
        Ok(())
    }

    fn fixed<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let bytes = self.body[self.at..].first_chunk::<N>().copied();
        let bytes = bytes.ok_or_else(|| self.malformed(field, "ends behind the body"))?;
        self.at += N;
        Ok(bytes)
    }

    /// An unsigned varint of at most 32 bits; the decoder is laxer about overlong ones, so they are refused here.
    fn varint(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let mut value = 0u64;
        for i in 0..5 {
            let [byte] = self.fixed::<1>(field)?;
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return u32::try_from(value)
                    .map_err(|_| self.malformed(field, "does not fit 32 bits"));
            }
        }
        Err(self.malformed(field, "is an overlong varint"))
    }

    /// A length or count in the form of this version: `None` is null.
    fn length(
        &mut self,
        field: &'static str,
        classic_bytes: usize,
    ) -> Result<Option<usize>, DecodeError> {
        if self.flexible {
            return Ok((self.varint(field)? as usize).checked_sub(1));
        }
        let length = if classic_bytes == 2 {
            i64::from(i16::from_be_bytes(self.fixed(field)?))
        } else {
            i64::from(i32::from_be_bytes(self.fixed(field)?))
        };
        match length {
            -1 => Ok(None),
            _ => match usize::try_from(length) {
                Ok(length) => Ok(Some(length)),
                Err(_) => Err(self.malformed(field, "is negative")),
            },
        }
    }

    fn kind(&mut self, name: &'static str, kind: &Kind) -> Result<(), DecodeError> {
        match kind {
            Kind::Fixed(n) => self.skip(name, *n),
            Kind::Str => {
                let length = self.length(name, 2)?.unwrap_or(0);
                self.skip(name, length)
            }
            Kind::Bytes => {
                let length = self.length(name, 4)?.unwrap_or(0);
                self.skip(name, length)
            }
            Kind::Array(element) => self.array(name, element),
            Kind::Struct(shape) => self.shape(shape),
            Kind::Optional(shape) => match self.fixed::<1>(name)? {
                [1] => self.shape(shape),
                [_] => Ok(()),
            },
        }
    }

    fn array(&mut self, name: &'static str, element: &Element) -> Result<(), DecodeError> {
        let count = self.length(name, 4)?.unwrap_or(0);
        let smallest = wire_bytes_min(element.kind, self.version, self.flexible).max(1);
        if count > self.remaining() / smallest {
            return Err(self.malformed(name, "counts more elements than bytes can hold"));
        }
        self.spend(count.saturating_mul(element.decoded_bytes))?;
        if let Kind::Fixed(n) = element.kind {
            return self.skip(name, n * count);
        }
        for _ in 0..count {
            self.kind(name, element.kind)?;
        }
        Ok(())
    }

    fn shape(&mut self, shape: &Shape) -> Result<(), DecodeError> {
        for field in shape.fields {
            if field.exists(self.version) {
                self.kind(field.name, &field.kind)?;
            }
        }
        if self.flexible {
            self.tags(shape)
        } else {
            Ok(())
        }
    }

    fn tags(&mut self, shape: &Shape) -> Result<(), DecodeError> {
        let count = self.varint("tagged fields")?;
        // A tagged field is at least a tag and a size.
        if count as usize > self.remaining() / 2 {
            return Err(self.malformed("tagged fields", "count more than bytes can hold"));
        }
        let mut unknown = 0;
        for _ in 0..count {
            let number = self.varint("tag")?;
            let size = self.varint("tagged field size")? as usize;
            if size > self.remaining() {
                return Err(self.malformed("tagged field size", "ends behind the body"));
            }
            let known =
                |tag: &&crate::shape::Tag| tag.tag == number && tag.field.exists(self.version);
            match shape.tags.iter().find(known) {
                Some(tag) => {
                    let end = self.at + size;
                    self.kind(tag.field.name, &tag.field.kind)?;
                    if self.at != end {
                        return Err(
                            self.malformed(tag.field.name, "disagrees with its tagged size")
                        );
                    }
                }
                None => {
                    self.spend(if unknown == 0 {
                        FIRST_TAG_BYTES
                    } else {
                        FURTHER_TAG_BYTES
                    })?;
                    unknown += 1;
                    self.at += size;
                }
            }
        }
        Ok(())
    }
}

/// The fewest bytes that a value of this kind takes in this version.
fn wire_bytes_min(kind: &Kind, version: i16, flexible: bool) -> usize {
    match kind {
        Kind::Fixed(n) => *n,
        Kind::Optional(_) => 1,
        Kind::Str => {
            if flexible {
                1
            } else {
                2
            }
        }
        Kind::Bytes | Kind::Array(_) => {
            if flexible {
                1
            } else {
                4
            }
        }
        Kind::Struct(shape) => {
            let fields = shape.fields.iter().filter(|field| field.exists(version));
            let bytes: usize = fields
                .map(|field| wire_bytes_min(&field.kind, version, flexible))
                .sum();
            bytes + usize::from(flexible)
        }
    }
}
