//! The four codecs of Kafka, streaming and size-limited.
//!
//! Owns which id means which codec and how its data are framed. Never holds more than one block or window of a codec.
//!
//! Framing, as clients write it: gzip members (RFC 1952); snappy either as one raw block (librdkafka, sarama) or in the
//! xerial framing of snappy-java (Java, kafka-python); the LZ4 frame format with the correct header checksum (KIP-57);
//! zstd frames (RFC 8878, KIP-110).

use std::io::{self, Read, Write};

use crate::batch::BatchError;

/// A codec, by its id in the batch attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are Kafka's.
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    /// By the id in the attributes (bits 0 to 2).
    pub fn from_id(id: i16) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The id in the attributes.
    pub fn id(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Kafka's name of it (`compression.type`).
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    pub(crate) fn failed(self, error: &io::Error) -> BatchError {
        BatchError::Decompress {
            codec: self.name(),
            reason: error.to_string(),
        }
    }

    pub(crate) fn bomb(self, max: usize) -> BatchError {
        BatchError::Bomb {
            codec: self.name(),
            max,
        }
    }
}

/// How hard to compress; LZ4 and Snappy have one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// 1 to 9; anything else is gzip's own default.
    pub gzip: i32,
    /// Up to 22.
    pub zstd: i32,
}

impl Default for Levels {
    fn default() -> Self {
        Levels {
            gzip: -1,
            zstd: zstd::DEFAULT_COMPRESSION_LEVEL,
        }
    }
}

impl Levels {
    fn of_gzip(self) -> flate2::Compression {
        match u32::try_from(self.gzip) {
            Ok(level @ 1..=9) => flate2::Compression::new(level),
            Ok(_) | Err(_) => flate2::Compression::default(),
        }
    }
}

/// Compresses records as clients do, for a batch that the broker builds anew; at each codec's default level.
pub(crate) fn compress(codec: Compression, data: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    compress_to(codec, Levels::default(), &mut &data[..], &mut out)?;
    Ok(out)
}

/// The same from one stream to another.
pub(crate) fn compress_to(
    codec: Compression,
    levels: Levels,
    data: &mut dyn Read,
    out: &mut dyn Write,
) -> io::Result<()> {
    match codec {
        Compression::None => {
            io::copy(data, out)?;
        }
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, levels.of_gzip());
            io::copy(data, &mut encoder)?;
            encoder.finish()?;
        }
        Compression::Snappy => xerial(data, out)?,
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
            io::copy(data, &mut encoder)?;
            encoder.finish().map_err(io::Error::other)?;
        }
        Compression::Zstd => {
            zstd::stream::copy_encode(data, out, levels.zstd)?;
        }
    }
    Ok(())
}

/// Snappy in snappy-java's framing, which every client reads.
fn xerial(data: &mut dyn Read, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&XERIAL_MAGIC)?;
    out.write_all(&XERIAL_VERSION.to_be_bytes())?;
    out.write_all(&XERIAL_VERSION.to_be_bytes())?;
    let mut encoder = snap::raw::Encoder::new();
    let mut block = Vec::with_capacity(XERIAL_BLOCK_BYTES);
    loop {
        block.clear();
        let mut within = (&mut *data).take(XERIAL_BLOCK_BYTES as u64);
        if within.read_to_end(&mut block)? == 0 {
            return Ok(());
        }
        let compressed = encoder.compress_vec(&block).map_err(io::Error::other)?;
        let length = i32::try_from(compressed.len()).map_err(io::Error::other)?;
        out.write_all(&length.to_be_bytes())?;
        out.write_all(&compressed)?;
    }
}

