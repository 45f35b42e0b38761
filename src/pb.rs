//! The messages and services generated from `proto/`.

#![allow(missing_docs, clippy::all, clippy::unwrap_used, unknown_lints, renamed_and_removed_lints)]

mod generated {
    include!(concat!(env!("OUT_DIR"), "/pb/mod.rs"));
}

pub use generated::{
    admin, admin_grpc, catalog, error_details, health, health_grpc, log, log_grpc, peer, peer_grpc, status,
};
