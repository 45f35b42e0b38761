//! The search for a node that answers, among the addresses of the connection options.

use std::time::{Duration, Instant};

use crossbeam_channel::after;

use super::exit::{Exit, Failure};
use crate::client::{Client, ClientError, ClientFiles, ClientOptions, Retry, Status};
use crate::grpc::redirect_log;
use crate::reason::ErrorReason;

/// With several addresses, the next one is tried if no connection exists after this time.
const CONNECT_MAX: Duration = Duration::from_millis(300);

/// With several addresses, the next one is tried if a connected node has not answered after this time.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(3);

/// The minimum timeout of a call, even after the deadline, so that it can fail with the reason for a missing answer.
const ANSWER_MIN: Duration = Duration::from_millis(500);

/// The pause before a request that no node can serve for the moment is sent again.
const RETRY: Duration = Duration::from_millis(200);

/// If a node answered that it can't serve, the search continues for this time, so that another node may answer.
const SETTLE: Duration = Duration::from_secs(1);

/// Connects to nodes. The connection options, and the profile, are resolved.
#[derive(Clone, Debug)]
pub struct Dialer {
    /// The addresses of nodes, at least one.
    pub addrs: Vec<String>,
    /// `None`: without TLS.
    pub files: Option<ClientFiles>,
    /// How long to wait for a connection, and for an answer.
    pub timeout: Duration,
    /// The log that the profile names.
    pub log: Option<String>,
}

/// Why no node answered a request.
pub enum Unanswered {
    /// No request was sent, for example because certificate files can't be used.
    NotDialled(Failure),
    /// The error of each node.
    Refused(Vec<(Client, ClientError)>),
}

impl Unanswered {
    /// Returns the statuses of the nodes, with their addresses.
    pub fn statuses(&self) -> impl Iterator<Item = (&str, &Status)> {
        let refused = match self {
            Unanswered::NotDialled(_) => &[][..],
            Unanswered::Refused(refused) => refused,
        };
        refused.iter().filter_map(|(client, error)| Some((client.addr(), error.status()?)))
    }

    /// Returns true if a node has refused the request for this reason.
    pub fn has_reason(&self, reason: ErrorReason) -> bool {
        self.statuses().any(|(_, status)| status.reason == reason.code())
    }
}

impl From<Unanswered> for Failure {
    /// Combines the errors of all nodes.
    fn from(unanswered: Unanswered) -> Failure {
        let refused = match unanswered {
            Unanswered::NotDialled(failure) => return failure,
            Unanswered::Refused(refused) => refused,
        };
        let errors: Vec<(&str, &ClientError)> = refused.iter().map(|(client, error)| (client.addr(), error)).collect();
        combined(&errors)
    }
}

/// Combines the errors of all nodes. The exit code and the next step are those of a node that answered, if any,
/// because its status says more than a missing connection.
fn combined(errors: &[(&str, &ClientError)]) -> Failure {
    let answered = errors.iter().find(|(_, error)| error.is_answer());
    let Some((addr, error)) = answered.or(errors.last()) else { return no_address() };
    let told = Failure::of_call(addr, error);
    let lines: Vec<String> = errors.iter().map(|(addr, error)| Failure::of_call(addr, error).message).collect();
    let no_leader = error.status().is_some_and(|status| status.reason == "NO_LEADER");
    let next = if no_leader && !errors.iter().all(|(_, error)| error.is_answer()) {
        "no leader is elected without a majority of the voters: start the nodes that do not answer".to_owned()
    } else {
        told.next
    };
    Failure { message: lines.join("\n"), next, ..told }
}

fn no_address() -> Failure {
    Failure::new(Exit::BadConfig, "no address", "give one with --addr HOST:PORT")
}

/// Returns true if the node answered that another one may serve the request, for example because it is stopping.
pub(super) fn cannot_serve(error: &ClientError) -> bool {
    error.is_answer() && error.retry() == Retry::Elsewhere
}

impl Dialer {
    /// Connects to the first node that answers, in the order of the addresses. A node that can't serve yet or is
    /// stopping is only used if no other node answers.
    ///
    /// # Errors
    /// If certificate files can't be used, or no node answers. In the latter case, it contains the errors of all nodes.
    pub fn connect(&self) -> Result<Client, Failure> {
        self.connect_within(self.timeout, None)
    }

    /// Connects to the first node that answers; the one at `last` is tried last.
    ///
    /// # Errors
    /// As [`Dialer::connect`].
    pub fn connect_within(&self, timeout: Duration, last: Option<&str>) -> Result<Client, Failure> {
        // Every node answers this request, whatever the client's permissions are.
        match self.rounds(timeout, last, &|client| client.get_servers("")) {
            Ok((client, _)) => Ok(client),
            Err(Unanswered::Refused(refused)) if refused.iter().any(|(_, error)| error.is_answer()) => {
                // The caller's next request to this node will fail with a more useful error.
                let answered = refused.into_iter().find(|(_, error)| error.is_answer());
                answered.map(|(client, _)| client).ok_or_else(no_address)
            }
            Err(unanswered) => Err(unanswered.into()),
        }
    }

