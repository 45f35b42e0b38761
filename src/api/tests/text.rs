//! Prints a message as the decoders in `clients/decoders` do: JSON with the fields that are set, in the order of their numbers;
//! integers as decimal strings, bytes in hexadecimal, and an `Any` as its message with `@type`.

use std::collections::BTreeMap;

use protobuf::MessageDyn;
use protobuf::MessageFull;
use protobuf::reflect::{FieldDescriptor, ReflectFieldRef, ReflectValueRef};
use protobuf::well_known_types::any::Any;

use crate::pb::error_details::{BadRequest, ErrorInfo, LocalizedMessage, RetryInfo};

/// Returns the message as one line of JSON.
pub fn text(message: &dyn MessageDyn) -> String {
    if let Some(any) = message.downcast_ref::<Any>() {
        return any_text(any);
    }
    let descriptor = message.descriptor_dyn();
    let mut fields: Vec<FieldDescriptor> = descriptor.fields().collect();
    fields.sort_by_key(|field| field.number());
    let set = fields.iter().filter_map(|field| Some(format!("{}:{}", quoted(field.name()), value(message, field)?)));
    format!("{{{}}}", set.collect::<Vec<_>>().join(","))
}

fn value(message: &dyn MessageDyn, field: &FieldDescriptor) -> Option<String> {
    match field.get_reflect(message) {
        ReflectFieldRef::Optional(optional) => {
            let value = one(&optional.value()?);
            let has_presence =
                field.proto().proto3_optional() || field.proto().has_type_name() && value.starts_with('{');
            // A field without presence is not set if it has its default value.
            (has_presence || !["\"0\"", "\"\"", "false"].contains(&value.as_str())).then_some(value)
        }
        ReflectFieldRef::Repeated(repeated) => {
            let values: Vec<String> = (&repeated).into_iter().map(|value| one(&value)).collect();
            (!values.is_empty()).then(|| format!("[{}]", values.join(",")))
        }
        ReflectFieldRef::Map(map) => {
            let key = |key: ReflectValueRef<'_>| key.to_str().unwrap_or_default().to_owned();
            let sorted: BTreeMap<String, String> = (&map).into_iter().map(|(k, v)| (key(k), one(&v))).collect();
            let entries: Vec<String> = sorted.iter().map(|(k, v)| format!("{}:{v}", quoted(k))).collect();
            (!entries.is_empty()).then(|| format!("{{{}}}", entries.join(",")))
        }
    }
}

fn one(value: &ReflectValueRef<'_>) -> String {
    match value {
        ReflectValueRef::U32(number) => format!("\"{number}\""),
        ReflectValueRef::U64(number) => format!("\"{number}\""),
        ReflectValueRef::I32(number) | ReflectValueRef::Enum(_, number) => format!("\"{number}\""),
        ReflectValueRef::I64(number) => format!("\"{number}\""),
        ReflectValueRef::Bool(flag) => flag.to_string(),
        ReflectValueRef::String(text) => quoted(text),
        ReflectValueRef::Bytes(bytes) => format!("\"{}\"", hex(bytes)),
        ReflectValueRef::Message(message) => text(&**message),
        ReflectValueRef::F32(_) | ReflectValueRef::F64(_) => panic!("no response has a float"),
    }
}

fn any_text(any: &Any) -> String {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    let details =
        [ErrorInfo::descriptor(), RetryInfo::descriptor(), BadRequest::descriptor(), LocalizedMessage::descriptor()];
    let unpacked = details
        .iter()
        .find(|descriptor| descriptor.full_name() == name)
        .map(|descriptor| text(&*descriptor.parse_from_bytes(&any.value).expect("well-formed")))
        .unwrap_or_else(|| panic!("a detail of type {name}"));
    let ty = quoted(&any.type_url);
    if unpacked == "{}" { format!("{{\"@type\":{ty}}}") } else { format!("{{\"@type\":{ty},{}", &unpacked[1..]) }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
