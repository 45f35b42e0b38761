//! gRPC servers and channels, built on `grpcio` and its C core.
//!
//! - [`options`]: the options of listeners and channels, and why they differ from the defaults
//! - [`mod@env`]: the completion-queue threads, and how a handler runs on them
//! - [`mod@log`]: forwards the C core's log, and names the connection of a failed handshake (`handshakes`)
//! - [`floods`]: the thread that closes connections that flood the process: with cancelled requests (`rapid_reset`),
//!   or with HTTP/2 frames that belong to no request (`frames`). Both judge what [`sockets`] and [`received`] count.
//!
//! `api` and `replication` build their servers with [`client_listener`] and [`peer_listener`]; `replication` and
//! `client` connect with [`peer_channel`] and [`client_channel`].

mod busy;
pub mod env;
pub mod floods;
mod frames;
mod handshakes;
pub mod log;
pub mod options;
mod rapid_reset;
pub mod received;
pub mod sockets;
mod tcp_info;

pub use env::{Env, StillInUse, guarded, spawn_guarded};
pub use floods::FloodGuard;
pub use log::redirect_log;
pub use options::{
    CLIENT_MESSAGE_BYTES_MAX, PEER_MESSAGE_BYTES_MAX, RECEIVE_BUFFER_BYTES, client_channel, client_listener,
    library_channel, peer_channel, peer_listener,
};
pub use received::Received;

#[cfg(test)]
mod tests;
