//! The fuzz loop of a member's answer to a node that asks to join.

use protobuf::Message as _;

use super::admission::members_of;
use crate::fuzz::{Loop, PROTOBUF_FIXED_BYTES};
use crate::pb::peer::{JoinResponse, Member};

#[test]
fn join_response() {
    let member =
        |name: &str| Member { node_id: 3, node_name: name.into(), bind_addr: "a:1".into(), ..Member::default() };
    let response = JoinResponse { cluster_id: 7, members: vec![member("a"), member("b")], ..JoinResponse::default() };
    Loop::new("join_response", vec![response.write_to_bytes().expect("encoded")])
        .memory(400)
        .memory_fixed(PROTOBUF_FIXED_BYTES)
        .run(|bytes| {
            let Ok(response) = JoinResponse::parse_from_bytes(bytes) else { return false };
            let members = members_of(&response);
            assert!(members.len() <= response.members.len());
            assert!(
                members
                    .iter()
                    .all(|m| response.members.iter().any(|r| r.node_id == m.id.0 && r.node_name == m.name.as_str()))
            );
            !members.is_empty()
        });
}
