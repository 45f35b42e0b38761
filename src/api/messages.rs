//! Requests and responses as gRPC receives and sends them. Both are bytes, to avoid copies.
//!
//! The handler decodes a request, so that a malformed one is rejected with INVALID_ARGUMENT; gRPC itself would return INTERNAL.
//! Stored records are sent without being decoded.

use std::cell::Cell;
use std::io::Read;

use grpcio::{GrpcSlice, Marshaller, MessageReader, Method, MethodType, pb_de, pb_ser};
use protobuf::{Message, MessageFull};

use super::error::Invalid;
use super::wire::{canonical, put_fixed64_field, put_varint_field};
use crate::pb;
use crate::types::LogId;
use crate::watermark::Visible;

/// The bytes of a request.
pub struct Request(pub Vec<u8>);

/// A `ConsumeResponse` that contains stored bytes. It can be sent only once, because gRPC takes the bytes without a copy.
#[derive(Default)]
pub struct ConsumeReply(Cell<Vec<u8>>);

/// The maximum size of the fields that [`ConsumeReply::many`] appends to the records.
const TAIL_BYTES_MAX: usize = 32;

impl ConsumeReply {
    /// Creates a response with one record, which is already encoded as field 2 (`record`).
    pub fn one(record: Vec<u8>) -> ConsumeReply {
        ConsumeReply(Cell::new(record))
    }

    /// Creates a response with any number of records, and the bounds of the log.
    pub fn many(mut records: Vec<u8>, visible: Visible, log_id: LogId) -> ConsumeReply {
        records.reserve(TAIL_BYTES_MAX);
        put_varint_field(&mut records, 4, visible.first_offset.0);
        put_varint_field(&mut records, 5, visible.next_offset.0);
        put_fixed64_field(&mut records, 6, log_id.0);
        ConsumeReply(Cell::new(records))
    }

    /// Like [`ConsumeReply::many`], for some of the records of one read.
    pub fn part(records: &[u8], visible: Visible, log_id: LogId) -> ConsumeReply {
        let mut part = Vec::with_capacity(records.len() + TAIL_BYTES_MAX);
        part.extend_from_slice(records);
        ConsumeReply::many(part, visible, log_id)
    }
}

#[cfg(test)]
impl ConsumeReply {
    /// Returns the bytes that are sent.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.take()
    }
}

/// Decodes a request that contains no records.
///
/// # Errors
/// [`Invalid::Malformed`].
pub fn decode<M: MessageFull>(request: &Request) -> Result<M, Invalid> {
    pb::parse(&canonical::<M>(&request.0)?).map_err(|_| Invalid::Malformed)
}

/// Decodes a request that changes something for good. A field that this version does not know is refused: it may say
/// under which condition, or that nothing should be changed at all.
///
/// # Errors
/// [`Invalid::Malformed`], [`Invalid::UnknownField`].
pub fn decode_change<M: MessageFull>(request: &Request) -> Result<M, Invalid> {
    let message: M = decode(request)?;
    let unknown = message.special_fields().unknown_fields().iter().next().map(|(number, _)| number);
    unknown.map_or(Ok(message), |number| Err(Invalid::UnknownField(number)))
}

/// A message that a handler may return.
pub trait Response: Sized + Send + 'static {
    /// How gRPC encodes the response. Only clients decode it.
    const MARSHALLER: Marshaller<Self>;
}

impl<T: Message> Response for T {
    const MARSHALLER: Marshaller<T> = Marshaller { ser: pb_ser, de: pb_de };
}

impl Response for ConsumeReply {
    const MARSHALLER: Marshaller<ConsumeReply> = Marshaller { ser: put_reply, de: no_reply };
}

/// Returns the method with this name, for gRPC's binding.
pub const fn method<T: Response>(ty: MethodType, name: &'static str) -> Method<Request, T> {
    Method { ty, name, req_mar: Marshaller { ser: put_request, de: take_request }, resp_mar: T::MARSHALLER }
}

fn take_request(mut reader: MessageReader) -> grpcio::Result<Request> {
    let mut bytes = Vec::with_capacity(reader.len());
    reader.read_to_end(&mut bytes).map_err(|e| grpcio::Error::Codec(Box::new(e)))?;
    Ok(Request(bytes))
}

fn put_request(request: &Request, buffer: &mut GrpcSlice) -> grpcio::Result<()> {
    *buffer = GrpcSlice::from(request.0.as_slice());
    Ok(())
}

fn put_reply(reply: &ConsumeReply, buffer: &mut GrpcSlice) -> grpcio::Result<()> {
    let mut bytes = reply.0.take();
    // gRPC takes over the allocation only if it has no spare capacity.
    bytes.shrink_to_fit();
    *buffer = GrpcSlice::from(bytes);
    Ok(())
}

fn no_reply(_: MessageReader) -> grpcio::Result<ConsumeReply> {
    Err(grpcio::Error::Codec("only a client decodes this".into()))
}
