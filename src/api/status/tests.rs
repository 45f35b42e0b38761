//! Every error has its class, and a client of gRPC's error model can read its details.

use std::collections::BTreeSet;

use super::*;
use crate::api::error::{FailedProposal, LogScope, NeededBy};
use crate::codes::UnknownCode;
use crate::consensus::handle::ProposeError;
use crate::feature_level::FeatureLevel;
use crate::log_state::StateRefusal;
use crate::security::acl::Action;
use crate::security::identity::{NoIdentity, Principal};
use crate::storage::damage::DamagedRange;
use crate::storage::entry::ENTRY_BYTES_MAX;
use crate::storage::error::NewerFrame;
use crate::storage::reader::{NewerRecords, ReadError};
use crate::types::{LogId, LogIndex, LogName, NodeId, Offset};

fn name() -> LogName {
    LogName::new("default").expect("a name")
}

fn bounds() -> LogBounds {
    LogBounds { log: name(), log_id: LogId(9), first_offset: Offset(3), next_offset: Offset(7) }
}

/// The number of a variant: a new one does not compile until it has a line here, and fails until it has a sample below.
fn number(error: &ApiError) -> usize {
    match error {
        ApiError::NoIdentity(_) => 0,
        ApiError::NotAllowed { .. } => 1,
        ApiError::Invalid(_) => 2,
        ApiError::Unimplemented(_) => 3,
        ApiError::OffsetPastEnd(..) => 4,
        ApiError::OffsetTrimmed(..) => 5,
        ApiError::NoSuchLog(_) => 6,
        ApiError::NoSuchService => 7,
        ApiError::LogIdMismatch { .. } => 8,
        ApiError::ExpectedOffset { .. } => 9,
        ApiError::QueueFull => 10,
        ApiError::Limit(_) => 11,
        ApiError::LeaderChanged => 12,
        ApiError::NoLeader => 13,
        ApiError::Joining(_) => 14,
        ApiError::NotReady { .. } => 25,
        ApiError::NewerVersion { .. } => 26,
        ApiError::LevelUnsupported { .. } => 27,
        ApiError::Stopping => 15,
        ApiError::ReplicaDamaged => 16,
        ApiError::LeaderUnreadable { .. } => 23,
        ApiError::OutcomeUnknown { .. } => 17,
        ApiError::DeadlinePassed => 18,
        ApiError::Damaged { .. } => 19,
        ApiError::Internal(_) => 20,
        ApiError::CommittedNotApplied => 28,
        ApiError::DiskFull { .. } => 21,
        ApiError::Shortage { .. } => 22,
        ApiError::AnotherCluster(_) => 24,
        ApiError::LogDeleted { .. } => 29,
        ApiError::LogExists { .. } => 30,
        ApiError::RevisionMismatch { .. } => 31,
        ApiError::TooManyLogs { .. } => 32,
        ApiError::LevelTooLow(_) => 33,
        ApiError::ReplicaLost => 34,
        ApiError::Relayed(_) => 35,
        ApiError::State { .. } => 36,
        ApiError::NoSuchProducer { .. } => 37,
        ApiError::NoSuchNode { .. } => 38,
        ApiError::NodeLeaves { .. } => 39,
        ApiError::NodeNeeded { .. } => 40,
        ApiError::NoSuccessor { .. } => 41,
        ApiError::LogRestoring { .. } => 42,
        ApiError::NoHashChain(_) => 43,
        ApiError::ReceiptsUnavailable => 44,
    }
}

const VARIANTS: usize = 45;

/// The failure of a newer node, with a reason that this version does not know.
fn relayed() -> ApiError {
    let of_node =
        status_of(&ApiError::QueueFull, &StatusContext { package: Package::SeriatimV1, leader: None, at: None });
    let mut whole = status::Status::parse_from_bytes(of_node.details()).expect("a google.rpc.Status");
    whole.code = Code::UNAVAILABLE.into();
    for any in &mut whole.details {
        if let Some(mut info) = any.unpack::<error_details::ErrorInfo>().expect("well-formed") {
            info.reason = "QUEUE_IS_BLUE".to_owned();
            *any = packed(&info);
        }
    }
    ApiError::Relayed(RelayedFailure { reason: None, status: whole.write_to_bytes().expect("encoded") })
}

