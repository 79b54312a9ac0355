//! Well-formed request bodies made from the shapes, with the place of every count and length, for hostile tests.
//!
//! Owns how a shape becomes bytes. Only compiled for tests (feature `specimen`).

mod decode;

use crate::api::ApiSpec;
use crate::shape::{Kind, Shape};

pub use decode::decode;

/// The name of the mark at the end of each struct of a flexible version.
pub const TAGGED_FIELDS: &str = "tagged fields";

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
        let mut maker = Maker::new(spec, version, elements);
        maker.shape(spec.body);
        maker.specimen
    }

    /// A well-formed body of about `bytes` bytes that is nothing but the smallest elements there are: its first array is
    /// as long as that allows, strings are empty, other arrays have no element. `None` if it has no array.
    pub fn tiny(spec: &ApiSpec, version: i16, bytes: usize) -> Option<Vec<u8>> {
        let empty = |elements| {
            let mut maker = Maker::new(spec, version, elements);
            maker.tiny = true;
            maker.shape(spec.body);
            maker.specimen
        };
        let (one, two) = (empty(1), empty(2));
        let element = two.body.len() - one.body.len();
        let array = one
            .marks
            .iter()
            .find(|mark| mark.is_count && mark.field != TAGGED_FIELDS)?;
        let first = array.at + array.bytes;
        let count = bytes / element;
        let width = array.width;
        let mut body = one.body[..array.at].to_vec();
        put(
            &mut body,
            width,
            count as u32 + u32::from(width == Width::Compact),
        );
        for _ in 0..count {
            body.extend_from_slice(&one.body[first..first + element]);
        }
        body.extend_from_slice(&one.body[first + element..]);
        Some(body)
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
    /// Strings are empty, and only the first array has elements.
    tiny: bool,
    specimen: Specimen,
}

impl Maker {
    fn new(spec: &ApiSpec, version: i16, elements: usize) -> Self {
        Self {
            version,
            flexible: spec.flexible(version),
            elements,
            tiny: false,
            specimen: Specimen {
                body: Vec::new(),
                marks: Vec::new(),
            },
        }
    }

    /// What strings and bytes hold.
    fn content(&self, name: &'static str) -> &'static str {
        if self.tiny { "" } else { name }
    }

    /// How many elements the next array has.
    fn count(&mut self) -> usize {
        let count = self.elements;
        if self.tiny {
            self.elements = 0;
        }
        count
    }

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
                let content = self.content(name);
                self.mark(name, Width::I16, false, content.len());
                self.specimen.body.extend_from_slice(content.as_bytes());
            }
            Kind::Bytes => {
                let content = self.content(name);
                self.mark(name, Width::I32, false, content.len());
                self.specimen.body.extend_from_slice(content.as_bytes());
            }
            Kind::Array(element) => {
                let count = self.count();
                self.mark(name, Width::I32, true, count);
                for _ in 0..count {
                    self.kind(name, element.kind);
                }
            }
            Kind::Struct(shape) => self.shape(shape),
            Kind::Optional(shape) => {
                let present = u8::from(self.elements > 0);
                self.specimen.body.push(present);
                if present == 1 {
                    self.shape(shape);
                }
            }
        }
    }

    fn shape(&mut self, shape: &Shape) {
        let version = self.version;
        for field in shape.fields.iter().filter(|field| field.exists(version)) {
            self.kind(field.name, &field.kind);
        }
        if self.flexible {
            self.mark(TAGGED_FIELDS, Width::Varint, true, 0);
        }
    }
}
