//! The identity of callers, and what they may do.
//!
//! ```text
//!   certificate ──tls──> connection ──identity──> Principal ──acl──> allowed or denied
//! ```
//!
//! Guarantees:
//! - Both listeners use mutual TLS: a connection without a certificate of the listener's authority never reaches a
//!   handler.
//! - A call's identity is the single common name of its certificate. The policy decides by (principal, log, action) and
//!   denies what no line grants. `--insecure` replaces the first step alone: every caller is `anonymous`, and the
//!   policy still applies.
//! - Certificates and policy are loaded as a whole and checked before they are used. A reload that fails keeps the last
//!   good ones.
//! - A peer's certificate names its node, and the peer speaks for no other one.
//!
//! Parts, in reading order: [`identity`] (principals), [`acl`] (the policy; the only user of casbin), [`tls`]
//! (certificates and keys), [`peer_names`] (the names in peer certificates), [`peer_rules`] (which of them are
//! accepted), [`modes`] (warnings about files that other users of the host can use), [`certs`] (makes certificates for
//! development and tests).

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

/// Reads a file of certificates or of the policy, with a reserved descriptor if all others are in use: a caller that
/// opens too many connections must not be able to delay a revocation.
fn read_needed(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_needed(|| File::open(path))?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