fn of_state(refusal: StateRefusal) -> ApiError {
    ApiError::State { log: name(), refusal }
}

fn samples() -> Vec<(ApiError, Code, &'static str)> {
    let principal = Principal::anonymous();
    let bad_name = LogName::new("/").expect_err("no name");
    vec![
        (ApiError::ReplicaLost, Code::UNAVAILABLE, "REPLICA_UNREACHABLE"),
        (relayed(), Code::UNAVAILABLE, "QUEUE_IS_BLUE"),
        (ApiError::NoSuchProducer { log: name() }, Code::NOT_FOUND, "NO_SUCH_PRODUCER"),
        (ApiError::NoSuchNode { node: "n9".into() }, Code::NOT_FOUND, "NO_SUCH_NODE"),
        (ApiError::NoSuccessor { log: Some(name()) }, Code::FAILED_PRECONDITION, "NO_SUCCESSOR"),
        (ApiError::NodeLeaves { node: NodeId(9) }, Code::FAILED_PRECONDITION, "NODE_LEAVING"),
        (ApiError::NodeNeeded { by: NeededBy::Log(name()) }, Code::FAILED_PRECONDITION, "NODE_NEEDED"),
        (ApiError::NodeNeeded { by: NeededBy::Catalog }, Code::FAILED_PRECONDITION, "NODE_NEEDED"),
        (of_state(StateRefusal::ProducerUnknown(7)), Code::FAILED_PRECONDITION, "PRODUCER_UNKNOWN"),
        (of_state(StateRefusal::ProducerFenced(7)), Code::FAILED_PRECONDITION, "PRODUCER_FENCED"),
        (of_state(StateRefusal::SequenceGap(7)), Code::FAILED_PRECONDITION, "SEQUENCE_GAP"),
        (of_state(StateRefusal::SequenceTooOld(7)), Code::FAILED_PRECONDITION, "SEQUENCE_TOO_OLD"),
        (of_state(StateRefusal::SequenceReused(7)), Code::INVALID_ARGUMENT, "SEQUENCE_REUSED"),
        (of_state(StateRefusal::ProducerEpoch(7)), Code::FAILED_PRECONDITION, "EPOCH_MISMATCH"),
        (of_state(StateRefusal::ProducersFull(7)), Code::RESOURCE_EXHAUSTED, "TOO_MANY_PRODUCERS"),
        (of_state(StateRefusal::NoSuchCursor(0)), Code::NOT_FOUND, "NO_SUCH_CURSOR"),
        (of_state(StateRefusal::CursorFenced(7)), Code::FAILED_PRECONDITION, "CURSOR_FENCED"),
        (of_state(StateRefusal::CursorEpoch(7)), Code::FAILED_PRECONDITION, "EPOCH_MISMATCH"),
        (of_state(StateRefusal::CursorRevision(7)), Code::FAILED_PRECONDITION, "REVISION_MISMATCH"),
        (of_state(StateRefusal::CursorBehind(7)), Code::FAILED_PRECONDITION, "CURSOR_BEHIND"),
        (of_state(StateRefusal::CursorsFull(7)), Code::RESOURCE_EXHAUSTED, "TOO_MANY_CURSORS"),
        (ApiError::NoIdentity(NoIdentity::NoCommonName), Code::UNAUTHENTICATED, "NO_IDENTITY"),
        (
            ApiError::NotAllowed { principal, log: LogScope::One(name()), action: Action::Produce },
            Code::PERMISSION_DENIED,
            "NOT_ALLOWED",
        ),
        (Invalid::Malformed.into(), Code::INVALID_ARGUMENT, "INVALID_REQUEST"),
        (
            ApiError::LevelUnsupported { level: FeatureLevel(2), why: "n2 does not support it".into() },
            Code::FAILED_PRECONDITION,
            "FEATURE_LEVEL_UNSUPPORTED",
        ),
        (
            ApiError::NewerVersion {
                log: name(),
                offset: Offset(4),
                resume: Some(Offset(6)),
                what: "a frame of kind 99".into(),
            },
            Code::UNIMPLEMENTED,
            "RECORD_UNSUPPORTED",
        ),
        (Invalid::MessageTooLarge { bytes_max: 1 }.into(), Code::INVALID_ARGUMENT, "INVALID_REQUEST"),
        (Invalid::LogName(bad_name).into(), Code::INVALID_ARGUMENT, "INVALID_REQUEST"),
        (Invalid::NoRecords.into(), Code::INVALID_ARGUMENT, "INVALID_REQUEST"),
        (Invalid::RecordAndRecords.into(), Code::INVALID_ARGUMENT, "INVALID_REQUEST"),
        (
            Invalid::RecordTooLarge { position: 1, bytes: 2, bytes_max: 1, limit: "max_x_bytes" }.into(),
            Code::INVALID_ARGUMENT,
            "RECORD_TOO_LARGE",
        ),
        (
            Invalid::RequestTooLarge { bytes: 2, bytes_max: 1, limit: "max_x_bytes" }.into(),
            Code::INVALID_ARGUMENT,
            "REQUEST_TOO_LARGE",
        ),
        (Invalid::EntryTooLarge { bytes_max: 1 }.into(), Code::INVALID_ARGUMENT, "REQUEST_TOO_LARGE"),
        (
            Invalid::Settings { field: "config.retention_age".to_owned(), what: "no".to_owned() }.into(),
            Code::INVALID_ARGUMENT,
            "INVALID_REQUEST",
        ),
        (Invalid::UnknownField { field: "99".into() }.into(), Code::UNIMPLEMENTED, "UNKNOWN_FIELD"),
        (Invalid::EnumValue { field: "start".into(), value: 9 }.into(), Code::UNIMPLEMENTED, "UNKNOWN_FIELD"),
        (Invalid::WireType { field: "log".into() }.into(), Code::INVALID_ARGUMENT, "INVALID_REQUEST"),
        (Invalid::LogChanged.into(), Code::INVALID_ARGUMENT, "INVALID_REQUEST"),
        (Invalid::Start(9).into(), Code::INVALID_ARGUMENT, "INVALID_REQUEST"),
        (Invalid::Heartbeat { heartbeat_ms_min: 1 }.into(), Code::INVALID_ARGUMENT, "INVALID_REQUEST"),
        (ApiError::Unimplemented("producer_id"), Code::UNIMPLEMENTED, "NOT_IMPLEMENTED"),
        (ApiError::OffsetPastEnd(bounds(), Offset(8)), Code::OUT_OF_RANGE, "OFFSET_PAST_END"),
        (ApiError::OffsetTrimmed(bounds(), Offset(2)), Code::OUT_OF_RANGE, "OFFSET_TRIMMED"),
        (ApiError::NoSuchLog(name()), Code::NOT_FOUND, "NO_SUCH_LOG"),
        (ApiError::NoSuchService, Code::NOT_FOUND, "NO_SUCH_SERVICE"),
        (ApiError::LogIdMismatch { log: name(), log_id: LogId(9) }, Code::FAILED_PRECONDITION, "LOG_ID_MISMATCH"),
        (
            ApiError::ExpectedOffset { log: name(), expected: Offset(1), next_offset: Offset(7) },
            Code::FAILED_PRECONDITION,
            "EXPECTED_OFFSET_MISMATCH",
        ),
        (ApiError::QueueFull, Code::RESOURCE_EXHAUSTED, "QUEUE_FULL"),
        (ApiError::Shortage { what: "no file".into() }, Code::RESOURCE_EXHAUSTED, "SHORTAGE"),
        (ApiError::DiskFull { deleted_bytes: 0 }, Code::RESOURCE_EXHAUSTED, "DISK_FULL"),
        (ApiError::DiskFull { deleted_bytes: 7 }, Code::RESOURCE_EXHAUSTED, "DISK_FULL"),
        (LimitReached { limit: Limit::Streams, max: 1 }.into(), Code::RESOURCE_EXHAUSTED, "LIMIT_REACHED"),
        (ApiError::LeaderChanged, Code::UNAVAILABLE, "LEADER_CHANGED"),
        (ApiError::NoLeader, Code::UNAVAILABLE, "NO_LEADER"),
        (ApiError::Joining("no log yet"), Code::UNAVAILABLE, "JOINING"),
        (ApiError::NotReady { waiting_for: "nobody answers".into() }, Code::UNAVAILABLE, "JOINING"),
        (ApiError::AnotherCluster("it answers".into()), Code::UNAVAILABLE, "ANOTHER_CLUSTER"),
        (ApiError::Stopping, Code::UNAVAILABLE, "STOPPING"),
        (ApiError::ReplicaDamaged, Code::UNAVAILABLE, "REPLICA_DAMAGED"),
        (ApiError::LeaderUnreadable { leader: "n1".into(), entry: LogIndex(7) }, Code::UNAVAILABLE, "LEADER_DAMAGED"),
        (ApiError::OutcomeUnknown { retry_is_safe: true }, Code::UNAVAILABLE, "ANSWER_LOST"),
        (ApiError::OutcomeUnknown { retry_is_safe: false }, Code::UNKNOWN, "OUTCOME_UNKNOWN"),
        (ApiError::DeadlinePassed, Code::DEADLINE_EXCEEDED, "DEADLINE_PASSED"),
        (
            ApiError::Damaged { log: name(), offset: Offset(4), resume: None, what: "crc".into() },
            Code::DATA_LOSS,
            "RECORD_DAMAGED",
        ),
        (ApiError::CommittedNotApplied, Code::UNAVAILABLE, "COMMITTED_NOT_APPLIED"),
        (ApiError::LogDeleted { log: name(), log_id: LogId(9), purge_us: 7 }, Code::NOT_FOUND, "LOG_DELETED"),
        (ApiError::LogRestoring { log: name(), log_id: LogId(9) }, Code::FAILED_PRECONDITION, "LOG_RESTORING"),
        (ApiError::NoHashChain(name()), Code::FAILED_PRECONDITION, "NO_HASH_CHAIN"),
        (ApiError::ReceiptsUnavailable, Code::FAILED_PRECONDITION, "RECEIPTS_UNAVAILABLE"),
        (ApiError::LogExists { log: name(), log_id: LogId(9) }, Code::ALREADY_EXISTS, "LOG_EXISTS"),
        (ApiError::RevisionMismatch { log: Some(name()), revision: 2 }, Code::FAILED_PRECONDITION, "REVISION_MISMATCH"),
        (ApiError::RevisionMismatch { log: None, revision: 2 }, Code::FAILED_PRECONDITION, "REVISION_MISMATCH"),
        (ApiError::TooManyLogs { max: 1 }, Code::RESOURCE_EXHAUSTED, "TOO_MANY_LOGS"),
        (ApiError::LevelTooLow(FeatureLevel(2)), Code::FAILED_PRECONDITION, "FEATURE_LEVEL_TOO_LOW"),
        (Invalid::LogId.into(), Code::INVALID_ARGUMENT, "INVALID_REQUEST"),
        (Invalid::LogIdUsed.into(), Code::INVALID_ARGUMENT, "INVALID_REQUEST"),
        (Invalid::NoLogId.into(), Code::INVALID_ARGUMENT, "INVALID_REQUEST"),
        (ApiError::Internal("a bug"), Code::INTERNAL, "INTERNAL_ERROR"),
    ]
}

