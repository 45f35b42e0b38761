//! The messages and services generated from `proto/`.

#![allow(missing_docs, clippy::all, clippy::unwrap_used, unknown_lints, renamed_and_removed_lints)]

mod generated {
    include!(concat!(env!("OUT_DIR"), "/pb/mod.rs"));
}

pub use generated::{
    admin, admin_grpc, catalog, error_details, health, health_grpc, log, log_grpc, peer, peer_grpc, status,
};

/// Reads a message of these bytes, which may come from anybody.
///
/// # Errors
/// When they are none.
pub fn parse<M: protobuf::Message>(bytes: &[u8]) -> protobuf::Result<M> {
    let mut input = protobuf::CodedInputStream::from_bytes(bytes);
    // Without a limit room for ten million bytes is made for whatever a length claims, before one of them is there. For fields
    // of `bytes` it is so all the same.
    input.push_limit(bytes.len() as u64)?;
    let mut message = M::new();
    message.merge_from(&mut input)?;
    message.check_initialized()?;
    Ok(message)
}
