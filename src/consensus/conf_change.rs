//! One change of a group's membership, and its stored form.

use raft::eraftpb::{self, ConfChangeType};

use super::bad_message::BadMessage;
use crate::codes::codes;
use crate::types::ReplicaId;

/// One change of a group's membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfChange {
    /// What happens to the replica.
    pub kind: ConfChangeKind,
    pub replica: ReplicaId,
}

codes! {
    /// What happens to a replica of a group.
    pub enum ConfChangeKind: u32, "kind of conf change" {
        /// It gets a vote.
        AddVoter = 0,
        /// It leaves the group.
        Remove = 1,
        /// It replicates the group without a vote.
        AddLearner = 2,
    }
}

impl ConfChange {
    /// Bytes of the stored form: kind (u32), zero (u32), replica id (u64), little-endian.
    const BYTES: usize = 16;

    pub fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.kind.code().to_le_bytes());
        bytes[8..].copy_from_slice(&self.replica.0.to_le_bytes());
        bytes
    }

    /// Decodes the output of [`ConfChange::encode`].
    ///
    /// # Errors
    /// [`BadMessage`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<ConfChange, BadMessage> {
        const BAD: BadMessage = BadMessage::Malformed("a malformed conf change");
        let bytes: &[u8; Self::BYTES] = bytes.try_into().map_err(|_| BAD)?;
        let (kind, replica) = bytes.split_at(8);
        let kind = u64::from_le_bytes(kind.try_into().map_err(|_| BAD)?);
        let kind = u32::try_from(kind).map_err(|_| BAD)?;
        let replica = u64::from_le_bytes(replica.try_into().map_err(|_| BAD)?);
        Ok(ConfChange { kind: ConfChangeKind::try_from(kind)?, replica: ReplicaId(replica) })
    }

    /// Converts to raft's type.
    pub fn to_raft(self) -> eraftpb::ConfChange {
        let mut change = eraftpb::ConfChange { node_id: self.replica.0, ..Default::default() };
        change.set_change_type(match self.kind {
            ConfChangeKind::AddVoter => ConfChangeType::AddNode,
            ConfChangeKind::Remove => ConfChangeType::RemoveNode,
            ConfChangeKind::AddLearner => ConfChangeType::AddLearnerNode,
        });
        change
    }
}