/// Whatever the limit, `limit` and `max` name it.
#[test]
fn every_limit_is_named_by_the_same_metadata() {
    for (error, limit, max) in [
        (
            Invalid::RecordTooLarge { position: 1, bytes: 9, bytes_max: 8, limit: "record_bytes_max" }.into(),
            "record_bytes_max",
            "8",
        ),
        (
            Invalid::RequestTooLarge { bytes: 9, bytes_max: 7, limit: "request_bytes_max" }.into(),
            "request_bytes_max",
            "7",
        ),
        (Invalid::EntryTooLarge { bytes_max: 6 }.into(), "entry_bytes_max", "6"),
        (ApiError::from(LimitReached { limit: Limit::Streams, max: 5 }), "streams_max", "5"),
    ] {
        let metadata = details(&status_of(&error, &CONTEXT)).info.metadata;
        assert_eq!((metadata["limit"].as_str(), metadata["max"].as_str()), (limit, max), "{error:?}");
    }
}

const CONTEXT: StatusContext = StatusContext { package: Package::SeriatimV1, leader: None, at: None };

/// The details of a status, as a client reads them.
struct Details {
    info: error_details::ErrorInfo,
    bad_request: Option<error_details::BadRequest>,
    retry: Option<error_details::RetryInfo>,
    localized: Option<error_details::LocalizedMessage>,
}

