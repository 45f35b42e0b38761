//! A small HTTP/1.1 server for monitoring: one thread, GET and HEAD only, a bounded number of connections.
//!
//! ```text
//!   hosts.rs       the names by which browsers may address the listener (DNS rebinding)
//!   request.rs     reads the head of a request
//!   response.rs    writes the head of a response
//!   handler.rs     what answers requests
//!   connection.rs  one connection: reads, waits for the answer, writes, closes
//!   server.rs      the thread `http`: accepts, and drives all connections with poll(2)
//! ```
//!
//! - Each connection serves one request and is closed after the response. A request's body is never read.
//! - A connection that sends its request, or reads its response, too slowly is closed. If too many are open, the one that
//!   has been sending its request for the longest time is closed for a new one. So slow or hostile clients can't keep
//!   others out for long, and need no thread of their own.
//! - What a request means is decided elsewhere: [`Handler`] returns a future, which the thread polls. It must not block.
//!
//! Servers with a thread for each connection (tiny_http) can't limit the number of connections, or the time that one takes.

mod connection;
mod handler;
pub mod hosts;
pub mod request;
pub mod response;
mod server;

pub use self::handler::{Answer, Handler};
pub use self::hosts::Hosts;
pub use self::request::Request;
pub use self::response::{Response, Status};
pub use self::server::HttpServer;

#[cfg(test)]
mod tests;
