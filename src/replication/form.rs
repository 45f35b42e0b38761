//! The call `Form`, by which blank nodes form a cluster: converts its messages, and passes them to the state machine
//! (`crate::forming`).

use std::time::Instant;

use crate::catalog::is_address;
use crate::forming::{BlankNode, FormAnswer, FormMessage, FormingHandle, Word};
use crate::pb::peer::{self, FormRequest, FormResponse, Pledge, Withdrawal, form_request};
use crate::replication::guard::AuthorizedPeer;
use crate::replication::refusal::{Reason, Refusal};
use crate::types::{NodeId, NodeName};

/// Answers another blank node.
///
/// # Errors
/// The refusal, to be sent back.
pub(super) fn answer(
    cluster_name: &str,
    forming: &FormingHandle,
    caller: &AuthorizedPeer,
    request: FormRequest,
    now: Instant,
) -> Result<FormResponse, Refusal> {
    if request.cluster_name != cluster_name {
        let text = format!("this node is of cluster {cluster_name:?}, not {:?}", request.cluster_name);
        return Err(Refusal::new(Reason::ClusterName, text));
    }
    let message = read_request(request)
        .ok_or_else(|| Refusal::new(Reason::Malformed, "a blank node has an id, a name and an address".to_owned()))?;
    caller.shows_itself_as(&message.from.name)?;
    Ok(response(&forming.lock().receive(message, now)))
}

fn blank_node(node: &BlankNode) -> peer::BlankNode {
    peer::BlankNode {
        node_id: node.id.0,
        node_name: node.name.to_string(),
        bind_addr: node.addr.clone(),
        expect: node.expect,
        incarnation: node.incarnation,
        ..peer::BlankNode::default()
    }
}

/// `None` if the node is malformed.
fn read_blank_node(node: Option<&peer::BlankNode>) -> Option<BlankNode> {
    let node = node.filter(|node| node.node_id != 0 && is_address(&node.bind_addr))?;
    Some(BlankNode {
        id: NodeId(node.node_id),
        name: NodeName::new(&node.node_name).ok()?,
        addr: node.bind_addr.clone(),
        expect: node.expect,
        incarnation: node.incarnation,
    })
}

/// Returns the request with a message.
pub(super) fn request(cluster_name: &str, message: &FormMessage) -> FormRequest {
    let word = message.word.map(|word| match word {
        Word::Pledge { to, incarnation, epoch } => {
            form_request::Word::Pledge(Pledge { to: to.0, incarnation, epoch, ..Pledge::default() })
        }
        Word::Withdraw { to, epoch } => {
            form_request::Word::Withdrawal(Withdrawal { to: to.0, epoch, ..Withdrawal::default() })
        }
    });
    FormRequest {
        cluster_name: cluster_name.to_owned(),
        from: Some(blank_node(&message.from)).into(),
        word,
        ..FormRequest::default()
    }
}

/// Returns the message in a request; `None` if it is malformed.
pub(super) fn read_request(request: FormRequest) -> Option<FormMessage> {
    let from = read_blank_node(request.from.as_ref())?;
    let word = request.word.map(|word| match word {
        form_request::Word::Pledge(Pledge { to, incarnation, epoch, .. }) => {
            Word::Pledge { to: NodeId(to), incarnation, epoch }
        }
        form_request::Word::Withdrawal(Withdrawal { to, epoch, .. }) => Word::Withdraw { to: NodeId(to), epoch },
    });
    Some(FormMessage { from, word })
}

fn response(answer: &FormAnswer) -> FormResponse {
    FormResponse {
        from: Some(blank_node(&answer.from)).into(),
        void_up_to: answer.void_up_to,
        ..FormResponse::default()
    }
}

/// Returns the answer in a response; `None` if the responder is a member, or the response is malformed.
pub(super) fn read_response(response: &FormResponse) -> Option<FormAnswer> {
    let from = read_blank_node(response.from.as_ref()).filter(|_| !response.is_member)?;
    Some(FormAnswer { from, void_up_to: response.void_up_to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let from = BlankNode {
            id: NodeId(7),
            name: NodeName::new("a").expect("a name"),
            addr: "a:1".to_owned(),
            expect: 3,
            incarnation: 9,
        };
        for word in [
            None,
            Some(Word::Pledge { to: NodeId(1), incarnation: 2, epoch: 3 }),
            Some(Word::Withdraw { to: NodeId(1), epoch: 3 }),
        ] {
            let message = FormMessage { from: from.clone(), word };
            assert_eq!(read_request(request("c", &message)), Some(message));
        }
        let answer = FormAnswer { from: from.clone(), void_up_to: 4 };
        assert_eq!(read_response(&response(&answer)), Some(answer));
        let member = FormResponse { is_member: true, ..FormResponse::default() };
        assert_eq!(read_response(&member), None);
        for bad in [
            BlankNode { id: NodeId(0), ..from.clone() },
            BlankNode { addr: "a".to_owned(), ..from.clone() },
            BlankNode { addr: format!("{}:1", "a".repeat(400)), ..from },
        ] {
            assert_eq!(read_request(request("c", &FormMessage { from: bad, word: None })), None);
        }
    }
}
