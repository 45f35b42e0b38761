//! Protobuf's wire format, as far as the hot paths need it: iterates over the fields of a message without creating an
//! object.
//!
//! A produce request of 4 MiB may contain two million empty records. Decoding it field by field needs no memory except
//! for the values that are kept.

use std::collections::BTreeMap;

use protobuf::MessageFull;
use protobuf::descriptor::field_descriptor_proto::Type;
use protobuf::reflect::{FieldDescriptor, MessageDescriptor, RuntimeFieldType, RuntimeType};

use super::error::Invalid;
use crate::varint;

/// The maximum nesting of groups and of messages. As in other parsers, deeper ones are rejected.
const DEPTH_MAX: usize = 100;

/// A field's value, by its wire type.
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
    /// Wire type 3, a group, which proto3 does not have. Only [`MessageFields::with_groups`] returns it.
    Group,
}

/// Iterates over the fields of a message.
pub struct MessageFields<'a> {
    rest: &'a [u8],
    with_groups: bool,
}

impl<'a> MessageFields<'a> {
    /// Iterates over the fields of the message in these bytes. Groups are skipped.
    pub fn new(bytes: &'a [u8]) -> MessageFields<'a> {
        MessageFields { rest: bytes, with_groups: false }
    }

    /// The same, but groups are not skipped.
    pub fn with_groups(bytes: &'a [u8]) -> MessageFields<'a> {
        MessageFields { rest: bytes, with_groups: true }
    }

    fn varint(&mut self) -> Result<u64, Invalid> {
        let (value, bytes) = varint::read(self.rest).ok_or(Invalid::Malformed)?;
        self.rest = &self.rest[bytes..];
        Ok(value)
    }

    fn take(&mut self, bytes: u64) -> Result<&'a [u8], Invalid> {
        let bytes = usize::try_from(bytes).map_err(|_| Invalid::Malformed)?;
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(Invalid::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads a field's number and wire type.
    fn tag(&mut self) -> Result<(u32, u32), Invalid> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Invalid::Malformed)?;
        if tag >> 3 == 0 { Err(Invalid::Malformed) } else { Ok((tag >> 3, tag & 7)) }
    }

    fn value(&mut self, wire_type: u32) -> Result<Value<'a>, Invalid> {
        Ok(match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Invalid::Malformed)?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| Invalid::Malformed)?)),
            // The end of a group that did not start; wire types above 5 do not exist.
            _ => return Err(Invalid::Malformed),
        })
    }

    /// Skips to the end of a group. proto3 has no groups, so it is an unknown field.
    fn skip_group(&mut self, number: u32) -> Result<(), Invalid> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            match self.tag()? {
                (number, GROUP) if open.len() < DEPTH_MAX => open.push(number),
                (number, GROUP_END) if number == innermost => _ = open.pop(),
                (_, wire_type) => _ = self.value(wire_type)?,
            }
        }
        Ok(())
    }

    fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, Invalid> {
        while !self.rest.is_empty() {
            let (number, wire_type) = self.tag()?;
            if wire_type != GROUP {
                return Ok(Some((number, self.value(wire_type)?)));
            }
            self.skip_group(number)?;
            if self.with_groups {
                return Ok(Some((number, Value::Group)));
            }
        }
        Ok(None)
    }
}

const GROUP: u32 = 3;
const GROUP_END: u32 = 4;

impl<'a> Iterator for MessageFields<'a> {
    type Item = Result<(u32, Value<'a>), Invalid>;

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        field.transpose()
    }
}

/// Converts a message into a form that rust-protobuf reads correctly. Other encoders may send three things that it
/// rejects or reads differently from the standard: a varint with more bits than its type has (they are dropped), a
/// group, and a message field that occurs twice (the two are merged). Unknown fields are dropped.
///
/// # Errors
/// [`Invalid::Malformed`].
pub fn canonical<M: MessageFull>(message: &[u8]) -> Result<Vec<u8>, Invalid> {
    canonical_of(&M::descriptor(), message, DEPTH_MAX)
}