fn details(status: &RpcStatus) -> Details {
    let whole = status::Status::parse_from_bytes(status.details()).expect("a google.rpc.Status");
    assert_eq!((whole.code, whole.message.as_str()), (status.code().into(), status.message()));
    let info = whole.details.iter().find_map(|any| any.unpack::<error_details::ErrorInfo>().expect("well-formed"));
    let retry = whole.details.iter().find_map(|any| any.unpack::<error_details::RetryInfo>().expect("well-formed"));
    let localized =
        whole.details.iter().find_map(|any| any.unpack::<error_details::LocalizedMessage>().expect("well-formed"));
    let bad_request = whole.details.iter().find_map(|any| any.unpack().expect("well-formed"));
    Details { info: info.expect("an ErrorInfo"), bad_request, retry, localized }
}

#[test]
fn every_error_has_a_code_a_reason_and_a_message() {
    let samples = samples();
    let seen: BTreeSet<usize> = samples.iter().map(|(error, _, _)| number(error)).collect();
    assert_eq!(seen, (0..VARIANTS).collect(), "a variant has no sample");
    for (error, code, reason) in samples {
        let status = status_of(&error, &CONTEXT);
        let details = details(&status);
        assert_eq!((status.code(), details.info.reason.as_str()), (code, reason), "{error:?}");
        assert_eq!(details.info.domain, DOMAIN);
        assert!(!status.message().is_empty(), "{error:?}");
        let class = classify(&error).reason;
        assert_eq!(details.info.metadata["outcome"], class.outcome().code(), "{error:?}");
        assert_eq!(details.info.metadata["retry"], class.retry().code(), "{error:?}");
        assert_eq!(details.retry.is_some(), class.retry() != Retry::No, "{error:?}");
        let field = details.bad_request.map(|bad| bad.field_violations[0].field.clone());
        let invalid = if let ApiError::Invalid(invalid) = &error { Some(invalid) } else { None };
        assert_eq!(field, invalid.and_then(|invalid| Some(invalid.field()?.into_owned())), "{error:?}");
        assert_eq!(details.localized.is_some(), code == Code::OUT_OF_RANGE, "{error:?}");
        // Trailing metadata is limited, and base64 makes it larger.
        assert!(status.details().len() < 2048);
    }
}

