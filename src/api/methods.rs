//! The methods of the client listener, with their messages as bytes where an object for them would only be in the way.
//!
//! A request comes as bytes and is taken apart by its handler: what is malformed is the handler's to answer
//! (INVALID_ARGUMENT; gRPC itself would say INTERNAL). Stored records go out as they are.

use std::cell::Cell;
use std::io::Read;

use grpcio::{GrpcSlice, Marshaller, MessageReader, Method, MethodType, pb_de, pb_ser};
use protobuf::{Message, MessageFull};

use super::errors::Invalid;
use super::wire::{canonical, put_fixed64_field, put_varint_field};
use crate::pb::{self, admin, health, log};
use crate::types::LogId;
use crate::watermark::Mark;

/// Requests but those that carry records have at most this many bytes.
const SMALL_REQUEST_BYTES_MAX: usize = 64 << 10;

/// A request as it came.
pub struct Request(pub Vec<u8>);

/// A `ConsumeResponse`, its records as they are stored. Sent once: gRPC takes the bytes as they are, without a copy.
#[derive(Default)]
pub struct ConsumeReply(Cell<Vec<u8>>);

/// What [`ConsumeReply::many`] may add to the records.
const TAIL_BYTES_MAX: usize = 32;

impl ConsumeReply {
    /// One record, already a field `record` = 2, and nothing else.
    pub fn one(record: Vec<u8>) -> ConsumeReply {
        ConsumeReply(Cell::new(record))
    }

    /// Some records, or none, and where the log stands.
    pub fn many(mut records: Vec<u8>, mark: Mark, log_id: LogId) -> ConsumeReply {
        records.reserve(TAIL_BYTES_MAX);
        put_varint_field(&mut records, 4, mark.first_offset.0);
        put_varint_field(&mut records, 5, mark.next_offset.0);
        put_fixed64_field(&mut records, 6, log_id.0);
        ConsumeReply(Cell::new(records))
    }

    /// A part of records that were read together, as [`ConsumeReply::many`].
    pub fn part(records: &[u8], mark: Mark, log_id: LogId) -> ConsumeReply {
        let mut part = Vec::with_capacity(records.len() + TAIL_BYTES_MAX);
        part.extend_from_slice(records);
        ConsumeReply::many(part, mark, log_id)
    }
}

#[cfg(test)]
impl ConsumeReply {
    /// What goes out.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.take()
    }
}

/// Reads a small request.
///
/// # Errors
/// [`Invalid`] when it is malformed or large.
pub fn decode<M: MessageFull>(request: &Request) -> Result<M, Invalid> {
    if request.0.len() > SMALL_REQUEST_BYTES_MAX {
        return Err(Invalid::MessageTooLarge { bytes_max: SMALL_REQUEST_BYTES_MAX });
    }
    pb::parse(&canonical::<M>(&request.0)?).map_err(|_| Invalid::Malformed)
}

fn take(mut reader: MessageReader) -> grpcio::Result<Request> {
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
    // Only then are they taken as they are.
    bytes.shrink_to_fit();
    *buffer = GrpcSlice::from(bytes);
    Ok(())
}

fn no_reply(_: MessageReader) -> grpcio::Result<ConsumeReply> {
    Err(grpcio::Error::Codec("only a client reads this".into()))
}

const fn raw<Resp: Message>(ty: MethodType, name: &'static str) -> Method<Request, Resp> {
    Method {
        ty,
        name,
        req_mar: Marshaller { ser: put_request, de: take },
        resp_mar: Marshaller { ser: pb_ser, de: pb_de },
    }
}

const fn consuming(ty: MethodType, name: &'static str) -> Method<Request, ConsumeReply> {
    Method {
        ty,
        name,
        req_mar: Marshaller { ser: put_request, de: take },
        resp_mar: Marshaller { ser: put_reply, de: no_reply },
    }
}

/// `log.v1.Log`, `seriatim.v1.Admin` and `grpc.health.v1.Health`.
pub mod name {
    /// Appends.
    pub const PRODUCE: &str = "/log.v1.Log/Produce";
    /// Reads.
    pub const CONSUME: &str = "/log.v1.Log/Consume";
    /// Reads and tails.
    pub const CONSUME_STREAM: &str = "/log.v1.Log/ConsumeStream";
    /// Appends, pipelined.
    pub const PRODUCE_STREAM: &str = "/log.v1.Log/ProduceStream";
    /// Who is in the cluster.
    pub const GET_SERVERS: &str = "/log.v1.Log/GetServers";
    /// Where a log stands.
    pub const GET_LOG: &str = "/log.v1.Log/GetLog";
    /// Makes old records unreadable.
    pub const TRIM: &str = "/seriatim.v1.Admin/Trim";
    /// Changes how a log is kept.
    pub const CONFIGURE_LOG: &str = "/seriatim.v1.Admin/ConfigureLog";
    /// What this node knows about itself.
    pub const GET_NODE: &str = "/seriatim.v1.Admin/GetNode";
    /// Takes this node calls?
    pub const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
    /// The same, whenever it changes.
    pub const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
}

/// See [`name`].
pub const PRODUCE: Method<Request, log::ProduceResponse> = raw(MethodType::Unary, name::PRODUCE);
/// See [`name`].
pub const CONSUME: Method<Request, ConsumeReply> = consuming(MethodType::Unary, name::CONSUME);
/// See [`name`].
pub const CONSUME_STREAM: Method<Request, ConsumeReply> = consuming(MethodType::ServerStreaming, name::CONSUME_STREAM);
/// See [`name`].
pub const PRODUCE_STREAM: Method<Request, log::ProduceResponse> = raw(MethodType::Duplex, name::PRODUCE_STREAM);
/// See [`name`].
pub const GET_SERVERS: Method<Request, log::GetServersResponse> = raw(MethodType::Unary, name::GET_SERVERS);
/// See [`name`].
pub const GET_LOG: Method<Request, log::GetLogResponse> = raw(MethodType::Unary, name::GET_LOG);
/// See [`name`].
pub const TRIM: Method<Request, admin::TrimResponse> = raw(MethodType::Unary, name::TRIM);
/// See [`name`].
pub const CONFIGURE_LOG: Method<Request, admin::ConfigureLogResponse> = raw(MethodType::Unary, name::CONFIGURE_LOG);
/// See [`name`].
pub const GET_NODE: Method<Request, admin::GetNodeResponse> = raw(MethodType::Unary, name::GET_NODE);
/// See [`name`].
pub const HEALTH_CHECK: Method<Request, health::HealthCheckResponse> = raw(MethodType::Unary, name::HEALTH_CHECK);
/// See [`name`].
pub const HEALTH_WATCH: Method<Request, health::HealthCheckResponse> =
    raw(MethodType::ServerStreaming, name::HEALTH_WATCH);
