//! The leader's checks of a forwarded proposal: what a peer may append.

use std::time::Instant;

use crate::catalog::{Catalog, Command, EffectiveSettings};
use crate::consensus::handle::{Proposal, StreamPosition, ends_by};
use crate::log_state::StateCommand;
use crate::pb::peer::Propose;
use crate::storage::entry::{EntryKind, PayloadForm};
use crate::storage::payload;
use crate::types::{GroupId, Offset, StreamId, Term};

/// Why a forwarded proposal is refused. Once committed, an entry that can't be applied would stop its group on every
/// node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProposal {
    /// Only a newer version knows the kind.
    #[error("entry kind {0}, which this version does not know; start a newer version")]
    UnknownKind(u32),
    /// No client proposes entries of this kind to this group.
    #[error("an entry of kind {_0:?} to group {_1}")]
    NotProposable(EntryKind, GroupId),
    /// The payload or the number of records is wrong, or exceeds the limits of the log.
    #[error("{count} records in {bytes} bytes that are malformed, or not allowed in group {group}")]
    BadPayload {
        /// The group of the proposal.
        group: GroupId,
        /// The number of records that it claims.
        count: u32,
        /// The size of its payload.
        bytes: usize,
    },
}

/// Decodes and checks a job's proposal, on the leader.
///
/// # Errors
/// [`BadProposal`].
pub fn proposal_of(
    group: u64,
    deadline: Option<Instant>,
    propose: Propose,
    catalog_now: &Catalog,
) -> Result<Proposal, BadProposal> {
    let group = GroupId(group);
    let kind = u8::try_from(propose.kind).ok().and_then(|code| EntryKind::try_from(code).ok());
    let kind = kind.ok_or(BadProposal::UnknownKind(propose.kind))?;
    if !kind.is_proposed_to(group) {
        return Err(BadProposal::NotProposable(kind, group));
    }
    let form = kind.payload();
    let has_good_records = || match group {
        GroupId::CATALOG => may_be_forwarded(&propose.payload),
        _ => {
            fits(catalog_now, group, &propose.payload)
                && may_append(catalog_now, group, &propose)
                && is_chained(catalog_now, group) == (kind == EntryKind::ChainedRecords)
        }
    };
    let has_good_commands = || {
        // Their entry would have a later time than the records of a backup that are still to come.
        let is_closed = catalog_now.log(group).is_some_and(|meta| meta.deletion.is_some() || meta.is_restoring());
        !is_closed && StateCommand::decode_all(&propose.payload).is_ok()
    };
    let is_good = match form {
        PayloadForm::Records | PayloadForm::ChainedRecords => has_good_records(),
        PayloadForm::Message => has_good_commands(),
        PayloadForm::Bytes(_) | PayloadForm::Filler => true,
    };
    // The leader adds the hash chain to the records.
    let form = if form.has_records() { PayloadForm::Records } else { form };
    if !form.fits(propose.payload.len(), propose.count) || !is_good {
        return Err(BadProposal::BadPayload { group, count: propose.count, bytes: propose.payload.len() });
    }
    Ok(Proposal {
        group,
        kind,
        count: propose.count,
        payload: propose.payload.as_ref().into(),
        expected_offset: propose.expected_offset.map(Offset),
        producer_id: propose.producer_id,
        sequence: propose.sequence,
        producer_epoch: propose.producer_epoch,
        restored_append_time_us: propose.restored_append_time_us,
        in_stream: (propose.stream != 0)
            .then_some(StreamPosition { stream: StreamId(propose.stream), sequence: propose.sequence_in_stream }),
        term: (propose.term != 0).then_some(Term(propose.term)),
        deadline,
    })
}

/// Returns whether the values of the records respect the limits of their log: the forwarding node may not have checked
/// that. A record in its stored form must be one that every client can read. A deleted log takes no records: the
/// forwarding node may not know yet that it is deleted.
fn fits(catalog: &Catalog, group: GroupId, payload: &[u8]) -> bool {
    let Some(meta) = catalog.log(group) else { return true };
    if meta.deletion.is_some() {
        return false;
    }
    let log = catalog.settings_of(meta);
    let mut sum = 0;
    let record_fits = |record: &[u8]| {
        let value = payload::record_value(record).map_or(usize::MAX, <[u8]>::len);
        sum = value.saturating_add(sum);
        value <= log.record_bytes_max as usize && record.len() <= EffectiveSettings::STORED_RECORD_BYTES_MAX
    };
    payload::records(payload).map(|record| record.unwrap_or_default()).all(record_fits)
        && sum <= log.request_bytes_max as usize
}

