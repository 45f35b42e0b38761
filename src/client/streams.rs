//! The streams of a client: a tail of records, and a pipelined produce.

use std::sync::Arc;

use futures::executor::block_on;
use futures::stream::Stream;
use futures::{FutureExt, SinkExt, StreamExt};
use grpcio::{ClientDuplexReceiver, ClientDuplexSender, ClientSStreamReceiver, WriteFlags};

use super::connection::ClientConnection;
use super::status::ClientError;
use crate::pb::log::{ConsumeResponse, ProduceRequest, ProduceResponse};

/// The responses of a stream, and after the last one its status.
///
/// grpcio's streams return the status as soon as it has arrived, which may be before the last responses are read: it is
/// kept until they are.
struct Responses<S, T> {
    stream: S,
    status: Option<ClientError>,
    ended: bool,
    /// A response that arrived while the caller did not wait for one.
    early: Option<T>,
}

impl<T, S: Stream<Item = grpcio::Result<T>> + Unpin> Responses<S, T> {
    fn new(stream: S) -> Responses<S, T> {
        Responses { stream, status: None, ended: false, early: None }
    }

    /// The next response; `None` after the last one of a stream that ended well, and after an error.
    fn next(&mut self) -> Option<Result<T, ClientError>> {
        if let Some(early) = self.early.take() {
            return Some(Ok(early));
        }
        while !self.ended {
            match block_on(self.stream.next()) {
                Some(Ok(response)) => return Some(Ok(response)),
                Some(Err(error)) if self.status.is_none() => self.status = Some(error.into()),
                Some(Err(_)) | None => self.ended = true,
            }
        }
        self.status.take().map(Err)
    }

    /// True if the stream is known to have ended. Does not wait.
    fn has_ended(&mut self) -> bool {
        while !self.ended && self.status.is_none() && self.early.is_none() {
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

/// A tail of records. The iterator ends after the status of a stream that did not end well.
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
        self.responses.next()
    }
}

/// A pipelined produce. Keep fewer than 256 requests and 8 MiB unanswered: above that the server stops reading.
pub struct ProduceStream {
    sender: ClientDuplexSender<ProduceRequest>,
    /// Closed by the client or ended by the server. grpcio's sender panics if it is used after that.
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

    /// True if the stream is known to have ended: a request that is sent now does not arrive. Does not wait.
    pub fn has_ended(&mut self) -> bool {
        self.responses.has_ended()
    }

    /// Sends a request. Returns false if the stream has ended: [`ProduceStream::answer`] returns the remaining responses and
    /// the status.
    pub fn send(&mut self, request: ProduceRequest) -> bool {
        self.closed = self.closed || block_on(self.sender.send((request, WriteFlags::default()))).is_err();
        !self.closed
    }

    /// Ends the requests; responses still arrive.
    pub fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            // Fails if the stream has ended meanwhile; the status says why.
            let _ = block_on(self.sender.close());
        }
    }

    /// The next response, in the order of the requests; `None` after the last one of a stream that was closed and ended well.
    ///
    /// # Errors
    /// The stream's status: every request without a response failed, or has an unknown outcome.
    pub fn answer(&mut self) -> Option<Result<ProduceResponse, ClientError>> {
        self.responses.next()
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
        assert!(matches!(responses.next(), Some(Ok(1))));
        assert!(matches!(responses.next(), Some(Ok(2))));
        assert!(matches!(responses.next(), Some(Ok(3))));
        assert!(matches!(responses.next(), Some(Err(ClientError::Status(_)))));
        assert!(responses.next().is_none());
    }

    /// The end of a stream was noticed only with the next request, whose outcome was then unknown.
    #[test]
    fn the_end_of_a_stream_is_noticed_without_a_request() {
        let error = || grpcio::Error::RpcFailure(grpcio::RpcStatus::new(RpcStatusCode::UNAVAILABLE));
        let ended = Responses::<_, u8>::new(futures::stream::iter(vec![Err(error())])).has_ended();
        let open = Responses::<_, u8>::new(futures::stream::pending::<grpcio::Result<u8>>()).has_ended();
        assert_eq!((ended, open), (true, false));
        let mut early = Responses::new(futures::stream::iter(vec![Ok(1), Ok(2)]));
        assert!(!early.has_ended());
        assert!(matches!((early.next(), early.next(), early.next()), (Some(Ok(1)), Some(Ok(2)), None)));
    }
}
