//! One bidirectional stream to a peer, for the peer's thread. It consists of the hello, the welcome (the first
//! response), and then requests, each sent only after the previous one is written.
//!
//! No function blocks. Each one does what is possible now, and the context's waker is woken when more is possible.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::{Sink as _, Stream as _};
use grpcio::{ClientDuplexReceiver, ClientDuplexSender, WriteFlags};

use crate::replication::refusal::{Refusal, error_text};

/// Why a stream has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The connection was lost, the peer closed the stream, or this node abandons it.
    Ended(String),
    /// The peer refused this node.
    RefusedByPeer(Refusal),
    /// This node refuses the peer.
    PeerRefused(Refusal),
}

impl Lost {
    fn by(error: &grpcio::Error) -> Lost {
        Refusal::from_error(error).map_or_else(|| Lost::Ended(error_text(error)), Lost::RefusedByPeer)
    }

    /// This node abandons the stream.
    pub fn because(text: &str) -> Lost {
        Lost::Ended(text.to_owned())
    }

    /// Returns the reason, for the log.
    pub fn text(&self) -> &str {
        match self {
            Lost::Ended(text) => text,
            Lost::RefusedByPeer(refusal) | Lost::PeerRefused(refusal) => &refusal.text,
        }
    }
}

/// An attempt fails if the peer sends no welcome within this time.
pub const WELCOME_MAX: Duration = Duration::from_secs(3);

/// A stream to a peer. Dropping it cancels the call.
pub struct Link<Req, Resp> {
    requests: ClientDuplexSender<Req>,
    responses: ClientDuplexReceiver<Resp>,
    opened: Instant,
    welcome: Option<Resp>,
    /// The last write has failed. grpcio panics if its future is polled again.
    has_failed: bool,
}

impl<Req, Resp> Link<Req, Resp> {
    /// Opens a stream by sending the hello.
    ///
    /// # Errors
    /// [`Lost`] if the call can't be made.
    pub fn open(
        call: grpcio::Result<(ClientDuplexSender<Req>, ClientDuplexReceiver<Resp>)>,
        hello: Req,
    ) -> Result<Link<Req, Resp>, Lost> {
        let (requests, responses) = call.map_err(|e| Lost::by(&e))?;
        let mut link = Link { requests, responses, opened: Instant::now(), welcome: None, has_failed: false };
        link.send(hello)?;
        Ok(link)
    }

    /// Returns true once the peer has accepted the hello.
    pub fn is_welcome(&self) -> bool {
        self.welcome.is_some()
    }

    /// Returns the response with which the peer accepted the hello.
    pub fn welcome(&self) -> Option<&Resp> {
        self.welcome.as_ref()
    }

    /// Returns when the hello was sent.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// Returns the next response after the welcome.
    ///
    /// # Errors
    /// [`Lost`] if the stream has ended. No response follows.
    pub fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Resp, Lost>> {
        loop {
            match Pin::new(&mut self.responses).poll_next(cx) {
                Poll::Pending if self.has_failed => return Poll::Ready(Err(Lost::because("a write has failed"))),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(welcome))) if self.welcome.is_none() => self.welcome = Some(welcome),
                Poll::Ready(Some(Ok(response))) => return Poll::Ready(Ok(response)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Lost::by(&error))),
                Poll::Ready(None) => return Poll::Ready(Err(Lost::because("the peer closed the stream"))),
            }
        }
    }

    /// Returns true if a request can be sent now: the hello was accepted, and the previous request is written. A
    /// failed write is reported by [`Link::poll_response`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.is_welcome() || self.has_failed {
            return false;
        }
        let ready = Pin::new(&mut self.requests).poll_ready(cx);
        self.has_failed = matches!(ready, Poll::Ready(Err(_)));
        matches!(ready, Poll::Ready(Ok(())))
    }

    /// Returns true if a write has failed: the stream has ended.
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Sends a request. Must be called only after [`Link::poll_ready`] returned true.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn send(&mut self, request: Req) -> Result<(), Lost> {
        Pin::new(&mut self.requests).start_send((request, WriteFlags::default())).map_err(|e| Lost::by(&e))
    }
}
