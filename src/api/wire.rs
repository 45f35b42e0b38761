//! Protobuf's wire form, as far as the hot paths need it: fields of a message without an object for it.
//!
//! A produce request of 4 MiB may claim two million empty records; taken apart field by field, it costs no more memory
//! than what is kept of it.

use super::errors::Invalid;

/// A field's value, as its wire type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

/// The fields of a message in their order.
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Of these bytes.
    pub fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields { rest: bytes }
    }

    fn varint(&mut self) -> Result<u64, Invalid> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(Invalid::Malformed)?;
            self.rest = rest;
            // The tenth byte has one bit to give; like every other parser, the rest of it is dropped.
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Invalid::Malformed)
    }

    fn take(&mut self, bytes: u64) -> Result<&'a [u8], Invalid> {
        let bytes = usize::try_from(bytes).map_err(|_| Invalid::Malformed)?;
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(Invalid::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Invalid> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Invalid::Malformed)?;
        let number = tag >> 3;
        if number == 0 {
            return Err(Invalid::Malformed);
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Invalid::Malformed)?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| Invalid::Malformed)?)),
            // Groups are not in proto3, and no wire type is above 5.
            _ => return Err(Invalid::Malformed),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Invalid>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // The cast keeps the low byte, which is meant.
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint field; zero, proto3's default, takes no bytes.
pub fn put_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_varint(out, u64::from(number << 3));
        put_varint(out, value);
    }
}

/// Appends a fixed64 field; zero takes no bytes.
pub fn put_fixed64_field(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_varint(out, u64::from(number << 3 | 1));
        out.extend_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut bytes = Vec::new();
        put_varint_field(&mut bytes, 4, u64::MAX);
        put_varint_field(&mut bytes, 5, 0);
        put_fixed64_field(&mut bytes, 6, 7);
        bytes.extend_from_slice(&[0x1a, 2, b'h', b'i', 0x3d, 1, 0, 0, 0]);
        let fields: Result<Vec<_>, _> = Fields::new(&bytes).collect();
        let hi = Value::Bytes(b"hi");
        let expected = [(4, Value::Varint(u64::MAX)), (6, Value::Fixed64(7)), (3, hi), (7, Value::Fixed32(1))];
        assert_eq!(fields.expect("well-formed"), expected);
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_malformed() {
        for bad in [
            &[0x1a, 5, 1][..],
            &[0x0a],
            &[0x00, 1],
            &[0x0b],
            &[0x0f, 1],
            &[0x09, 1, 2],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        ] {
            let fields: Result<Vec<_>, _> = Fields::new(bad).collect();
            assert_eq!(fields, Err(Invalid::Malformed), "{bad:x?}");
        }
    }
}
