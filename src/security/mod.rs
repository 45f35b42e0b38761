//! Who speaks, and what they may do.
//!
//! ```text
//!   certificate ──tls──> connection ──identity──> Principal ──acl──> yes or no
//! ```
//!
//! Both listeners speak mutual TLS ([`tls`]): a connection without a certificate of the listener's CA never reaches a
//! handler. A call's [`identity`] is its certificate's one common name, and [`acl`] decides (principal, log, action), denying
//! what no policy line gives. `--insecure` replaces the first step alone: everybody is `anonymous`, and the policy still
//! holds. Certificates and policy are loaded whole and checked before they are used; a reload that fails keeps the last
//! good ones, and [`modes`] warns of files that other users of the host can use. [`certs`] makes certificates for development and for the tests.
//!
//! A peer's certificate names its node ([`peer_names`]); [`peer_rules`] say which of them are accepted.
//!
//! Only `acl` knows casbin, and only `identity` takes a certificate of a call apart.

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

/// Reads a file of certificates or of the policy. With a kept descriptor if there is no other: whoever takes all of them must not be
/// able to hold off a revocation.
fn read_needed(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_needed(|| File::open(path))?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
