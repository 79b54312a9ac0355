//! A batch in another codec, for topics whose `compression.type` is not the producer's.
//!
//! Owns what changes: the codec in the attributes, the bytes behind the header, and with them length and checksum. Records
//! and every other field stay as they were sent.

use std::io::{self, Write};

use bytes::Bytes;

use crate::batch::{ATTRIBUTE_CODEC_MASK, BATCH_HEADER_BYTES, BatchError, BatchHeader, seal};
use crate::compression::{Compression, Decompressor, Levels, compress_to};

/// The batch with its records compressed by `codec`. `batch` is one that [`crate::validate_produced`] took, so what it
/// decompresses to is bounded; what is built here is no larger than `batch_bytes_max`.
///
/// # Errors
/// [`BatchError::TooLarge`] when it would be larger.
pub fn recompress(
    batch: &[u8],
    (codec, levels): (Compression, Levels),
    batch_bytes_max: usize,
) -> Result<Bytes, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let mut records = Decompressor::new(header.compression()?, &batch[BATCH_HEADER_BYTES..])?;
    let mut built = Bounded {
        bytes: vec![0; BATCH_HEADER_BYTES],
        max: batch_bytes_max,
        refused: None,
    };
    let compressed = compress_to(codec, levels, &mut records, &mut built);
    if let Some(size) = built.refused {
        let max = batch_bytes_max;
        return Err(BatchError::TooLarge { size, max });
    }
    compressed.map_err(|error| codec.failed(&error))?;
    let header = BatchHeader {
        attributes: header.attributes & !ATTRIBUTE_CODEC_MASK | codec.id(),
        ..header
    };
    seal(&mut built.bytes, &header);
    Ok(Bytes::from(built.bytes))
}

/// Takes no more than it may.
struct Bounded {
    bytes: Vec<u8>,
    max: usize,
    /// The size that would have been too much.
    refused: Option<usize>,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = self.bytes.len() + bytes.len();
        if size > self.max {
            self.refused.get_or_insert(size);
            return Err(io::Error::other("the batch would be too large"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::BatchBuilder;
    use crate::{ValidateLimits, validate_produced};

    const CODECS: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    const MAX: usize = 1 << 20;

    fn as_usual(codec: Compression) -> (Compression, Levels) {
        (codec, Levels::default())
    }

    #[test]
    fn a_higher_level_makes_less_of_the_same() {
        let mut builder = BatchBuilder::new(1000);
        for n in 0..2_000_u32 {
            builder.push(None, Some(format!("{n} and {}", n * n % 997).as_bytes()));
        }
        let batch = builder.build();
        for codec in [Compression::Gzip, Compression::Zstd] {
            let size = |level| {
                let levels = Levels {
                    gzip: level,
                    zstd: level,
                };
                let built = recompress(&batch, (codec, levels), MAX).unwrap();
                let back = recompress(&built, as_usual(Compression::None), MAX).unwrap();
                assert!(back == batch, "{codec:?} at {level}");
                built.len()
            };
            assert!(size(9) < size(1), "{codec:?}");
        }
    }

    fn plain() -> Bytes {
        let mut builder = BatchBuilder::new(1000).producer(7, 2, 40).transactional();
        for n in 0..100_u8 {
            builder.push(Some(&[n]), Some(&[n; 1000]));
        }
        builder.build()
    }

    #[test]
    fn every_codec_becomes_every_other_and_nothing_else_changes() {
        let limits = ValidateLimits {
            batch_bytes_max: MAX,
            decompressed_bytes_max: MAX,
            produce_version: 9,
        };
        let plain = plain();
        for from in CODECS {
            let before = recompress(&plain, as_usual(from), MAX).unwrap();
            for to in CODECS {
                let after = recompress(&before, as_usual(to), MAX).unwrap();
                let found = validate_produced(&after, &limits).unwrap().header;
                assert_eq!(found.compression().unwrap(), to);
                let back = recompress(&after, as_usual(Compression::None), MAX).unwrap();
                assert!(back == plain, "{from:?} to {to:?} and back");
            }
        }
    }

    #[test]
    fn what_would_be_too_large_is_refused_before_it_is_built() {
        let small = recompress(&plain(), as_usual(Compression::Zstd), MAX).unwrap();
        assert!(small.len() < 10_000);
        for codec in [Compression::None, Compression::Snappy] {
            let refused = recompress(&small, as_usual(codec), small.len());
            let error = refused.expect_err("larger than allowed");
            assert!(
                matches!(error, BatchError::TooLarge { size, max } if size > max),
                "{error}"
            );
        }
    }
}
