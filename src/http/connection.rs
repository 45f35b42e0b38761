//! One connection: reads a request, waits for its answer, writes the response, and closes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use rustix::event::PollFlags;

use super::handler::{Answer, Handler};
use super::hosts::Hosts;
use super::request::{BadRequest, HEAD_BYTES_MAX, parse};
use super::response::{Response, Status};

/// The time for the head of a request, from the start of the connection.
const READ_MAX: Duration = Duration::from_secs(5);
/// The time for the answer of a handler.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The time for a response to be read by the client.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// The time for the client to close the connection after the response. If it was closed at once, and the request had a
/// body, the client could lose the response.
const LINGER_MAX: Duration = Duration::from_secs(1);

enum State {
    Reading(Vec<u8>),
    Answering {
        answer: Answer,
        is_head: bool,
    },
    /// The head, then the body.
    Writing(Bytes, Bytes),
    Lingering,
    Closed,
}

pub(super) struct Connection {
    stream: TcpStream,
    state: State,
    since: Instant,
    deadline: Instant,
}

impl Connection {
    /// Takes an accepted connection, which must not block.
    pub fn new(stream: TcpStream, now: Instant) -> Connection {
        Connection { stream, state: State::Reading(Vec::new()), since: now, deadline: now + READ_MAX }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Returns since when the node has been waiting for the client, and whether the client still has to read its response;
    /// `None` while the client waits for the node.
    pub fn waits_since(&self) -> Option<(bool, Instant)> {
        match self.state {
            State::Reading(_) | State::Lingering => Some((false, self.since)),
            State::Writing(..) => Some((true, self.since)),
            State::Answering { .. } | State::Closed => None,
        }
    }

    /// Returns the events for which the connection waits.
    pub fn waits_for(&self) -> PollFlags {
        match self.state {
            State::Reading(_) => PollFlags::IN,
            // A client may close its side once it has sent the request.
            State::Answering { .. } | State::Closed => PollFlags::empty(),
            State::Lingering => PollFlags::RDHUP,
            State::Writing(..) => PollFlags::OUT,
        }
    }

    /// Continues as far as possible without blocking. `events` are those of the socket, `waker` wakes the thread.
    pub fn proceed(&mut self, events: PollFlags, now: Instant, hosts: &Hosts, handler: &Handler, waker: &Waker) {
        if now >= self.deadline || events.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
            self.expire(now, events.is_empty());
        }
        loop {
            let next = match &mut self.state {
                State::Reading(head) => match read(&mut self.stream, head, hosts) {
                    Progress::Pending => return,
                    Progress::Lost => Some(State::Closed),
                    Progress::Done(Ok(request)) => {
                        let is_head = request.is_head;
                        Some(State::Answering { answer: handler(request), is_head })
                    }
                    Progress::Done(Err(BadRequest { status, why })) => {
                        Some(writing(Response::text(status, format!("{why}\n")), false))
                    }
                },
                State::Answering { answer, is_head } => match answer.as_mut().poll(&mut Context::from_waker(waker)) {
                    Poll::Ready(response) => Some(writing(response, *is_head)),
                    Poll::Pending => return,
                },
                State::Writing(head, body) => match write(&mut self.stream, head, body) {
                    Progress::Pending => return,
                    Progress::Lost => Some(State::Closed),
                    Progress::Done(()) => {
                        let _ = self.stream.shutdown(Shutdown::Write);
                        Some(State::Lingering)
                    }
                },
                State::Lingering => events.contains(PollFlags::RDHUP).then_some(State::Closed),
                State::Closed => None,
            };
            let Some(next) = next else { return };
            self.enter(next, now);
        }
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.deadline = now
            + match state {
                State::Reading(_) => READ_MAX,
                State::Answering { .. } => ANSWER_MAX,
                State::Writing(..) => WRITE_MAX,
                State::Lingering => LINGER_MAX,
                State::Closed => Duration::ZERO,
            };
        (self.state, self.since) = (state, now);
    }

    /// Ends a connection whose time is over, or that the client has closed. A handler that does not answer in time is the
    /// node's fault, so the client is told.
    fn expire(&mut self, now: Instant, is_late: bool) {
        match &self.state {
            State::Answering { is_head, .. } if is_late => {
                let response = Response::text(Status::ServiceUnavailable, "this node does not answer in time\n");
                let next = writing(response, *is_head);
                self.enter(next, now);
            }
            _ => self.state = State::Closed,
        }
    }
}

fn writing(response: Response, is_head: bool) -> State {
    let head = Bytes::from(response.head());
    State::Writing(head, if is_head { Bytes::new() } else { response.body })
}

enum Progress<T> {
    Pending,
    Lost,
    Done(T),
}

fn read(
    stream: &mut TcpStream,
    head: &mut Vec<u8>,
    hosts: &Hosts,
) -> Progress<Result<super::request::Request, BadRequest>> {
    let mut buffer = [0; 2048];
    loop {
        let room = buffer.len().min(HEAD_BYTES_MAX - head.len());
        match stream.read(&mut buffer[..room]) {
            Ok(0) => return Progress::Lost,
            Ok(n) => head.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Pending,
            Err(_) => return Progress::Lost,
        }
        match parse(head, hosts) {
            Ok(None) => {}
            Ok(Some(request)) => return Progress::Done(Ok(request)),
            Err(bad) => return Progress::Done(Err(bad)),
        }
    }
}

fn write(stream: &mut TcpStream, head: &mut Bytes, body: &mut Bytes) -> Progress<()> {
    while head.has_remaining() || body.has_remaining() {
        let part = if head.has_remaining() { &mut *head } else { &mut *body };
        match stream.write(part) {
            Ok(0) => return Progress::Lost,
            Ok(n) => part.advance(n),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Pending,
            Err(_) => return Progress::Lost,
        }
    }
    Progress::Done(())
}
