//! Exit codes, and the errors that end a command with one.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use grpcio::RpcStatusCode;

use crate::client::{ClientError, Outcome, Status};
use crate::reason::ErrorReason;

/// Lines of the table are wrapped here.
const TABLE_COLUMNS: usize = 96;

macro_rules! exits {
    ($( $(#[doc = $meaning:literal])+ $name:ident = $code:literal; )*) => {
        /// How a command ended. Codes of 64 and above are those of sysexits.h.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Exit {
            $( $(#[doc = $meaning])+ $name = $code, )*
        }

        /// Every code and its meaning.
        const CODES: &[(u8, &str)] = &[$( ($code, concat!($($meaning),+)) ),*];
    };
}

// The doc comments are the table at the end of `--help`.
exits! {
    /// success; status: it could tell the state of the cluster, whatever it is
    Done = 0;
    /// failed; a produce has appended only what it reports as appended
    Failed = 1;
    /// wrong usage
    Usage = 2;
    /// outcome unknown: records may have been appended or not
    OutcomeUnknown = 3;
    /// a precondition does not hold, like the expected offset, the id of the log, or that it does not exist yet;
    /// nothing was done
    Precondition = 4;
    /// not found: no such log, node or profile
    NotFound = 5;
    /// bad data: an input that can't become a record, receipts that do not fit; consume, serve, data verify: damage on
    /// the disk
    BadData = 65;
    /// unavailable: no connection, no leader, a node that is not a member yet
    Unavailable = 69;
    /// refused for now, and nothing was done: a limit is reached, a queue or the disk is full
    RefusedForNow = 75;
    /// not allowed, or not identified by a usable certificate
    NotAllowed = 77;
    /// invalid configuration, or data of another version of seriatim
    BadConfig = 78;
    /// interrupted by a signal: only what was reported as appended is appended
    Interrupted = 130;
}

/// The exit codes of every command, for the end of `--help`.
pub fn table() -> String {
    let mut text = "Exit codes:".to_owned();
    for (code, meaning) in CODES {
        let mut line = format!("\n{code:4} ");
        for word in meaning.split_whitespace() {
            if line.chars().count() + word.len() > TABLE_COLUMNS {
                text += line.trim_end();
                line = "\n     ".to_owned();
            }
            line += &format!(" {word}");
        }
        text += line.trim_end();
    }
    text
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command failed, and the next step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", next_line(.next))]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What failed, and why.
    pub message: String,
    /// What the user can do about it; may be empty.
    pub next: String,
}

fn next_line(next: &str) -> String {
    if next.is_empty() { String::new() } else { format!("\n  next: {next}") }
}

impl Failure {
    /// A failure with its exit code, its reason and the next step, which may be empty.
    pub fn new(exit: Exit, message: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), next: next.into() }
    }

    /// A failure that is already printed: only its exit code is left.
    pub fn told(exit: Exit) -> Failure {
        Failure::new(exit, "", "")
    }

    /// The failure to read or write a file, without a next step.
    pub fn of_file(path: &Path, error: &io::Error) -> Failure {
        Failure::new(Exit::Failed, format!("{}: {error}", path.display()), "")
    }

    /// The failure of a call to the node at `addr`.
    pub fn of_call(addr: &str, error: &ClientError) -> Failure {
        match error {
            ClientError::Files(e) => {
                Failure::new(Exit::BadConfig, e, "`seriatim certs` makes certificates for development")
            }
            ClientError::NoRecord(_) => Failure::new(Exit::NotFound, format!("{addr}: {error}"), ""),
            ClientError::Local(e) => Failure::new(Exit::Failed, format!("{addr}: {e}"), ""),
            ClientError::Status(status) => Failure::of_status(addr, status),
        }
    }

    fn of_status(addr: &str, status: &Status) -> Failure {
        use ErrorReason::*;
        let reason = ErrorReason::try_from(status.reason.as_str()).ok();
        if status.code == RpcStatusCode::DATA_LOSS && reason == Some(RecordDamaged) {
            return Failure::new(Exit::BadData, format!("{addr}: {status}"), read_elsewhere(status));
        }
        // Only a read names an offset: other requests need a feature that the node does not have.
        if status.code == RpcStatusCode::UNIMPLEMENTED && status.metadata.contains_key("offset") {
            let next =
                format!("start a newer version of seriatim on that node. Until then: {}", read_elsewhere(status));
            return Failure::new(Exit::BadConfig, format!("{addr}: {status}"), next);
        }
        let exit = exit_of(status);
        let next = reason.and_then(|reason| next_of(reason, status)).unwrap_or(match status.code {
            RpcStatusCode::UNAVAILABLE if status.reason.is_empty() => no_connection(&status.message),
            RpcStatusCode::UNAVAILABLE => "try again, or ask `seriatim status`",
            RpcStatusCode::DEADLINE_EXCEEDED => "try again, or with a longer --timeout",
            RpcStatusCode::RESOURCE_EXHAUSTED => "try again later",
            RpcStatusCode::PERMISSION_DENIED => {
                "the node's access policy (the file in its acl_policy_file) must allow this to the common name of your certificate, or \
                 to `anonymous` if the node runs with --insecure"
            }
            RpcStatusCode::UNAUTHENTICATED => "use a valid certificate with exactly one common name",
            _ => "",
        });
        // gRPC's text does not say why.
        let is_late = status.code == RpcStatusCode::DEADLINE_EXCEEDED && status.reason.is_empty();
        let what = if is_late { "no connection, or no answer, in time".to_owned() } else { status.to_string() };
        Failure::new(exit, format!("{addr}: {what}"), next)
    }
}

/// Returns the exit code of a status. The code of the status and whether the request may have taken effect decide, so
/// that this is right for the reasons of newer nodes, too.
fn exit_of(status: &Status) -> Exit {
    match status.code {
        // A bug: whether the command changes anything is not known here, so it is not said to be unknown.
        RpcStatusCode::INTERNAL => Exit::Failed,
        _ if !status.reason.is_empty() && status.outcome() == Outcome::Unknown => Exit::OutcomeUnknown,
        RpcStatusCode::RESOURCE_EXHAUSTED if !status.reason.is_empty() && status.outcome() == Outcome::None => {
            Exit::RefusedForNow
        }
        RpcStatusCode::UNAVAILABLE | RpcStatusCode::DEADLINE_EXCEEDED | RpcStatusCode::RESOURCE_EXHAUSTED => {
            Exit::Unavailable
        }
        RpcStatusCode::FAILED_PRECONDITION | RpcStatusCode::ALREADY_EXISTS | RpcStatusCode::ABORTED => {
            Exit::Precondition
        }
        RpcStatusCode::NOT_FOUND => Exit::NotFound,
        RpcStatusCode::PERMISSION_DENIED | RpcStatusCode::UNAUTHENTICATED => Exit::NotAllowed,
        RpcStatusCode::INVALID_ARGUMENT | RpcStatusCode::DATA_LOSS => Exit::BadData,
        _ => Exit::Failed,
    }
}

/// Returns the next step for a reason, if the code of the status does not say enough.
fn next_of(reason: ErrorReason, status: &Status) -> Option<&'static str> {
    use ErrorReason::*;
    match reason {
        OffsetTrimmed => Some("`seriatim consume --from earliest` begins with the first record that is left"),
        OffsetPastEnd => Some("`seriatim log info` shows the offsets of the log"),
        NoSuchLog => Some("`seriatim log list` prints the logs, and `seriatim log create` creates one"),
        LogExists => {
            Some("`seriatim log info` shows it; with --if-not-exists, it is accepted as it is, whatever its settings")
        }
        LogDeleted => Some(
            "`seriatim log undelete` brings it back; `seriatim log delete --purge` frees its name, and its records are gone for good",
        ),
        NoHashChain => Some("`seriatim log create --hash-chain` creates a log with one"),
        LogRestoring => Some("`seriatim backup restore` with the same files completes the restore"),
        RevisionMismatch => {
            Some("look at it again, for example with `seriatim log info`, and repeat the change if it still fits")
        }
        TooManyLogs => Some(
            "`seriatim log list --deleted` prints all logs, and `seriatim log delete --purge` removes one for good",
        ),
        FeatureLevelTooLow => Some("once every node runs this version, `seriatim cluster upgrade` raises the level"),
        FeatureLevelUnsupported => Some("start a newer version on that node, or start it if it is down, and try again"),
        LogIdMismatch => Some(
            "another log has this name now, and offsets of the old log do not apply to it: see `seriatim log info`",
        ),
        ExpectedOffsetMismatch => Some(
            "another client has appended meanwhile, or this one did before: read the end of the log with `seriatim consume` first",
        ),
        DiskFull => Some(
            "`seriatim status` names the node: trim the log (`seriatim log trim`), purge deleted logs \
                 (`seriatim log delete --purge`), or make room on its disk",
        ),
        Joining if status.metadata.contains_key("waiting_for") => Some(
            "if it waits for other nodes, start them; then try again. To join a cluster, start a blank node with --join \
             HOST:PORT, the bind_addr of a member; to found a new one, start one node, once, with --bootstrap, or all of N \
             blank nodes with --bootstrap-expect N",
        ),
        ProducerFenced => {
            Some("another process uses this producer now: stop one of them, or give each a name of its own")
        }
        ProducerUnknown => {
            Some("the log has forgotten this producer: look at the end of the log before you append again")
        }
        SequenceTooOld => Some("the records are in the log already"),
        CursorFenced => Some("another reader uses this cursor now"),
        CursorBehind => Some("the cursor is further already; to move it back, allow that"),
        NoSuchNode => Some("`seriatim node list` prints the nodes and their ids"),
        NodeLeaving => {
            Some("`seriatim node list` shows which nodes are leaving; `seriatim node undrain` ends a removal")
        }
        NodeNeeded => Some(
            "start the other nodes that have replicas of it, or add a node first; if they are gone for good, see \"Lost quorum\" in docs/OPERATIONS.md",
        ),
        NoSuccessor => Some("`seriatim status` shows which nodes have a replica that votes"),
        EpochMismatch | TooManyProducers | NoSuchProducer | NoSuchCursor | TooManyCursors => None,
        CommittedNotApplied => Some("the change is done: the same command again prints the result"),
        Joining | ReplicaUnreachable => Some("try again, or ask another node"),
        NoIdentity | NotAllowed | InvalidRequest | UnknownField | NotImplemented | RecordTooLarge | RequestTooLarge
        | NoSuchService | QueueFull | Shortage | LimitReached | LeaderChanged | NoLeader | AnotherCluster
        | Stopping | ReplicaDamaged | LeaderDamaged | RecordDamaged | RecordUnsupported | DeadlinePassed
        | OutcomeUnknown | AnswerLost | InternalError | SequenceGap | SequenceReused | ReceiptsUnavailable => None,
    }
}

