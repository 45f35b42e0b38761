//! One two-way stream to a peer, as its thread sees it: hello, welcome, then one unsent message at a time.
//!
//! Nothing here blocks: each function does what can be done now, and the waker of the context is woken when more can.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::{Sink as _, Stream as _};
use grpcio::{ClientDuplexReceiver, ClientDuplexSender, WriteFlags};

use crate::replication::refusal::{Refusal, error_text};

/// The stream is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// What the other side gave as its reason, if it refused us.
    pub refusal: Option<Refusal>,
    /// For the log.
    pub text: String,
}

impl Lost {
    fn by(error: &grpcio::Error) -> Lost {
        Lost { refusal: Refusal::from_error(error), text: error_text(error) }
    }

    /// Lost for a reason of our own.
    pub fn because(text: &str) -> Lost {
        Lost { refusal: None, text: text.to_owned() }
    }
}

/// A stream to a peer. Dropping it cancels the call.
pub struct Link<Req, Resp> {
    requests: ClientDuplexSender<Req>,
    responses: ClientDuplexReceiver<Resp>,
    opened: Instant,
    welcome: Option<Resp>,
}

impl<Req, Resp> Link<Req, Resp> {
    /// Opens it by saying hello.
    ///
    /// # Errors
    /// When the call can't be made.
    pub fn open(
        call: grpcio::Result<(ClientDuplexSender<Req>, ClientDuplexReceiver<Resp>)>,
        hello: Req,
    ) -> Result<Link<Req, Resp>, Lost> {
        let (requests, responses) = call.map_err(|e| Lost::by(&e))?;
        let mut link = Link { requests, responses, opened: Instant::now(), welcome: None };
        link.send(hello)?;
        Ok(link)
    }

    /// True once the other side accepted our hello.
    pub fn is_welcome(&self) -> bool {
        self.welcome.is_some()
    }

    /// The first response.
    pub fn welcome(&self) -> Option<&Resp> {
        self.welcome.as_ref()
    }

    /// When it was opened.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// The next response after the welcome.
    ///
    /// # Errors
    /// [`Lost`], once and for all.
    pub fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Resp, Lost>> {
        loop {
            match Pin::new(&mut self.responses).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(welcome))) if self.welcome.is_none() => self.welcome = Some(welcome),
                Poll::Ready(Some(Ok(response))) => return Poll::Ready(Ok(response)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Lost::by(&error))),
                Poll::Ready(None) => return Poll::Ready(Err(Lost::because("the peer closed the stream"))),
            }
        }
    }

    /// True when a request can be sent now: welcome, and the one before has gone out. A failed write shows as a lost response.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> bool {
        self.is_welcome() && matches!(Pin::new(&mut self.requests).poll_ready(cx), Poll::Ready(Ok(())))
    }

    /// Sends a request; only after [`Link::poll_ready`] said so.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn send(&mut self, request: Req) -> Result<(), Lost> {
        Pin::new(&mut self.requests).start_send((request, WriteFlags::default())).map_err(|e| Lost::by(&e))
    }
}
