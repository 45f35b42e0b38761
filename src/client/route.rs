//! Which node is asked next, and after which pause; and the calls that are sent until they are answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use grpcio::CallOption;

use super::error::{Advice, Error, Result, combined};
use super::nodes::{Node, Nodes, answer};
use super::wait::{Backoff, Stop};
use crate::pb::unary::Response;
use crate::reason::Outcome;

/// The way of one operation, or of one producer or consumer, through the nodes.
pub(super) struct Route {
    nodes: Arc<Nodes>,
    addr: String,
    /// The nodes that have failed since the last pause or success.
    tried: Vec<String>,
    backoff: Backoff,
}

impl Route {
    pub fn new(nodes: &Arc<Nodes>) -> Route {
        let backoff = Backoff::new(nodes.options.backoff_min, nodes.options.backoff_max);
        Route { nodes: nodes.clone(), addr: nodes.first_addr(), tried: Vec::new(), backoff }
    }

    /// Returns the address of the node to ask.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Goes to the leader, unless it has failed before. Returns whether it goes there from another node.
    pub fn prefer(&mut self, leader: &str) -> bool {
        let goes = leader != self.addr && !leader.is_empty() && !self.tried.iter().any(|addr| addr == leader);
        if goes {
            leader.clone_into(&mut self.addr);
        }
        goes
    }

    /// Chooses the next node after an error, and returns the pause before it is asked. An error that tells the leader leads
    /// there if `to_leader` is set.
    pub fn failed(&mut self, error: &Error, to_leader: bool) -> Duration {
        let leader = error.status().leader().filter(|_| to_leader).map(str::to_owned);
        if error.advice() != Advice::Elsewhere {
            self.tried.clear();
            if let Some(leader) = leader {
                self.prefer(&leader);
            }
            return self.pause(error);
        }
        if !self.tried.contains(&self.addr) {
            self.tried.push(self.addr.clone());
        }
        if leader.is_some_and(|leader| self.prefer(&leader)) {
            return Duration::ZERO;
        }
        let addrs = self.nodes.addrs();
        // The nodes after this one, and then those before it.
        let at = addrs.iter().position(|addr| *addr == self.addr).map_or(0, |at| at + 1);
        let in_turn: Vec<&String> = addrs[at..].iter().chain(&addrs[..at]).collect();
        if let Some(next) = in_turn.iter().find(|addr| !self.tried.contains(addr)) {
            self.addr = (*next).clone();
            return Duration::ZERO;
        }
        self.addr = in_turn[0].clone();
        self.tried.clear();
        self.pause(error)
    }

    /// Begins anew with the pauses.
    pub fn succeeded(&mut self) {
        self.tried.clear();
        self.backoff.reset();
        self.nodes.answered(&self.addr);
    }

    fn pause(&mut self, error: &Error) -> Duration {
        self.backoff.pause().max(error.retry_after())
    }
}

/// A request that can be sent again.
pub(super) struct Operation<'a> {
    /// The moment after which it fails.
    pub until: Instant,
    /// It only reads, so earlier attempts and broken connections have no effect.
    pub reads: bool,
    pub stop: Option<&'a Stop>,
}

/// Sends a request until a node answers it.
///
/// # Errors
/// The first error that can't be retried, or the last one at the end of the time. Its outcome is that of all attempts.
pub(super) fn call<T: Unpin>(
    nodes: &Arc<Nodes>,
    operation: &Operation<'_>,
    start: impl Fn(&Node, CallOption) -> grpcio::Result<Response<T>>,
) -> Result<T> {
    let mut route = Route::new(nodes);
    let mut fate = Outcome::None;
    // An attempt that had less time than it needs fails without telling why.
    let mut better: Option<Error> = None;
    loop {
        let left = operation.until.saturating_duration_since(Instant::now());
        let full = left >= nodes.options.attempt_timeout;
        let timeout = left.min(nodes.options.attempt_timeout);
        let attempt = nodes.visit(route.addr(), operation.until, operation.stop).and_then(|node| {
            let result = answer(start(&node, CallOption::default().timeout(timeout)), operation.stop);
            result.inspect_err(|error| {
                if error.is_broken_connection() {
                    node.lost();
                }
            })
        });
        let error = match attempt {
            Ok(response) => {
                route.succeeded();
                return Ok(response);
            }
            Err(error) => error,
        };
        fate = match operation.reads {
            true if error.is_broken_connection() => Outcome::None,
            true => error.outcome(),
            false => combined(fate, error.outcome()),
        };
        let advice = error.advice();
        if advice == Advice::GiveUp || operation.stop.is_some_and(Stop::is_stopped) {
            return Err(error.with_outcome(fate));
        }
        let asked = route.addr().to_owned();
        let again = Instant::now() + route.failed(&error, false);
        if full || better.is_none() || !error.is_broken_connection() {
            better = Some(error.clone());
        }
        if again >= operation.until {
            return Err(better.unwrap_or(error).with_outcome(fate));
        }
        log::debug!("retried node={asked} next={} error={error}", route.addr());
        if again > Instant::now() {
            let stopped = match operation.stop {
                Some(stop) => !stop.pause_until(again),
                None => !Stop::new().pause_until(again),
            };
            if stopped {
                return Err(error.with_outcome(fate));
            }
        }
    }
}

/// Waits until a node answers.
///
/// # Errors
/// The last error, at the end of the time.
pub(super) fn ready(nodes: &Arc<Nodes>, timeout: Duration) -> Result<()> {
    let until = Instant::now() + timeout;
    let mut route = Route::new(nodes);
    let stop = Stop::new();
    loop {
        let error = match nodes.visit(route.addr(), until, Some(&stop)) {
            Ok(_) => {
                route.succeeded();
                return Ok(());
            }
            Err(error) => error,
        };
        let again = Instant::now() + route.failed(&error, false);
        if error.advice() == Advice::GiveUp || again >= until {
            return Err(error);
        }
        stop.pause_until(again);
    }
}