/// How to read records that one node can't read from another node, and how to continue after them.
fn read_elsewhere(status: &Status) -> String {
    let from = |key| status.metadata.get(key).map(|offset| format!("`seriatim consume --from {offset}"));
    let elsewhere = from("offset").map(|consume| format!("{consume} --addr HOST:PORT` reads them from another node"));
    let after = from("resume_offset").map(|consume| format!("{consume}` continues after them"));
    [elsewhere, after].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// The likely reason for a missing connection. Only the text of gRPC's error distinguishes them.
fn no_connection(message: &str) -> &'static str {
    if message.contains("not in peer certificate") {
        "is this the node's client address (rpc_addr, port 8400 by default), and not the one for peers (bind_addr, port 8401)? \
         If it is, its certificate does not name the host that you dial: dial one that it names, or issue one that names it \
         too (`seriatim certs --use-ca --hosts`)"
    } else if message.contains("certificate verify failed") {
        "the node's certificate is of another CA than yours (--ca-file, ca.pem in --certs), or has expired"
    } else if message.contains("DNS resolution failed") {
        "the name does not resolve on this host: correct it, or dial an IP address"
    } else if message.contains("wrong version number") {
        "the node answers without TLS: give --insecure if it runs with --insecure, or dial its client address (rpc_addr)"
    } else if message.contains("Connection refused") {
        "nothing listens at this address: start the node, or correct --addr (rpc_addr, port 8400 by default)"
    } else if message.contains("Socket closed") {
        "is this the node's client address (rpc_addr)? If it is, the node may use TLS and you --insecure, or the reverse; or \
         it refuses your certificate: then the reason is in the node's log"
    } else {
        "is the node running, and this its client address (rpc_addr)? A refused certificate looks the same from here: then \
         the reason is in the node's log"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::key;

    /// A reader of such records was told nothing but "UNIMPLEMENTED".
    #[test]
    fn records_of_a_newer_version_need_a_newer_version_on_the_node() {
        let metadata = [("log", "default"), ("offset", "4"), ("resume_offset", "6")];
        let mut status = Status {
            code: RpcStatusCode::UNIMPLEMENTED,
            message: "this node can't read records 4 to 5".to_owned(),
            reason: ErrorReason::RecordUnsupported.code().to_owned(),
            metadata: metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            retry_after: None,
        };
        let failure = Failure::of_status("n1:8400", &status);
        assert_eq!(failure.exit, Exit::BadConfig);
        let next = "start a newer version of seriatim on that node. Until then: `seriatim consume --from 4 --addr HOST:PORT` \
                    reads them from another node; `seriatim consume --from 6` continues after them";
        assert_eq!(failure.next, next);
        status.metadata = [(key::OUTCOME.to_owned(), Outcome::None.code().to_owned())].into();
        let failure = Failure::of_status("n1:8400", &status);
        assert_eq!((failure.exit, failure.next.as_str()), (Exit::Failed, ""), "another feature that the node lacks");
    }

    /// Exit code 1 was all of "no such log", a failed precondition and a full queue, so a script could not tell
    /// whether to try again.
    #[test]
    fn the_exit_code_depends_on_the_code_and_on_what_became_of_the_request() {
        use RpcStatusCode as Code;
        let exit_with = |code, reason: &str, outcome: Outcome| {
            let outcome = (key::OUTCOME.to_owned(), outcome.code().to_owned());
            let status = Status {
                code,
                message: String::new(),
                reason: reason.to_owned(),
                metadata: if reason.is_empty() { Default::default() } else { [outcome].into() },
                retry_after: None,
            };
            Failure::of_status("n1:8400", &status).exit
        };
        let exit = |code, reason| exit_with(code, reason, Outcome::None);
        assert_eq!(exit(Code::FAILED_PRECONDITION, "EXPECTED_OFFSET_MISMATCH"), Exit::Precondition);
        assert_eq!(exit(Code::FAILED_PRECONDITION, "LOG_ID_MISMATCH"), Exit::Precondition);
        assert_eq!(exit(Code::ABORTED, "OF_A_NEWER_NODE"), Exit::Precondition);
        assert_eq!(exit(Code::NOT_FOUND, "NO_SUCH_LOG"), Exit::NotFound);
        for refused in ["QUEUE_FULL", "DISK_FULL", "LIMIT_REACHED", "SHORTAGE"] {
            assert_eq!(exit(Code::RESOURCE_EXHAUSTED, refused), Exit::RefusedForNow, "{refused}");
        }
        assert_eq!(exit(Code::RESOURCE_EXHAUSTED, ""), Exit::Unavailable, "of gRPC itself: nothing is certain");
        assert_eq!(exit(Code::UNAVAILABLE, "NO_LEADER"), Exit::Unavailable);
        assert_eq!(exit_with(Code::UNAVAILABLE, "OF_A_NEWER_NODE", Outcome::Unknown), Exit::OutcomeUnknown);
        assert_eq!(exit_with(Code::UNKNOWN, "OUTCOME_UNKNOWN", Outcome::Unknown), Exit::OutcomeUnknown);
        assert_eq!(exit(Code::PERMISSION_DENIED, ""), Exit::NotAllowed);
        assert_eq!(exit(Code::OUT_OF_RANGE, "OFFSET_TRIMMED"), Exit::Failed);
    }
}
