//! A byte buffer that starts on a block boundary in memory, as direct I/O wants it.
//!
//! Owns the alignment. Never unsafe: it over-allocates by one block and starts at the first boundary.

use super::BLOCK_BYTES;

/// Zeroed, growable, block-aligned bytes.
#[derive(Debug)]
pub struct AlignedBuf {
    raw: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// A buffer of `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let raw = vec![0; len + BLOCK_BYTES];
        let start = raw.as_ptr().align_offset(BLOCK_BYTES);
        AlignedBuf { raw, start, len }
    }

    /// Makes the buffer `len` bytes long. It keeps what it held; what follows is undefined.
    pub fn resize(&mut self, len: usize) {
        if len + BLOCK_BYTES > self.raw.len() {
            let mut larger = AlignedBuf::zeroed(len.next_power_of_two());
            larger[..self.len].copy_from_slice(self);
            *self = larger;
        }
        self.len = len;
    }
}

impl std::ops::Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.raw[self.start..self.start + self.len]
    }
}

impl std::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.raw[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_on_a_block_whatever_its_length() {
        let mut buf = AlignedBuf::zeroed(1);
        for len in [1, 4096, 5000, 1 << 20, 3] {
            buf.resize(len);
            assert_eq!(buf.len(), len);
            assert_eq!(buf.as_ptr().align_offset(BLOCK_BYTES), 0);
        }
    }

    #[test]
    fn keeps_what_it_held() {
        let mut buf = AlignedBuf::zeroed(3);
        buf.copy_from_slice(b"abc");
        for len in [5000, 2, 1 << 20] {
            buf.resize(len);
            assert_eq!(&buf[..2], b"ab", "{len}");
        }
    }
}
