//! Random changes of an input, for the driver without coverage.
//!
//! Owns the kinds of changes; the chance behind them is an argument, so that a seed repeats them.

/// Numbers that decoders get wrong.
const INTERESTING: [u64; 10] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    i64::MAX as u64,
    u64::MAX,
];
/// An input is not grown beyond this.
const INPUT_BYTES_MAX: usize = 16 * 1024;

/// Changes `input` in one way. `below(n)` gives a number under `n`; `other` is another input to take bytes from.
pub fn change(input: &mut Vec<u8>, other: &[u8], below: &mut dyn FnMut(usize) -> usize) {
    let at = below(input.len() + 1);
    let count = 1 + below(16);
    match below(8) {
        0 => at_most(input, at, 1, |byte| byte ^ 1 << (count % 8)),
        1 => {
            let value = below(256) as u8;
            at_most(input, at, 1, |_| value);
        }
        2 => at_most(input, at, count, |_| 0),
        3 => {
            let end = (at + count).min(input.len());
            input.drain(at..end);
        }
        4 if input.len() + count <= INPUT_BYTES_MAX => {
            let new: Vec<u8> = (0..count).map(|_| below(256) as u8).collect();
            input.splice(at..at, new);
        }
        5 if !other.is_empty() => {
            let from = below(other.len());
            let taken = &other[from..(from + 4 * count).min(other.len())];
            let end = (at + taken.len()).min(input.len());
            input.splice(at..end, taken.iter().copied());
        }
        6 => {
            let value = INTERESTING[below(INTERESTING.len())];
            let bytes = if below(2) == 0 {
                value.to_le_bytes()
            } else {
                value.to_be_bytes()
            };
            let width = [1, 2, 4, 8][below(4)];
            // The low bytes of either order.
            let low = if bytes == value.to_le_bytes() {
                &bytes[..width]
            } else {
                &bytes[8 - width..]
            };
            let end = (at + width).min(input.len());
            input.splice(at..end, low.iter().copied());
        }
        _ => input.truncate(at),
    }
}

fn at_most(input: &mut [u8], at: usize, count: usize, new: impl Fn(u8) -> u8) {
    for byte in input.iter_mut().skip(at).take(count) {
        *byte = new(*byte);
    }
}
