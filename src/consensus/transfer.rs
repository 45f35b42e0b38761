//! Hands over leadership of a group because an operator asks for it.

use super::group::Successor;
use super::handle::TransferError;
use super::replica::Replica;
use crate::types::NodeId;

/// Starts to hand over leadership, to the replica on a node or to any that should lead.
///
/// # Errors
/// [`TransferError`] if it can't begin.
pub fn transfer(replica: &mut Replica, to: Option<NodeId>) -> Result<(), TransferError> {
    if !replica.group.leads() {
        return Err(TransferError::NotLeader { leader: replica.leader_node() });
    }
    let begun = match to {
        Some(node) => replica.group.hand_over_to(node),
        None => replica.group.hand_over(Successor::NotAvoided),
    };
    if begun { Ok(()) } else { Err(TransferError::NoSuccessor) }
}
