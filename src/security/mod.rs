//! The identity of callers, and their permissions.
//!
//! ```text
//!   certificate ──tls──> connection ──identity──> Principal ──acl──> allowed or denied
//! ```
//!
//! Guarantees:
//! - Both listeners use mutual TLS: a connection without a certificate of the listener's authority never reaches a
//!   handler.
//! - A call's principal is the only common name of its certificate. The policy decides by (principal, log, action),
//!   and denies everything that no line grants. `--insecure` replaces only the authentication: every caller is
//!   `anonymous`, but the policy still applies.
//! - Certificates and the policy are loaded as a whole, and checked before they are used. If a reload fails, the last
//!   valid ones stay in use.
//! - A peer's certificate names its node, and the peer can't act as another node.
//!
//! Parts, in reading order: [`identity`] (principals), [`acl`] (the policy; the only user of casbin), [`tls`]
//! (certificates and keys), [`peer_names`] (the names in peer certificates), [`peer_rules`] (which of them are
//! accepted), [`modes`] (warnings about files that other users of the host can use), [`certs`] (creates certificates
//! for development and tests).

pub mod acl;
pub mod certs;
pub mod identity;
pub mod modes;
pub mod peer_names;
pub mod peer_rules;
pub mod tls;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::descriptors::open_needed;

#[cfg(test)]
mod fuzz;

/// Reads a file with certificates or a policy. Uses a reserved descriptor if all others are in use, so that a host
/// that opens too many connections can't delay a revocation.
fn read_needed(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_needed(|| File::open(path))?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