    /// Sends a request to the nodes, in the order of their addresses, and returns the first answer. If a node does
    /// not answer or says that another one may serve it, the next one is tried. So several nodes may execute
    /// the request, which must be idempotent.
    ///
    /// # Errors
    /// If a node rejects the request, or none can serve it.
    pub fn ask<T>(&self, question: impl Fn(&Client) -> Result<T, ClientError>) -> Result<(Client, T), Unanswered> {
        self.rounds(self.timeout, None, &question)
    }

    /// The same, but waits up to the timeout while the nodes answer that they can't serve the request for the moment, for
    /// example because of an election.
    ///
    /// # Errors
    /// As [`Dialer::ask`].
    pub fn ask_until_served<T>(
        &self,
        question: impl Fn(&Client) -> Result<T, ClientError>,
    ) -> Result<(Client, T), Unanswered> {
        let begin = Instant::now();
        loop {
            let unanswered = match self.ask(&question) {
                Err(unanswered) if begin.elapsed() < self.timeout => unanswered,
                answered => return answered,
            };
            let is_temporary = |(_, status): (&str, &Status)| matches!(status.retry(), Retry::Same | Retry::Elsewhere);
            if !unanswered.statuses().any(is_temporary) {
                return Err(unanswered);
            }
            // Clients are not notified of a new leader.
            let _ = after(RETRY).recv();
        }
    }

    fn rounds<T>(
        &self,
        timeout: Duration,
        last: Option<&str>,
        question: &dyn Fn(&Client) -> Result<T, ClientError>,
    ) -> Result<(Client, T), Unanswered> {
        let (others, at_last): (Vec<&String>, Vec<&String>) = self.addrs.iter().partition(|a| Some(a.as_str()) != last);
        let addrs = others.into_iter().chain(at_last);
        let clients =
            addrs.map(|addr| self.dial(addr)).collect::<Result<Vec<_>, _>>().map_err(Unanswered::NotDialled)?;
        let begin = Instant::now();
        let left = || timeout.saturating_sub(begin.elapsed());
        let (connect_max, answer_max) = if clients.len() == 1 { (timeout, timeout) } else { (CONNECT_MAX, ANSWER_MAX) };
        let mut errors: Vec<Option<ClientError>> = clients.iter().map(|_| None).collect();
        let answered = |error: &Option<ClientError>| error.as_ref().is_some_and(ClientError::is_answer);
        // All clients stay in use, so each continues to connect while the others are tried.
        loop {
            let round = Instant::now();
            for (client, error) in clients.iter().zip(&mut errors) {
                if !client.wait_connected(connect_max.min(left())) {
                    continue;
                }
                match question(&client.within(answer_max.min(left()).max(ANSWER_MIN))) {
                    Ok(answer) => return Ok((client.clone(), answer)),
                    Err(failed) if failed.is_answer() && !cannot_serve(&failed) => {
                        return Err(Unanswered::Refused(vec![(client.clone(), failed)]));
                    }
                    Err(failed) => *error = Some(failed),
                }
            }
            let settled = errors.iter().all(answered) || (errors.iter().any(answered) && begin.elapsed() > SETTLE);
            if settled || left().is_zero() {
                break;
            }
            // Without a pause, a node that closes every connection would be dialled in a busy loop.
            let _ = after(CONNECT_MAX.saturating_sub(round.elapsed()).min(left())).recv();
        }
        let mut refused = Vec::new();
        for (client, error) in clients.into_iter().zip(errors) {
            // Without a connection, a call with a short deadline fails with the reason.
            let error = match error.map_or_else(|| question(&client.within(ANSWER_MIN)), Err) {
                Ok(answer) => return Ok((client, answer)),
                Err(error) => error,
            };
            refused.push((client, error));
        }
        Err(Unanswered::Refused(refused))
    }

    /// Creates a client for the node at `addr`, without waiting for the connection.
    ///
    /// # Errors
    /// If certificate files can't be used.
    pub fn dial(&self, addr: &str) -> Result<Client, Failure> {
        // gRPC would write every failed attempt to stderr, although the status of the call contains the reason.
        // Commands other than `serve` have no logger, which discards these lines.
        redirect_log();
        let options = ClientOptions { addr: addr.to_owned(), files: self.files.clone(), timeout: self.timeout };
        Client::new(&options).map_err(|e| Failure::of_call(addr, &e))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use grpcio::RpcStatusCode;

    use super::*;

    /// With one node without a leader and two that were down, the advice was about the certificate of the last one.
    #[test]
    fn the_next_step_is_that_of_a_node_that_answered() {
        let error = |reason: &str| {
            ClientError::Status(Status {
                code: RpcStatusCode::UNAVAILABLE,
                message: "text".to_owned(),
                reason: reason.to_owned(),
                metadata: BTreeMap::new(),
                retry_after: None,
            })
        };
        let (no_leader, joining, down) = (error("NO_LEADER"), error("JOINING"), error(""));
        let failure = combined(&[("n1", &no_leader), ("n2", &down), ("n3", &down)]);
        assert!(failure.next.contains("start the nodes that do not answer"), "{failure}");
        assert_eq!(failure.message.lines().count(), 3, "{failure}");
        assert_eq!(combined(&[("n1", &no_leader)]).next, "try again, or ask `seriatim status`");
        assert_eq!(combined(&[("n2", &down), ("n1", &joining)]).next, "try again, or ask another node");
        assert!(combined(&[("n2", &down), ("n3", &down)]).next.contains("is the node running"));
        assert_eq!(combined(&[]).exit, Exit::BadConfig);
    }
}