/// Only these are answered late when they are large: an honest client sends the others again.
#[test]
fn a_retry_is_useless_only_if_the_request_itself_is_wrong() {
    for (error, code, reason) in samples() {
        let is_wrong = match code {
            Code::UNAUTHENTICATED
            | Code::PERMISSION_DENIED
            | Code::INVALID_ARGUMENT
            | Code::NOT_FOUND
            | Code::ALREADY_EXISTS => true,
            Code::UNIMPLEMENTED => reason != "RECORD_UNSUPPORTED",
            _ => reason == "LOG_ID_MISMATCH",
        };
        assert_eq!(classify(&error).always_fails(), is_wrong, "{error:?}");
    }
}

/// A full disk had a delay of 200 ms, so that thousands of clients asked five times a second for hours.
#[test]
fn the_delay_fits_what_has_to_happen_first() {
    let seconds = |error: ApiError| {
        let delay = details(&status_of(&error, &CONTEXT)).retry.map(|retry| retry.retry_delay.unwrap_or_default());
        delay.map(|delay| delay.seconds as f64 + f64::from(delay.nanos) / 1e9)
    };
    assert_eq!(seconds(ApiError::QueueFull), Some(0.2));
    assert_eq!(seconds(ApiError::NoLeader), Some(1.0));
    assert_eq!(seconds(ApiError::DiskFull { deleted_bytes: 0 }), Some(5.0));
    assert_eq!(seconds(ApiError::NoSuchService), None);
}

