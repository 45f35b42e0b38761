//! The loop of the access policy's text.

use super::acl::{Acl, Action};
use super::identity::Principal;
use crate::fuzz::Loop;

/// What a refused text means is nothing at all; what is taken gives nobody a right that no line names.
#[test]
fn policy() {
    let seeds =
        ["# rights\np, root, *, produce\np, role:readers, logs-*, consume\ng, anna, role:readers\n", "p, a, b, admin"];
    // casbin builds a model, a parser and an interpreter for each text.
    Loop::new("policy", seeds.map(|seed| seed.as_bytes().to_vec()).into()).memory(4000).memory_fixed(4 << 20).run(
        |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return false };
            let Ok(acl) = Acl::from_text(text) else { return false };
            let stranger = Principal::new("a-stranger-to-every-line").expect("a name");
            if !text.contains(stranger.as_str()) {
                for action in [Action::Produce, Action::Consume, Action::Admin, Action::Replicate] {
                    assert!(!acl.allows(&stranger, "default", action) && !acl.allows_some(&stranger, action));
                }
            }
            for name in ["root", "anna"] {
                let principal = Principal::new(name).expect("a name");
                assert!(!acl.allows(&principal, "default", Action::Produce) || text.contains(name));
            }
            true
        },
    );
}
