//! Requests and responses as gRPC receives and sends them. Both are bytes, to avoid copies.
//!
//! The handler decodes a request, so that a malformed one is rejected with INVALID_ARGUMENT; gRPC itself would return
//! INTERNAL. Stored records are sent without being decoded.

use std::cell::Cell;
use std::io::Read;

use grpcio::{GrpcSlice, Marshaller, MessageReader, Method, MethodType, pb_de, pb_ser};
use protobuf::{Message, MessageFull};

use super::error::Invalid;
use super::package::Package;
use super::wire::{canonical, check_known, put_bytes_field, put_fixed64_field, put_text_field, put_varint_field};
use crate::consensus::handle::Appended;
use crate::pb::{self, v1};
use crate::types::{LogId, Offset};
use crate::watermark::Visible;

/// The bytes of a request.
pub struct Request(pub Vec<u8>);

/// A `ConsumeResponse` that contains stored bytes. It can be sent only once, because gRPC takes the bytes without a
/// copy.
#[derive(Default)]
pub struct ConsumeReply(Cell<Vec<u8>>);

/// The maximum size of the fields that [`ConsumeReply::many`] appends to the records.
const TAIL_BYTES_MAX: usize = 64;

/// The fields of a `ConsumeResponse` besides its records.
#[derive(Clone, Copy, Debug)]
pub struct ReadState {
    /// The form of the response.
    pub package: Package,
    /// The bounds of the log.
    pub visible: Visible,
    /// The id of the log.
    pub log_id: LogId,
    /// The offset after the last record that was sent.
    pub resume: Offset,
}

impl ConsumeReply {
    /// Creates a response with one record, which is already encoded as field 2 (`record`).
    pub fn one(record: Vec<u8>) -> ConsumeReply {
        ConsumeReply(Cell::new(record))
    }

    /// Creates a response with any number of records.
    pub fn many(mut records: Vec<u8>, state: ReadState) -> ConsumeReply {
        records.reserve(TAIL_BYTES_MAX);
        put_varint_field(&mut records, 4, state.visible.first_offset.0);
        put_varint_field(&mut records, 5, state.visible.next_offset.0);
        match state.package {
            Package::LogV1 => put_fixed64_field(&mut records, 6, state.log_id.0),
            Package::SeriatimV1 => {
                put_text_field(&mut records, 6, &state.log_id.to_string());
                put_varint_field(&mut records, 7, state.resume.0);
            }
        }
        ConsumeReply(Cell::new(records))
    }

    /// Like [`ConsumeReply::many`], for some of the records of one read.
    pub fn part(records: &[u8], state: ReadState) -> ConsumeReply {
        let mut part = Vec::with_capacity(records.len() + TAIL_BYTES_MAX);
        part.extend_from_slice(records);
        ConsumeReply::many(part, state)
    }
}

/// A `ProduceResponse` of either package.
pub struct ProduceReply {
    /// The form of the response.
    pub package: Package,
    /// Where the records were appended.
    pub appended: Appended,
    /// The id of the log.
    pub log_id: LogId,
    /// The receipt, if the request asked for it.
    pub receipt: Option<v1::Receipt>,
}

impl ProduceReply {
    /// Returns the bytes that are sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(TAIL_BYTES_MAX);
        put_varint_field(&mut bytes, 1, self.appended.offset.0);
        put_varint_field(&mut bytes, 2, self.appended.count.into());
        put_varint_field(&mut bytes, 3, self.appended.term.0);
        put_fixed64_field(&mut bytes, 4, self.appended.append_time_us);
        match self.package {
            Package::LogV1 => put_fixed64_field(&mut bytes, 5, self.log_id.0),
            Package::SeriatimV1 => {
                put_text_field(&mut bytes, 5, &self.log_id.to_string());
                if self.appended.duplicate {
                    put_varint_field(&mut bytes, 6, 1);
                }
                let receipt = self.receipt.as_ref().and_then(|receipt| receipt.write_to_bytes().ok());
                receipt.iter().for_each(|receipt| put_bytes_field(&mut bytes, 7, receipt));
            }
        }
        bytes
    }
}

impl ConsumeReply {
    /// Takes a response that another node has encoded.
    pub fn of_bytes(bytes: Vec<u8>) -> ConsumeReply {
        ConsumeReply(Cell::new(bytes))
    }

    /// Returns the bytes that are sent.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.take()
    }

    /// The same, of a response that is kept.
    #[cfg(test)]
    pub fn bytes(&self) -> Vec<u8> {
        self.0.take()
    }
}

/// Decodes a request that contains no records. In `seriatim.v1`, a field that this version does not know is refused: it
/// may say under which condition, or that nothing should be done at all.
///
/// # Errors
/// [`Invalid::Malformed`]; in `seriatim.v1` those of [`check_known`].
pub fn decode<M: MessageFull>(request: &Request, package: Package) -> Result<M, Invalid> {
    match package {
        Package::LogV1 => {}
        Package::SeriatimV1 => check_known::<M>(&request.0)?,
    }
    decode_known(request)
}

/// Decodes a request, and ignores what this version does not know. For `log.v1`, as its original does, and for gRPC's
/// own services, whose clients know nothing of Seriatim.
///
/// # Errors
/// [`Invalid::Malformed`].
pub fn decode_known<M: MessageFull>(request: &Request) -> Result<M, Invalid> {
    pb::parse(&canonical::<M>(&request.0)?).map_err(|_| Invalid::Malformed)
}

/// A message that a handler may return.
pub trait Response: Sized + Send + 'static {
    /// How gRPC encodes the response. Only clients decode it.
    const MARSHALLER: Marshaller<Self>;
}

impl<T: Message> Response for T {
    const MARSHALLER: Marshaller<T> = Marshaller { ser: pb_ser, de: pb_de };
}

impl Response for ProduceReply {
    const MARSHALLER: Marshaller<ProduceReply> = Marshaller { ser: put_produce_reply, de: no_reply };
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

fn put_produce_reply(reply: &ProduceReply, buffer: &mut GrpcSlice) -> grpcio::Result<()> {
    *buffer = GrpcSlice::from(reply.bytes());
    Ok(())
}

fn no_reply<T>(_: MessageReader) -> grpcio::Result<T> {
    Err(grpcio::Error::Codec("only a client decodes this".into()))
}