/// Reads what compressed data decompress to. The caller limits how much it takes.
pub(crate) enum Decompressor<'a> {
    None(&'a [u8]),
    Gzip(Box<flate2::bufread::MultiGzDecoder<&'a [u8]>>),
    Snappy(SnappyReader<'a>),
    Lz4(Box<lz4_flex::frame::FrameDecoder<&'a [u8]>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, &'a [u8]>>),
}

impl<'a> Decompressor<'a> {
    pub(crate) fn new(codec: Compression, data: &'a [u8]) -> Result<Self, BatchError> {
        Ok(match codec {
            Compression::None => Self::None(data),
            Compression::Gzip => Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(data))),
            Compression::Snappy => Self::Snappy(SnappyReader::new(data)),
            Compression::Lz4 => Self::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(data))),
            // Windows above 2^27 bytes are refused by zstd itself; smaller ones are touched only as far as data come out.
            Compression::Zstd => Self::Zstd(Box::new(
                zstd::stream::read::Decoder::with_buffer(data)
                    .map_err(|error| codec.failed(&error))?,
            )),
        })
    }
}

impl Read for Decompressor<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(data) => data.read(buf),
            Self::Gzip(reader) => reader.read(buf),
            Self::Snappy(reader) => reader.read(buf),
            Self::Lz4(reader) => reader.read(buf),
            Self::Zstd(reader) => reader.read(buf),
        }
    }
}

/// First bytes of snappy-java's framing: magic, then version and compatible version (4 bytes each).
const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;
/// Version, and the oldest version that reads it.
const XERIAL_VERSION: i32 = 1;
/// Bytes that snappy-java puts into one block.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// A snappy element of 3 bytes gives at most 64: no honest block promises more than this many times its size.
const SNAPPY_RATIO_MAX: usize = 22;
/// Largest raw block: a block has to be decompressed at once, so it bounds the memory that one batch takes.
const SNAPPY_BLOCK_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Snappy, block by block: xerial framing if its magic is there, else one raw block.
pub(crate) struct SnappyReader<'a> {
    rest: &'a [u8],
    xerial: bool,
    block: Vec<u8>,
    at: usize,
}

impl<'a> SnappyReader<'a> {
    fn new(data: &'a [u8]) -> Self {
        let xerial = data.starts_with(&XERIAL_MAGIC) && data.len() >= XERIAL_HEADER_BYTES;
        Self {
            rest: data,
            xerial,
            block: Vec::new(),
            at: 0,
        }
    }

    /// The bytes of the next block, `None` at the end.
    fn next_block(&mut self) -> io::Result<Option<&'a [u8]>> {
        if !self.xerial {
            let whole = std::mem::take(&mut self.rest);
            return Ok((!whole.is_empty()).then_some(whole));
        }
        // Streams may be joined, each with a header of its own.
        while self.rest.starts_with(&XERIAL_MAGIC) {
            self.rest = self
                .rest
                .get(XERIAL_HEADER_BYTES..)
                .ok_or_else(|| invalid("xerial header is cut off"))?;
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (length, rest) = self
            .rest
            .split_first_chunk::<4>()
            .ok_or_else(|| invalid("xerial block length is cut off"))?;
        let length = usize::try_from(i32::from_be_bytes(*length))
            .map_err(|_| invalid("xerial block length is negative"))?;
        let (block, rest) = rest
            .split_at_checked(length)
            .ok_or_else(|| invalid("xerial block is cut off"))?;
        self.rest = rest;
        Ok(Some(block))
    }

    fn fill(&mut self) -> io::Result<bool> {
        while self.at == self.block.len() {
            let Some(block) = self.next_block()? else {
                return Ok(false);
            };
            let size = snap::raw::decompress_len(block).map_err(io::Error::other)?;
            if size > SNAPPY_BLOCK_BYTES_MAX || size / SNAPPY_RATIO_MAX > block.len() {
                return Err(invalid("snappy block promises an impossible size"));
            }
            self.block.resize(size, 0);
            let size = snap::raw::Decoder::new()
                .decompress(block, &mut self.block)
                .map_err(io::Error::other)?;
            self.block.truncate(size);
            self.at = 0;
        }
        Ok(true)
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl Read for SnappyReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.fill()? {
            return Ok(0);
        }
        let n = buf.len().min(self.block.len() - self.at);
        buf[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
