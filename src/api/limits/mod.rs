//! What one principal, and all together, may hold at once: open streams, unanswered requests, and bytes of requests and
//! responses in flight. Above a limit a request is rejected with LIMIT_REACHED; nobody waits for another principal's limit.
//!
//! Responses have a budget of their own, as large as that of requests, so that a client which never reads can still send
//! requests. A read takes less the less is left of two thirds of it, a quarter of that at most; the last third is for small
//! reads. So clients that never read what they asked for do not starve others of the same name. All reads leave a quarter
//! of the node's bytes to appends.
//!
//! - `budget`: [`Budgets`], and the [`Permit`] that holds a part of them
//! - `queue` and `turn`: the fair queue in which a principal's open streams wait for bytes to read into
//! - `late`: large requests that are rejected again and again are answered late

mod budget;
mod late;
mod queue;
mod queued_read;

pub use self::budget::{Budgets, LimitReached, Permit, Usage};