/// gRPC replaced a status with a long part of the request in it by "metadata size exceeds soft limit".
#[test]
fn a_status_stays_small_whatever_the_request_contains() {
    let long = "\u{e4}".repeat(20_000);
    for error in [Invalid::UpdateMask(long.clone()), Invalid::UnknownField { field: long.clone() }] {
        let status = status_of(&error.into(), &CONTEXT);
        assert!(status.message().len() < 700 && status.details().len() < 3000, "{}", status.details().len());
        let field = &details(&status).bad_request.expect("a field").field_violations[0].description;
        assert!(field.ends_with("..."), "{field}");
    }
}

#[test]
fn names_the_leader_if_a_retry_may_succeed() {
    let context = StatusContext { leader: Some("n2:8400".to_owned()), ..CONTEXT };
    let leader = |error: ApiError| details(&status_of(&error, &context)).info.metadata.get("leader").cloned();
    assert_eq!(leader(ApiError::LeaderChanged).as_deref(), Some("n2:8400"));
    assert_eq!(leader(ApiError::NoSuchService), None);
}

#[test]
fn an_offset_out_of_range_names_the_bounds() {
    let details = details(&status_of(&ApiError::OffsetPastEnd(bounds(), Offset(8)), &CONTEXT));
    let get = |key: &str| details.info.metadata.get(key).map(String::as_str);
    assert_eq!(get("log"), Some("default"));
    assert_eq!(get("log_id"), Some("0000000000000009"));
    assert_eq!((get("first_offset"), get("next_offset")), (Some("3"), Some("7")));
    let text = details.localized.expect("for older clients").message;
    assert_eq!(text, "The requested offset is outside the log's range: 8");
}

#[test]
fn a_failed_stream_names_the_failed_request() {
    let metadata = |unknown_through| {
        let at = FailedAt { failed_request: 5, unknown_through };
        let info = details(&status_of(&ApiError::LeaderChanged, &StatusContext { at: Some(at), ..CONTEXT })).info;
        (info.metadata.get("failed_request").cloned(), info.metadata.get("unknown_through").cloned())
    };
    assert_eq!(metadata(None), (Some("5".to_owned()), None));
    assert_eq!(metadata(Some(7)), (Some("5".to_owned()), Some("7".to_owned())));
}

