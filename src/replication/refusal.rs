//! The refusal of another node's stream or join, and its encoding: a status with `google.rpc.ErrorInfo`.
//!
//! The receiver distinguishes refusals by their [`Reason`], never by the message of the status.

use std::fmt;

use grpcio::{RpcStatus, RpcStatusCode};
use protobuf::well_known_types::any::Any;
use protobuf::{Message as _, MessageFull as _};

use crate::catalog::is_address;
use crate::pb::error_details::ErrorInfo;
use crate::pb::status::Status;
pub use crate::replication::reason::{Consequence, Reason};

/// The domain of our reasons in `ErrorInfo`.
const DOMAIN: &str = "seriatim";
/// The key of [`Refusal::leader`] in `ErrorInfo.metadata`.
const LEADER: &str = "leader";

/// The code of an unknown reason is truncated to this length, because it is written to the log.
const CODE_CHARS_MAX: usize = 64;

/// A refused call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, for programs.
    pub reason: Reason,
    /// The text, for people: what was refused, and why.
    pub text: String,
    /// The leader's peer address, if only the leader can decide.
    pub leader: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Refusal {
    /// Creates a refusal without the leader's address.
    pub fn new(reason: Reason, text: impl Into<String>) -> Refusal {
        Refusal { reason, text: text.into(), leader: None }
    }

    /// Creates a refusal that directs the caller to the leader at this address.
    pub fn ask_leader(addr: String) -> Refusal {
        let text = format!("the leader of the catalog, at {addr}, decides that");
        Refusal { reason: Reason::NoLeader, text, leader: Some(addr) }
    }

    /// Encodes the refusal as a status.
    pub fn status(&self) -> RpcStatus {
        let metadata = self.leader.iter().map(|addr| (LEADER.to_owned(), addr.clone())).collect();
        let (reason, domain) = (self.reason.code().to_owned(), DOMAIN.to_owned());
        let info = ErrorInfo { reason, domain, metadata, ..ErrorInfo::default() };
        let code = self.reason.status();
        let mut status = Status::new();
        status.code = code.into();
        status.message.clone_from(&self.text);
        status.details.push(Any {
            type_url: type_url(),
            value: info.write_to_bytes().unwrap_or_default(),
            ..Any::default()
        });
        RpcStatus::with_details(code, self.text.clone(), status.write_to_bytes().unwrap_or_default())
    }

    /// Decodes the output of [`Refusal::status`]. A reason that this version does not know becomes
    /// [`Reason::Unknown`]. Returns `None` if the status is not a refusal by a node.
    ///
    /// If a call is refused before a handler runs, its status has no details. The reason is then derived from the
    /// status code.
    pub fn from_status(status: &RpcStatus) -> Option<Refusal> {
        if status.details().is_empty() {
            let bare = match status.code() {
                RpcStatusCode::UNAUTHENTICATED => Reason::NoPeer,
                RpcStatusCode::PERMISSION_DENIED => Reason::NotAllowed,
                _ => return None,
            };
            return Some(Refusal::new(bare, status.message()));
        }
        let details: Status = crate::pb::parse(status.details()).ok()?;
        let any = details.details.iter().find(|any| any.type_url == type_url())?;
        let info: ErrorInfo = crate::pb::parse(&any.value).ok()?;
        if info.domain != DOMAIN {
            return None;
        }
        let leader = info.metadata.get(LEADER).filter(|addr| is_address(addr)).cloned();
        let text = status.message();
        let code: String = info.reason.chars().filter(char::is_ascii_graphic).take(CODE_CHARS_MAX).collect();
        Some(match Reason::try_from(code.as_str()) {
            Ok(reason) => Refusal { reason, text: text.to_owned(), leader },
            Err(unknown) => Refusal { reason: Reason::Unknown, text: format!("{text} ({unknown})"), leader },
        })
    }

    /// Like [`Refusal::from_status`], for the error of a call.
    pub fn from_error(error: &grpcio::Error) -> Option<Refusal> {
        match error {
            grpcio::Error::RpcFailure(status) | grpcio::Error::RpcFinished(Some(status)) => {
                Refusal::from_status(status)
            }
            _ => None,
        }
    }
}

fn type_url() -> String {
    format!("type.googleapis.com/{}", ErrorInfo::descriptor().full_name())
}

/// Returns the error of a call as a short text for the log.
pub fn error_text(error: &grpcio::Error) -> String {
    match error {
        grpcio::Error::RpcFailure(status) | grpcio::Error::RpcFinished(Some(status)) => status.message().to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads_as_written(refusal: &Refusal) {
        assert_eq!(Refusal::from_status(&refusal.status()).as_ref(), Some(refusal));
    }

    #[test]
    fn every_reason_decodes_as_encoded() {
        Reason::ALL.iter().for_each(|reason| reads_as_written(&Refusal::new(*reason, "because")));
        reads_as_written(&Refusal::ask_leader("node-2.example:8401".to_owned()));
        let nowhere = Refusal::ask_leader("node-2 example".to_owned());
        assert_eq!(Refusal::from_status(&nowhere.status()).map(|r| r.leader), Some(None));
        assert_eq!(Refusal::from_status(&RpcStatus::new(RpcStatusCode::UNAVAILABLE)), None);
    }

    #[test]
    fn a_reason_of_a_newer_version_is_refused_by_name() {
        let info = ErrorInfo { reason: "NODE_IS_BLUE".to_owned(), domain: DOMAIN.to_owned(), ..ErrorInfo::default() };
        let value = info.write_to_bytes().expect("encoded");
        let any = Any { type_url: type_url(), value, ..Any::default() };
        let details = Status { details: vec![any], ..Status::default() }.write_to_bytes().expect("encoded");
        let status = RpcStatus::with_details(RpcStatusCode::ABORTED, "the node is blue".to_owned(), details);
        let refusal = Refusal::from_status(&status).expect("a refusal");
        assert_eq!(refusal.reason, Reason::Unknown);
        assert!(refusal.text.contains("the node is blue") && refusal.text.contains("NODE_IS_BLUE"), "{refusal}");
        assert!(!refusal.reason.is_final(), "it may pass");
    }
}