fn canonical_of(descriptor: &MessageDescriptor, message: &[u8], depth: usize) -> Result<Vec<u8>, Invalid> {
    let depth = depth.checked_sub(1).ok_or(Invalid::Malformed)?;
    let mut out = Vec::with_capacity(message.len());
    // Messages are merged by decoding their bytes one after the other.
    let mut merged: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    for field in MessageFields::new(message) {
        let (number, value) = field?;
        let Some(known) = descriptor.field_by_number(number) else { continue };
        let ty = known.proto().type_();
        match value {
            Value::Varint(value) => {
                put_tag(&mut out, number, 0);
                varint::put(&mut out, of_type(ty, value));
            }
            Value::Fixed64(value) => {
                put_tag(&mut out, number, 1);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Value::Fixed32(value) => {
                put_tag(&mut out, number, 5);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Value::Bytes(bytes) => match known.runtime_field_type() {
                RuntimeFieldType::Singular(RuntimeType::Message(inner)) => {
                    // Each one is checked separately first, because a truncated message must not continue in the next
                    // one.
                    merged.entry(number).or_default().extend(canonical_of(&inner, bytes, depth)?);
                }
                RuntimeFieldType::Repeated(RuntimeType::Message(inner)) => {
                    put_bytes_field(&mut out, number, &canonical_of(&inner, bytes, depth)?);
                }
                _ => put_bytes_field(&mut out, number, bytes),
            },
            Value::Group => {}
        }
    }
    for (number, bytes) in merged {
        if let Some(RuntimeFieldType::Singular(RuntimeType::Message(inner))) =
            descriptor.field_by_number(number).map(|known| known.runtime_field_type())
        {
            put_bytes_field(&mut out, number, &canonical_of(&inner, &bytes, depth)?);
        }
    }
    Ok(out)
}

/// Refuses a message with a field that the descriptor does not contain, a field of another wire type, or an unknown
/// value of an enum, at any depth.
///
/// # Errors
/// [`Invalid::UnknownField`], [`Invalid::WireType`], [`Invalid::EnumValue`] with the path of the field;
/// [`Invalid::Malformed`].
pub fn check_known<M: MessageFull>(message: &[u8]) -> Result<(), Invalid> {
    check_known_of(&M::descriptor(), message, "", DEPTH_MAX)
}

fn check_known_of(descriptor: &MessageDescriptor, message: &[u8], path: &str, depth: usize) -> Result<(), Invalid> {
    let depth = depth.checked_sub(1).ok_or(Invalid::Malformed)?;
    let mut positions: BTreeMap<u32, usize> = BTreeMap::new();
    for field in MessageFields::with_groups(message) {
        let (number, value) = field?;
        let Some(known) = descriptor.field_by_number(number).filter(|known| fits(known, value)) else {
            return Err(refused_field(descriptor, number, path));
        };
        match (known.runtime_field_type(), value) {
            (RuntimeFieldType::Singular(RuntimeType::Message(inner)), Value::Bytes(bytes)) => {
                check_known_of(&inner, bytes, &format!("{path}{}.", known.name()), depth)?;
            }
            (RuntimeFieldType::Repeated(RuntimeType::Message(inner)), Value::Bytes(bytes)) => {
                let position = positions.entry(number).or_default();
                check_known_of(&inner, bytes, &format!("{path}{}[{position}].", known.name()), depth)?;
                *position += 1;
            }
            (RuntimeFieldType::Map(_, _), Value::Bytes(entry)) => {
                // Field 1 is the key, and field 2 the value: scalars in this API.
                for field in MessageFields::with_groups(entry) {
                    let (number, _) = field?;
                    if number > 2 {
                        return Err(Invalid::UnknownField { field: format!("{path}{}.{number}", known.name()) });
                    }
                }
            }
            (RuntimeFieldType::Singular(RuntimeType::Enum(values)), Value::Varint(value)) => {
                // As protobuf requires, an enum keeps the low 32 bits.
                let value = value as i32;
                if values.value_by_number(value).is_none() {
                    return Err(Invalid::EnumValue { field: format!("{path}{}", known.name()), value });
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns whether the field may have this wire type.
fn fits(field: &FieldDescriptor, value: Value<'_>) -> bool {
    let ty = field.proto().type_();
    let is_of_type = match value {
        Value::Varint(_) => matches!(
            ty,
            Type::TYPE_INT32
                | Type::TYPE_INT64
                | Type::TYPE_UINT32
                | Type::TYPE_UINT64
                | Type::TYPE_SINT32
                | Type::TYPE_SINT64
                | Type::TYPE_BOOL
                | Type::TYPE_ENUM
        ),
        Value::Fixed64(_) => matches!(ty, Type::TYPE_FIXED64 | Type::TYPE_SFIXED64 | Type::TYPE_DOUBLE),
        Value::Fixed32(_) => matches!(ty, Type::TYPE_FIXED32 | Type::TYPE_SFIXED32 | Type::TYPE_FLOAT),
        Value::Bytes(_) => matches!(ty, Type::TYPE_STRING | Type::TYPE_BYTES | Type::TYPE_MESSAGE),
        Value::Group => false,
    };
    // The values of a repeated number may be packed.
    is_of_type || field.is_repeated() && matches!(value, Value::Bytes(_))
}

/// Returns the error for a field of a message that does not fit its descriptor. `path` is that of the message, with a
/// dot at its end.
pub fn refused_field(descriptor: &MessageDescriptor, number: u32, path: &str) -> Invalid {
    match descriptor.field_by_number(number) {
        Some(known) => Invalid::WireType { field: format!("{path}{}", known.name()) },
        None => Invalid::UnknownField { field: format!("{path}{number}") },
    }
}

/// Returns the value of a varint in a field of this type. As protobuf requires, a 32-bit type keeps the low 32 bits.
fn of_type(ty: Type, value: u64) -> u64 {
    match ty {
        Type::TYPE_INT32 | Type::TYPE_ENUM => i64::from(value as i32) as u64,
        Type::TYPE_UINT32 | Type::TYPE_SINT32 => u64::from(value as u32),
        Type::TYPE_BOOL => u64::from(value != 0),
        _ => value,
    }
}

fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u32) {
    varint::put(out, u64::from(number << 3 | wire_type));
}

/// Appends a field of bytes.
pub fn put_bytes_field(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, 2);
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a field of bytes or text, unless it is empty.
pub fn put_text_field(out: &mut Vec<u8>, number: u32, text: &str) {
    if !text.is_empty() {
        put_bytes_field(out, number, text.as_bytes());
    }
}

/// Appends a varint field, unless the value is zero, proto3's default.
pub fn put_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_tag(out, number, 0);
        varint::put(out, value);
    }
}

/// Appends a fixed64 field, unless the value is zero.
pub fn put_fixed64_field(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_tag(out, number, 1);
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
        let fields: Result<Vec<_>, _> = MessageFields::new(&bytes).collect();
        let hi = Value::Bytes(b"hi");
        let expected = [(4, Value::Varint(u64::MAX)), (6, Value::Fixed64(7)), (3, hi), (7, Value::Fixed32(1))];
        assert_eq!(fields.expect("well-formed"), expected);
    }

    #[test]
    fn truncated_or_unknown_fields_are_malformed() {
        for bad in [
            &[0x1a, 5, 1][..],
            &[0x0a],
            &[0x00, 1],
            &[0x0b],
            &[0x0c],
            &[0x0b, 0x14],
            &[0x0b, 0x13, 0x0c, 0x14],
            &[0x0f, 1],
            &[0x0b; DEPTH_MAX + 1],
            &[0x09, 1, 2],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        ] {
            let fields: Result<Vec<_>, _> = MessageFields::new(bad).collect();
            assert_eq!(fields, Err(Invalid::Malformed), "{bad:x?}");
        }
    }
}
