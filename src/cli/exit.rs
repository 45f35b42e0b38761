//! Exit codes, and the errors that end a command with one.

use std::fmt;
use std::process::ExitCode;

use grpcio::RpcStatusCode;

use crate::client::{ClientError, Fate, Status};

/// The exit codes of every command. Numbers of 64 and above are those of sysexits.h.
pub const TABLE: &str = "\
Exit codes:
   0  done
   1  failed, and for a produce: what is not said to be appended was not appended
   2  wrong usage
   3  outcome unknown: records may have been appended, or not
   4  status: a voter, or another member, is missing, and every log has a majority without it
   5  status: a log, or the catalog, has no majority of its voters, or no leader
  65  bad data: an input that can't become a record; consume, serve, status, log verify: damage on
      the disk
  69  unavailable: no connection, no leader, a node that is no member yet; status: appends are
      refused
  77  not allowed, or no usable identity
  78  bad configuration
 130  interrupted by a signal: what is said to be appended is, and nothing else";

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Records may have been appended, or not.
    OutcomeUnknown = 3,
    /// A voter or another member is missing, and every log has a majority without it.
    Degraded = 4,
    /// A log, or the catalog, has no majority of its voters, or no leader.
    NoMajority = 5,
    /// An input that can't become a record; damage on the disk.
    BadData = 65,
    /// No connection, or no leader.
    Unavailable = 69,
    /// Not allowed, or no usable identity.
    NotAllowed = 77,
    /// Bad configuration.
    BadConfig = 78,
    /// A signal ended a produce before its input did.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command failed, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code that it ends with.
    pub exit: Exit,
    /// What happened.
    pub message: String,
    /// What to do next; empty where there is nothing to be said.
    pub next: String,
}

impl Failure {
    /// What happened, and what to do next.
    pub fn new(exit: Exit, message: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), next: next.into() }
    }

    /// A call to a node that gave nothing.
    pub fn of_call(addr: &str, error: &ClientError) -> Failure {
        match error {
            ClientError::Files(e) => {
                Failure::new(Exit::BadConfig, e, "`seriatim certs` makes certificates for development")
            }
            ClientError::Local(e) => Failure::new(Exit::Failed, format!("{addr}: {e}"), ""),
            ClientError::Status(status) => Failure::of_status(addr, status),
        }
    }

    fn of_status(addr: &str, status: &Status) -> Failure {
        if status.code == RpcStatusCode::DATA_LOSS && status.reason == "DAMAGED" {
            return Failure::new(Exit::BadData, format!("{addr}: {status}"), behind_damage(status));
        }
        // What Seriatim says is told apart by its reason; what gRPC says has a code alone.
        let of_reason = match status.reason.as_str() {
            "OFFSET_TRIMMED" => Some((Exit::Failed, "`--from earliest` begins with the first record that is left")),
            "OFFSET_PAST_END" => Some((Exit::Failed, "`seriatim log info` shows which offsets there are")),
            "NO_SUCH_LOG" => Some((Exit::Failed, "there is one log for now: default")),
            "LOG_ID_MISMATCH" => Some((
                Exit::Failed,
                "another log has that name now, and offsets of the old one mean nothing in it: `seriatim log info` shows it",
            )),
            "EXPECTED_OFFSET_MISMATCH" => Some((
                Exit::Failed,
                "somebody appended meanwhile, or this did before: look with `seriatim consume` first",
            )),
            "DISK_FULL" => Some((
                Exit::Unavailable,
                "`seriatim status` names the node: trim the log (`seriatim log trim`), or make room on its disk",
            )),
            "JOINING" if status.metadata.contains_key("waiting_for") => Some((
                Exit::Unavailable,
                "try again later. To join a cluster, start a blank node with --join HOST:PORT, the bind_addr of a member; to make \
                 a new cluster, start one node, once, with --bootstrap",
            )),
            "JOINING" => Some((Exit::Unavailable, "try again, or ask another node")),
            _ => None,
        };
        let (exit, next) = of_reason.unwrap_or(match status.code {
            RpcStatusCode::UNAVAILABLE if status.reason.is_empty() => {
                (Exit::Unavailable, no_connection(&status.message))
            }
            RpcStatusCode::UNAVAILABLE => (Exit::Unavailable, "try again, or ask `seriatim status`"),
            RpcStatusCode::DEADLINE_EXCEEDED => (Exit::Unavailable, "try again, or with a longer --timeout"),
            RpcStatusCode::RESOURCE_EXHAUSTED => (Exit::Unavailable, "try again later"),
            RpcStatusCode::PERMISSION_DENIED => (
                Exit::NotAllowed,
                "the node's access policy (the file that its acl_policy_file names) must give that to your certificate's common \
                 name, or to `anonymous` if the node runs with --insecure",
            ),
            RpcStatusCode::UNAUTHENTICATED => {
                (Exit::NotAllowed, "use a certificate with exactly one common name that is still valid")
            }
            RpcStatusCode::INVALID_ARGUMENT | RpcStatusCode::DATA_LOSS => (Exit::BadData, ""),
            _ => (Exit::Failed, ""),
        });
        let exit = if status.reason == "OUTCOME_UNKNOWN" && status.fate() == Fate::Unknown {
            Exit::OutcomeUnknown
        } else {
            exit
        };
        // gRPC's words for it name no cause.
        let is_late = status.code == RpcStatusCode::DEADLINE_EXCEEDED && status.reason.is_empty();
        let what = if is_late { "no connection, or no answer, in time".to_owned() } else { status.to_string() };
        Failure::new(exit, format!("{addr}: {what}"), next)
    }
}

/// How to read records that are damaged on one node from another node, and how to continue after them.
fn behind_damage(status: &Status) -> String {
    let from = |key| status.metadata.get(key).map(|offset| format!("`seriatim consume --from {offset}"));
    let elsewhere = from("offset").map(|consume| format!("{consume} --addr HOST:PORT` reads them from another node"));
    let behind = from("resume_offset").map(|consume| format!("{consume}` continues after them"));
    [elsewhere, behind].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Why there is no connection, where gRPC's words tell: it has nothing else for that.
fn no_connection(message: &str) -> &'static str {
    if message.contains("not in peer certificate") {
        "is this the node's client address (rpc_addr, port 8400 by default), and not the one for peers (bind_addr, port 8401)? \
         If it is, its certificate does not name the host that you dial: dial one that it names, or issue one that names it \
         too (`seriatim certs --use-ca --hosts`)"
    } else if message.contains("certificate verify failed") {
        "the node's certificate is of another CA than yours (--ca-file, ca.pem in --certs), or has expired"
    } else {
        "is the node running, and this its client address (rpc_addr)? A refused certificate looks the same from here: then \
         the reason is in the node's log"
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.next.is_empty() {
            write!(f, "\n  next: {}", self.next)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
