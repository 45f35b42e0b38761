//! The messages and services generated from `proto/`.

#![allow(missing_docs, clippy::all, clippy::unwrap_used, unknown_lints, renamed_and_removed_lints)]

mod generated {
    include!(concat!(env!("OUT_DIR"), "/pb/mod.rs"));
}

pub use generated::{
    admin, admin_grpc, catalog, error_details, health, health_grpc, log, log_grpc, peer, peer_grpc, status,
};

/// Parses a message. The bytes may come from an untrusted host.
///
/// # Errors
/// If the bytes are not a valid message.
pub fn parse<M: protobuf::Message>(bytes: &[u8]) -> protobuf::Result<M> {
    let mut input = protobuf::CodedInputStream::from_bytes(bytes);
    // Without a limit, rust-protobuf allocates up to ten million bytes for the length that a field claims, before it
    // has read any of them. For fields of type `bytes` it does so in spite of the limit.
    input.push_limit(bytes.len() as u64)?;
    let mut message = M::new();
    message.merge_from(&mut input)?;
    message.check_initialized()?;
    Ok(message)
}