/// Returns whether the entries of a log contain a hash chain.
fn is_chained(catalog: &Catalog, group: GroupId) -> bool {
    catalog.log(group).is_some_and(|meta| catalog.settings_of(meta).hash_chain)
}

/// Returns whether a log that is being restored gets records of its backup, and no other log gets such records.
fn may_append(catalog: &Catalog, group: GroupId, propose: &Propose) -> bool {
    let Some(meta) = catalog.log(group) else { return true };
    match (meta.restoring_to(), propose.restored_append_time_us) {
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
        (Some(end), Some(_)) => ends_by(propose.expected_offset.map(Offset), propose.count, end),
    }
}

/// Returns whether every record is a command that other nodes request. No other change of the catalog is forwarded as
/// an entry: the leader proposes those itself. A command that only a newer version knows is refused and not appended.
fn may_be_forwarded(records: &[u8]) -> bool {
    let admitted = |record: &[u8]| Command::of_record(record).is_ok_and(|command| command.is_requested());
    payload::records(records).all(|record| record.is_ok_and(admitted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::command_proposal;
    use crate::storage::payload::{RecordFields, encode_record};

    /// A peer could have any record appended to the catalog. When a record that was not a command was applied, every
    /// node ended.
    #[test]
    fn only_settings_of_logs_are_forwarded_to_the_catalog() {
        let propose = |kind: EntryKind, count, payload: &[u8]| Propose {
            kind: u32::from(kind.code()),
            count,
            payload: payload.to_vec().into(),
            ..Propose::default()
        };
        let mut record = Vec::new();
        encode_record(&mut record, &RecordFields { value: b"no command", ..RecordFields::default() });
        let command = |command| command_proposal(&command).payload.payload();
        let founded = command(Command::Founded(GroupId(1)));
        let command = command(Command::ConfigureLog(GroupId(1), crate::catalog::LogSettings::default()));
        let both = [&command[..], &record[..]].concat();
        let mut catalog = Catalog::default();
        let limits = crate::catalog::LogSettings {
            record_bytes_max: Some(1024),
            request_bytes_max: Some(1500),
            ..crate::catalog::LogSettings::default()
        };
        let first = crate::catalog::NewLog::of_level_1(crate::types::NodeId(1), limits);
        catalog.apply(&Command::CreateLog(first), 1);
        let taken =
            |group, kind, count, payload: &[u8]| proposal_of(group, None, propose(kind, count, payload), &catalog);

        let proposal = taken(0, EntryKind::Records, 1, &command).expect("a command");
        assert_eq!(proposal.payload.payload(), command);
        assert!(taken(0, EntryKind::Records, 1, &record).is_err());
        assert!(taken(0, EntryKind::Records, 1, &founded).is_err(), "the leader proposes it itself");
        assert!(taken(0, EntryKind::Records, 2, &both).is_err(), "a record after a command");
        assert!(taken(0, EntryKind::Records, 1, &command[1..]).is_err(), "no records");
        assert!(taken(0, EntryKind::Trim, 0, &[0; 8]).is_err(), "the catalog is replayed from its beginning");
        assert!(taken(1, EntryKind::Records, 1, &record).is_ok());
        assert!(taken(1, EntryKind::Trim, 0, &[0; 8]).is_ok());
        let values = |sizes: &[usize]| {
            let mut payload = Vec::new();
            for size in sizes {
                encode_record(&mut payload, &RecordFields { value: &vec![7; *size], ..RecordFields::default() });
            }
            payload
        };
        assert!(taken(1, EntryKind::Records, 2, &values(&[1024, 476])).is_ok(), "limits count what clients send");
        assert!(taken(1, EntryKind::Records, 1, &values(&[1025])).is_err(), "larger than record_bytes_max");
        assert!(taken(1, EntryKind::Records, 2, &values(&[1000, 501])).is_err(), "larger than request_bytes_max");
        let trim = taken(0, EntryKind::Trim, 0, &[0; 8]).expect_err("not of the catalog");
        assert_eq!(trim, BadProposal::NotProposable(EntryKind::Trim, GroupId::CATALOG));
        let newer = Propose { kind: 99, ..propose(EntryKind::Records, 1, &record) };
        let refused = proposal_of(1, None, newer, &catalog).expect_err("unknown");
        assert!(refused.to_string().contains("entry kind 99"), "{refused}");
    }
}
