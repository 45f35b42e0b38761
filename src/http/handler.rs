//! What answers requests.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::request::Request;
use super::response::Response;

/// The response to a request. Dropped if the client disconnects.
pub type Answer = BoxFuture<'static, Response>;

/// Answers requests. It is called on the thread `http`, which also polls the answer, so neither may block.
pub type Handler = Arc<dyn Fn(Request) -> Answer + Send + Sync>;
