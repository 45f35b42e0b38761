//! The access policy: (principal, log, action) → yes or no, denied by default.

use std::path::Path;

use super::identity::Principal;

/// What may be done with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Append.
    Produce,
    /// Read.
    Consume,
    /// Trim, make, look into.
    Admin,
    /// Be a peer.
    Replicate,
}

/// The policy as it is now; a clone is the same policy.
#[derive(Clone)]
pub struct Acl {}

/// Why a policy is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclError {}

impl Acl {
    /// Stands for "every log": for what belongs to no single log. Only a policy line for `*` gives it.
    pub const EVERY_LOG: &'static str = "*";

    /// Loads a policy from its files; without a model the built-in one.
    ///
    /// # Errors
    /// [`AclError`], naming file and line.
    pub fn load(model: Option<&Path>, policy: &Path) -> Result<Acl, AclError> {
        todo!("{model:?} {policy:?}")
    }

    /// Takes a policy from text, with the built-in model. It has no files to be reloaded from.
    ///
    /// # Errors
    /// [`AclError`], naming the line.
    pub fn from_text(policy: &str) -> Result<Acl, AclError> {
        todo!("{policy}")
    }

    /// May the principal do that with the log (or with [`Acl::EVERY_LOG`])?
    pub fn allows(&self, principal: &Principal, log: &str, action: Action) -> bool {
        todo!("{principal} {log} {action:?}")
    }

    /// May the principal do that with any log at all? For a `ServerChecker`, before the log's name is known.
    pub fn allows_some(&self, principal: &Principal, action: Action) -> bool {
        todo!("{principal} {action:?}")
    }

    /// Counts reloads that changed something: open streams look again when it moves.
    pub fn generation(&self) -> u64 {
        todo!()
    }

    /// Reads the files again. True when the policy changed; on an error the last good one stays.
    ///
    /// # Errors
    /// [`AclError`], naming file and line.
    pub fn reload(&self) -> Result<bool, AclError> {
        todo!()
    }
}