#[test]
fn unknown_outcome_is_the_only_ambiguous_error_of_a_proposal() {
    let bounds = bounds();
    let proposed = |producer_id| FailedProposal { bounds: &bounds, offset: Offset(8), retry_is_safe: producer_id != 0 };
    let all = [
        (ProposeError::NotLeader { leader: None }, ApiError::NoLeader),
        (ProposeError::NotLeader { leader: Some(crate::types::NodeId(1)) }, ApiError::LeaderChanged),
        (ProposeError::QueueFull, ApiError::QueueFull),
        (ProposeError::TooLarge, Invalid::EntryTooLarge { bytes_max: ENTRY_BYTES_MAX }.into()),
        (ProposeError::Dropped, ApiError::LeaderChanged),
        (ProposeError::OutcomeUnknown, ApiError::OutcomeUnknown { retry_is_safe: false }),
        (ProposeError::DeadlinePassed, ApiError::DeadlinePassed),
        (
            ProposeError::ExpectedOffset { next_offset: Offset(9) },
            ApiError::ExpectedOffset { log: name(), expected: Offset(8), next_offset: Offset(9) },
        ),
        (
            ProposeError::PastEnd { next_offset: Offset(7) },
            ApiError::OffsetPastEnd(LogBounds { next_offset: Offset(7), ..bounds.clone() }, Offset(8)),
        ),
        (ProposeError::NoSuchGroup, ApiError::Joining("the node that had to answer has no replica of the log yet")),
        (ProposeError::Damaged, ApiError::ReplicaDamaged),
        (ProposeError::Stopping, ApiError::Stopping),
    ];
    for (error, expected) in all {
        assert_eq!(ApiError::from_propose(error, &proposed(0)), expected);
    }
    let safe = ApiError::from_propose(ProposeError::OutcomeUnknown, &proposed(7));
    assert_eq!(safe, ApiError::OutcomeUnknown { retry_is_safe: true });
}

fn newer(next_offset: Option<Offset>) -> NewerRecords {
    let kind = UnknownCode { what: "a frame of kind", code: 99 };
    let frame = NewerFrame { file: "1.seg".into(), position: 9, end: 17, kind };
    NewerRecords { frame, first_offset: Offset(3), next_offset }
}

#[test]
fn a_failed_read_names_log_and_offset() {
    let range = DamagedRange {
        file: "1.seg".into(),
        position: 9,
        bytes: 8,
        first_offset: Offset(4),
        next_offset: Some(Offset(6)),
        what: "a bad CRC".into(),
    };
    let error = ApiError::from_read(ReadError::Damaged(range.clone()), bounds(), Offset(4));
    let (log, what) = (name(), "1.seg byte 9: a bad CRC".to_owned());
    assert_eq!(error, ApiError::Damaged { log, offset: Offset(4), resume: Some(Offset(6)), what });
    let status = status_of(&error, &CONTEXT);
    assert!(status.message().starts_with("records 4 to 5 of log "), "{}", status.message());
    let metadata = details(&status).info.metadata;
    assert_eq!((metadata["offset"].as_str(), metadata["resume_offset"].as_str()), ("4", "6"));
    let unknown = status_of(&ApiError::from_read(ReadError::Io("gone".into()), bounds(), Offset(4)), &CONTEXT);
    assert!(!details(&unknown).info.metadata.contains_key("resume_offset"));
    let one = ReadError::Damaged(DamagedRange { next_offset: Some(Offset(5)), ..range });
    let one = status_of(&ApiError::from_read(one, bounds(), Offset(4)), &CONTEXT);
    assert!(one.message().starts_with("record 4 of log "), "{}", one.message());
    let error = ApiError::from_read(ReadError::NewerFrame(newer(Some(Offset(6)))), bounds(), Offset(4));
    let status = status_of(&error, &CONTEXT);
    let text = "this node can't read records 4 to 5 of log default, which a newer version wrote: 1.seg contains at byte 9 a \
                frame of kind 99, which this version does not know; start a newer version";
    assert_eq!((status.code(), status.message()), (Code::UNIMPLEMENTED, text));
    let metadata = details(&status).info.metadata;
    assert_eq!((metadata["offset"].as_str(), metadata["resume_offset"].as_str()), ("4", "6"));
    let error = ApiError::from_read(ReadError::NewerFrame(newer(None)), bounds(), Offset(4));
    assert!(!details(&status_of(&error, &CONTEXT)).info.metadata.contains_key("resume_offset"));
    let error = ApiError::from_read(ReadError::Trimmed { first_offset: Offset(5) }, bounds(), Offset(4));
    assert_eq!(error, ApiError::OffsetTrimmed(LogBounds { first_offset: Offset(5), ..bounds() }, Offset(4)));
}
