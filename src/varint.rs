//! Protobuf's varints: seven bits in each byte, the lowest first, and the top bit set in every byte but the last.
//!
//! The only reader and writer of varints outside of rust-protobuf.

/// A number of 64 bits takes at most this many bytes.
pub const BYTES_MAX: usize = 10;

/// The width of [`padded`]: 63 bits.
pub const PADDED_BYTES: usize = 9;

/// Appends a number in as few bytes as possible.
pub fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        // The cast deliberately keeps only the low byte.
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Returns the number of bytes that [`put`] appends.
pub fn bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Decodes the varint at the start of `from`. Returns the number and the length of the varint, which exceeds
/// [`bytes()`] if the varint is padded. `None` if the varint is cut off or longer than [`BYTES_MAX`]. Only the lowest
/// bit of a tenth byte is used; the others are dropped, as in every protobuf parser.
pub fn read(from: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0u64;
    for (at, byte) in from.iter().take(BYTES_MAX).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, at + 1));
        }
    }
    None
}

/// Encodes the low 63 bits of a number with a fixed width, so that the number can be overwritten in place.
pub fn padded(number: u64) -> [u8; PADDED_BYTES] {
    std::array::from_fn(|at| {
        let bits = (number >> (7 * at)) as u8 & 0x7f;
        if at < PADDED_BYTES - 1 { bits | 0x80 } else { bits }
    })
}

/// Returns true if the bytes have the form that [`padded`] returns.
pub fn is_padded(field: &[u8]) -> bool {
    field.split_last().is_some_and(|(last, rest)| {
        rest.len() == PADDED_BYTES - 1 && last & 0x80 == 0 && rest.iter().all(|b| b & 0x80 != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_in_as_few_bytes_as_possible() {
        for bits in 0..64 {
            for number in [1 << bits, (1 << bits) - 1, u64::MAX >> bits] {
                let mut out = Vec::new();
                put(&mut out, number);
                assert_eq!(out.len(), bytes(number));
                out.push(0xff);
                assert_eq!(read(&out), Some((number, bytes(number))));
                assert_eq!(read(&out[..out.len() - 2]), None, "cut off");
            }
        }
    }

    #[test]
    fn padded_numbers_have_one_width() {
        for number in [0, 1, 300, i64::MAX as u64] {
            assert_eq!(read(&padded(number)), Some((number, PADDED_BYTES)));
            assert!(is_padded(&padded(number)));
        }
        assert!(!is_padded(&[0x80; PADDED_BYTES]) && !is_padded(&[0]) && !is_padded(&[]));
    }

    #[test]
    fn bits_past_the_64th_are_dropped_and_an_eleventh_byte_is_malformed() {
        let mut long = [0x80; 11];
        (long[0], long[9], long[10]) = (0x85, 0x7e, 0);
        assert_eq!(read(&long), Some((5, 10)));
        long[9] = 0x80;
        assert_eq!(read(&long), None);
    }
}
