//! The streams of a [`Client`]: records as they come, and a pipelined produce.

use futures::executor::block_on;
use futures::stream::Stream;
use futures::{FutureExt, SinkExt, StreamExt};
use grpcio::{ClientDuplexReceiver, ClientDuplexSender, ClientSStreamReceiver, WriteFlags};

use super::{Client, ClientError};
use crate::pb::log::{ConsumeResponse, ProduceRequest, ProduceResponse};

/// The answers of a stream, all of them, and then its status.
///
/// grpcio's streams give the status as soon as it is there, which may be before the last answers are read: it is put
/// aside until they are.
struct Answers<S, T> {
    stream: S,
    status: Option<ClientError>,
    ended: bool,
    /// An answer that came while nobody waited for one.
    early: Option<T>,
}

impl<T, S: Stream<Item = grpcio::Result<T>> + Unpin> Answers<S, T> {
    fn new(stream: S) -> Answers<S, T> {
        Answers { stream, status: None, ended: false, early: None }
    }

    /// The next answer; `None` after the last one of a stream that ended well, and after an error.
    fn next(&mut self) -> Option<Result<T, ClientError>> {
        if let Some(early) = self.early.take() {
            return Some(Ok(early));
        }
        while !self.ended {
            match block_on(self.stream.next()) {
                Some(Ok(answer)) => return Some(Ok(answer)),
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
                Some(Some(Ok(answer))) => self.early = Some(answer),
                Some(Some(Err(error))) => self.status = Some(error.into()),
                Some(None) => self.ended = true,
            }
        }
        self.early.is_none()
    }
}

/// Records as they come. The iterator ends after the status of a stream that did not end well.
pub struct ConsumeStream {
    answers: Answers<ClientSStreamReceiver<ConsumeResponse>, ConsumeResponse>,
    #[expect(dead_code, reason = "the threads behind the stream must outlive it")]
    client: Client,
}

impl ConsumeStream {
    pub(super) fn new(receiver: ClientSStreamReceiver<ConsumeResponse>, client: Client) -> ConsumeStream {
        ConsumeStream { answers: Answers::new(receiver), client }
    }
}

impl Iterator for ConsumeStream {
    type Item = Result<ConsumeResponse, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.answers.next()
    }
}

/// A pipelined produce. Keep fewer than 256 requests and 8 MiB unanswered: beyond that the server stops reading.
pub struct ProduceStream {
    sender: ClientDuplexSender<ProduceRequest>,
    /// Closed, or ended by the server: grpcio's sender panics when it is used once more.
    closed: bool,
    answers: Answers<ClientDuplexReceiver<ProduceResponse>, ProduceResponse>,
    #[expect(dead_code, reason = "the threads behind the stream must outlive it")]
    client: Client,
}

impl ProduceStream {
    pub(super) fn new(
        sender: ClientDuplexSender<ProduceRequest>,
        receiver: ClientDuplexReceiver<ProduceResponse>,
        client: Client,
    ) -> ProduceStream {
        ProduceStream { sender, closed: false, answers: Answers::new(receiver), client }
    }

    /// True if the stream is known to have ended: a request that is sent now does not arrive. Does not wait.
    pub fn has_ended(&mut self) -> bool {
        self.answers.has_ended()
    }

    /// Sends a request. False when the stream has ended: the answers that are left, and the status, come from
    /// [`ProduceStream::answer`].
    pub fn send(&mut self, request: ProduceRequest) -> bool {
        self.closed = self.closed || block_on(self.sender.send((request, WriteFlags::default()))).is_err();
        !self.closed
    }

    /// Says that no request comes any more.
    pub fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            // Fails when the stream has ended meanwhile, which the answers tell better.
            let _ = block_on(self.sender.close());
        }
    }

    /// The next answer, in the order of the requests; `None` after the last one of a stream that was closed and ended well.
    ///
    /// # Errors
    /// The stream's status: every request without an answer failed, or has an unknown outcome.
    pub fn answer(&mut self) -> Option<Result<ProduceResponse, ClientError>> {
        self.answers.next()
    }
}

#[cfg(test)]
mod tests {
    use grpcio::RpcStatusCode;

    use super::*;

    #[test]
    fn answers_come_before_the_status() {
        let status = || grpcio::Error::RpcFailure(grpcio::RpcStatus::new(RpcStatusCode::UNAVAILABLE));
        let mut answers = Answers::new(futures::stream::iter(vec![Ok(1), Err(status()), Ok(2), Ok(3)]));
        assert!(matches!(answers.next(), Some(Ok(1))));
        assert!(matches!(answers.next(), Some(Ok(2))));
        assert!(matches!(answers.next(), Some(Ok(3))));
        assert!(matches!(answers.next(), Some(Err(ClientError::Status(_)))));
        assert!(answers.next().is_none());
    }

    /// An ended stream was found out with the next request only, whose outcome was then unknown.
    #[test]
    fn the_end_of_a_stream_is_seen_without_a_request() {
        let error = || grpcio::Error::RpcFailure(grpcio::RpcStatus::new(RpcStatusCode::UNAVAILABLE));
        let ended = Answers::<_, u8>::new(futures::stream::iter(vec![Err(error())])).has_ended();
        let open = Answers::<_, u8>::new(futures::stream::pending::<grpcio::Result<u8>>()).has_ended();
        assert_eq!((ended, open), (true, false));
        let mut early = Answers::new(futures::stream::iter(vec![Ok(1), Ok(2)]));
        assert!(!early.has_ended());
        assert!(matches!((early.next(), early.next(), early.next()), (Some(Ok(1)), Some(Ok(2)), None)));
    }
}
