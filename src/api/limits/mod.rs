//! Limits on what each principal, and all principals together, hold at the same time: open streams, unanswered requests, and
//! bytes of requests and responses in flight. A request that would exceed a limit is rejected with LIMIT_REACHED.
//!
//! Responses have a separate budget of the same size as that of requests, so that a client that reads no responses can still
//! send requests. A read takes at most a quarter of what is left of two thirds of this budget; the last third is reserved for
//! small reads. So clients that request data and never read it do not starve other clients of the same principal. All reads
//! together leave a quarter of the node's bytes to appends.
//!
//! - `budget`: [`Budgets`], and the [`Permit`] that holds a part of them
//! - `queue` and `queued_read`: the fair queue in which the open streams of a principal wait for their next read
//! - `late`: throttles clients that send large invalid requests

mod budget;
mod late;
mod queue;
mod queued_read;

pub use self::budget::{Budgets, LimitReached, Permit, Usage};
