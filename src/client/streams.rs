//! The streams of a client: a tail, and a pipelined produce.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::executor::block_on;
use futures::stream::Stream;
use futures::{FutureExt, SinkExt, StreamExt, ready};
use grpcio::{ClientDuplexReceiver, ClientDuplexSender, ClientSStreamReceiver, WriteFlags};

use super::connection::ClientConnection;
use super::status::ClientError;
use crate::pb::v1::{ConsumeResponse, ProduceRequest, ProduceResponse};

/// The responses of a stream, followed by its status if that is an error.
///
/// grpcio's streams return the status as soon as it arrives, possibly before the last responses. So it is kept until
/// all responses were read.
pub(super) struct Responses<S, T> {
    stream: S,
    status: Option<ClientError>,
    ended: bool,
    /// A response that [`Responses::has_ended`] found.
    early: Option<T>,
}

impl<T: Unpin, S: Stream<Item = grpcio::Result<T>> + Unpin> Responses<S, T> {
    pub fn new(stream: S) -> Responses<S, T> {
        Responses { stream, status: None, ended: false, early: None }
    }

    /// Waits for the next response. Returns `None` after the last one if the stream ended with OK, and after an error.
    fn wait(&mut self) -> Option<Result<T, ClientError>> {
        block_on(self.next())
    }

    /// Returns true if the stream is known to have ended. Does not wait.
    fn has_ended(&mut self) -> bool {
        if self.early.is_none() && !self.ended && self.status.is_none() {
            match self.stream.next().now_or_never() {
                None => return false,
                Some(Some(Ok(response))) => self.early = Some(response),
                Some(Some(Err(error))) => self.status = Some(error.into()),
                Some(None) => self.ended = true,
            }
        }
        self.early.is_none()
    }
}

impl<T: Unpin, S: Stream<Item = grpcio::Result<T>> + Unpin> Stream for Responses<S, T> {
    type Item = Result<T, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(early) = self.early.take() {
            return Poll::Ready(Some(Ok(early)));
        }
        while !self.ended {
            match ready!(self.stream.poll_next_unpin(context)) {
                Some(Ok(response)) => return Poll::Ready(Some(Ok(response))),
                Some(Err(error)) if self.status.is_none() => self.status = Some(error.into()),
                Some(Err(_)) | None => self.ended = true,
            }
        }
        Poll::Ready(self.status.take().map(Err))
    }
}

/// A stream of records. The iterator ends after the last response, or after the status if that is an error.
pub struct ConsumeStream {
    responses: Responses<ClientSStreamReceiver<ConsumeResponse>, ConsumeResponse>,
    #[expect(dead_code, reason = "the thread of the connection must outlive the stream")]
    connection: Arc<ClientConnection>,
}

impl ConsumeStream {
    pub(super) fn new(
        receiver: ClientSStreamReceiver<ConsumeResponse>,
        connection: Arc<ClientConnection>,
    ) -> ConsumeStream {
        ConsumeStream { responses: Responses::new(receiver), connection }
    }
}

impl Iterator for ConsumeStream {
    type Item = Result<ConsumeResponse, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.responses.wait()
    }
}

/// A pipelined produce. If 256 requests or 8 MiB are unanswered, the server stops reading, so the caller must keep
/// below that.
pub struct ProduceStream {
    sender: ClientDuplexSender<ProduceRequest>,
    /// The client has closed the stream, or the server has ended it. grpcio's sender panics if it is used after that.
    closed: bool,
    responses: Responses<ClientDuplexReceiver<ProduceResponse>, ProduceResponse>,
    #[expect(dead_code, reason = "the thread of the connection must outlive the stream")]
    connection: Arc<ClientConnection>,
}

impl ProduceStream {
    pub(super) fn new(
        sender: ClientDuplexSender<ProduceRequest>,
        receiver: ClientDuplexReceiver<ProduceResponse>,
        connection: Arc<ClientConnection>,
    ) -> ProduceStream {
        ProduceStream { sender, closed: false, responses: Responses::new(receiver), connection }
    }

    /// Returns true if the stream is known to have ended, so that further requests would be lost. Does not wait.
    pub fn has_ended(&mut self) -> bool {
        self.responses.has_ended()
    }

    /// Sends a request. Returns false if the stream has ended; then [`ProduceStream::answer`] returns the remaining
    /// responses and the status.
    pub fn send(&mut self, request: ProduceRequest) -> bool {
        self.closed = self.closed || block_on(self.sender.send((request, WriteFlags::default()))).is_err();
        !self.closed
    }

    /// Closes the sending side. Responses still arrive.
    pub fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            // Fails if the stream has ended meanwhile; then the status contains the reason.
            let _ = block_on(self.sender.close());
        }
    }

    /// Waits for the next response, in the order of the requests. Returns `None` after the last one, if the stream
    /// was closed and ended with OK.
    ///
    /// # Errors
    /// The status of the stream. Every request without a response failed, or has an unknown outcome.
    pub fn answer(&mut self) -> Option<Result<ProduceResponse, ClientError>> {
        self.responses.wait()
    }
}

#[cfg(test)]
mod tests {
    use grpcio::RpcStatusCode;

    use super::*;

    #[test]
    fn responses_come_before_the_status() {
        let status = || grpcio::Error::RpcFailure(grpcio::RpcStatus::new(RpcStatusCode::UNAVAILABLE));
        let mut responses = Responses::new(futures::stream::iter(vec![Ok(1), Err(status()), Ok(2), Ok(3)]));
        assert!(matches!(responses.wait(), Some(Ok(1))));
        assert!(matches!(responses.wait(), Some(Ok(2))));
        assert!(matches!(responses.wait(), Some(Ok(3))));
        assert!(matches!(responses.wait(), Some(Err(ClientError::Status(_)))));
        assert!(responses.wait().is_none());
    }

    /// Regression test: the end of a stream was noticed only by the next request, whose outcome was then unknown.
    #[test]
    fn the_end_of_a_stream_is_noticed_without_a_request() {
        let error = || grpcio::Error::RpcFailure(grpcio::RpcStatus::new(RpcStatusCode::UNAVAILABLE));
        let ended = Responses::<_, u8>::new(futures::stream::iter(vec![Err(error())])).has_ended();
        let open = Responses::<_, u8>::new(futures::stream::pending::<grpcio::Result<u8>>()).has_ended();
        assert_eq!((ended, open), (true, false));
        let mut early = Responses::new(futures::stream::iter(vec![Ok(1), Ok(2)]));
        assert!(!early.has_ended());
        assert!(matches!((early.wait(), early.wait(), early.wait()), (Some(Ok(1)), Some(Ok(2)), None)));
    }
}
