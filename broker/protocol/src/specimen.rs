//! Well-formed request bodies made from the shapes, with the place of every count and length, for hostile tests.
//!
//! Owns how a shape becomes bytes. Only compiled for tests (feature `specimen`).

use crate::api::ApiSpec;
use crate::shape::{Kind, Shape};

/// How a count or length is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// Two bytes.
    I16,
    /// Four bytes.
    I32,
    /// An unsigned varint of the value plus one.
    Compact,
    /// An unsigned varint of the value itself (tagged fields).
    Varint,
}

/// Where a count or length stands in a body.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Which field.
    pub field: &'static str,
    /// First byte.
    pub at: usize,
    /// Bytes it takes.
    pub bytes: usize,
    /// How it is encoded.
    pub width: Width,
    /// True for the count of an array or of tagged fields, false for a length.
    pub is_count: bool,
}

/// A body and its marks.
#[derive(Debug, Clone)]
pub struct Specimen {
    /// The body, well-formed.
    pub body: Vec<u8>,
    /// Every count and length in it, in order.
    pub marks: Vec<Mark>,
}

impl Specimen {
    /// A body of this version whose arrays have `elements` elements each.
    pub fn new(spec: &ApiSpec, version: i16, elements: usize) -> Self {
        let mut maker = Maker {
            version,
            flexible: spec.flexible(version),
            elements,
            specimen: Self {
                body: Vec::new(),
                marks: Vec::new(),
            },
        };
        maker.shape(spec.body);
        maker.specimen
    }

    /// The body with another value (as it stands on the wire, so for compact forms the value plus one) at a mark.
    pub fn with(&self, mark: &Mark, raw: u32) -> Vec<u8> {
        let mut body = self.body[..mark.at].to_vec();
        put(&mut body, mark.width, raw);
        body.extend_from_slice(&self.body[mark.at + mark.bytes..]);
        body
    }
}

fn put(out: &mut Vec<u8>, width: Width, mut raw: u32) {
    match width {
        Width::I16 => out.extend_from_slice(&(raw as u16).to_be_bytes()),
        Width::I32 => out.extend_from_slice(&raw.to_be_bytes()),
        Width::Compact | Width::Varint => {
            while raw >= 0x80 {
                out.push(raw as u8 | 0x80);
                raw >>= 7;
            }
            out.push(raw as u8);
        }
    }
}

struct Maker {
    version: i16,
    flexible: bool,
    elements: usize,
    specimen: Specimen,
}

impl Maker {
    fn mark(&mut self, field: &'static str, width: Width, is_count: bool, value: usize) {
        let width = if self.flexible && width != Width::Varint {
            Width::Compact
        } else {
            width
        };
        let raw = if width == Width::Compact {
            value + 1
        } else {
            value
        };
        let at = self.specimen.body.len();
        put(&mut self.specimen.body, width, raw as u32);
        let bytes = self.specimen.body.len() - at;
        self.specimen.marks.push(Mark {
            field,
            at,
            bytes,
            width,
            is_count,
        });
    }

    fn kind(&mut self, name: &'static str, kind: &Kind) {
        match kind {
            Kind::Fixed(bytes) => self
                .specimen
                .body
                .resize(self.specimen.body.len() + bytes, 0),
            Kind::Str => {
                self.mark(name, Width::I16, false, name.len());
                self.specimen.body.extend_from_slice(name.as_bytes());
            }
            Kind::Bytes => {
                self.mark(name, Width::I32, false, name.len());
                self.specimen.body.extend_from_slice(name.as_bytes());
            }
            Kind::Array(element) => {
                self.mark(name, Width::I32, true, self.elements);
                for _ in 0..self.elements {
                    self.kind(name, element.kind);
                }
            }
            Kind::Struct(shape) => self.shape(shape),
        }
    }

    fn shape(&mut self, shape: &Shape) {
        let version = self.version;
        for field in shape.fields.iter().filter(|field| field.exists(version)) {
            self.kind(field.name, &field.kind);
        }
        if self.flexible {
            self.mark("tagged fields", Width::Varint, true, 0);
        }
    }
}
