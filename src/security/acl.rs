//! The access policy: (principal, log, action) → allowed or denied. Everything that no line grants is denied.
//!
//! The format is that of casbin, with restrictions:
//! - Only the log column is a pattern: a name, or a prefix followed by `*`.
//! - The names of roles, and only these, start with `role:`.
//! - If a line has an unknown action or a wrong number of columns, the whole file is refused, with the number of the
//!   line. Casbin would ignore the line.
//!
//! A decision by casbin takes some microseconds, and is cached until the next reload.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use casbin::{CoreApi as _, DefaultModel, Enforcer, StringAdapter};
use futures::executor::block_on;
use parking_lot::{Mutex, RwLock};
use thiserror::Error;

use super::identity::{Principal, ROLE_PREFIX};
use super::read_needed;
use crate::codes::codes;
use crate::types::LogName;

const MODEL: &str = include_str!("../../acl/model.conf");

/// The number of decisions in the cache. When it is full, it is emptied.
const DECISIONS_REMEMBERED_MAX: usize = 10_000;

/// The cache key of "at least one log". No log has an empty name.
const SOME_LOG: &str = "";

codes! {
    /// An action on a log that can be permitted. The code is its name in the policy.
    pub enum Action: str, "action" {
        /// Append records.
        Produce = "produce",
        /// Read records.
        Consume = "consume",
        /// Move cursors, which are positions of readers.
        Commit = "commit",
        /// Trim, create, configure and inspect.
        Admin = "admin",
        /// Act as a peer of the cluster.
        Replicate = "replicate",
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The current policy. Clones share it.
#[derive(Clone)]
pub struct Acl(Arc<LiveAcl>);

struct LiveAcl {
    /// The model, if it is not the built-in one, and the policy. `None` if the policy was given as text.
    files: Option<(Option<PathBuf>, PathBuf)>,
    current: RwLock<Arc<Policy>>,
    generation: AtomicU64,
}

impl Acl {
    /// The log column for actions that don't concern a single log. Only a policy line for `*` grants them.
    pub const EVERY_LOG: &'static str = "*";

    /// Loads a policy from its files, with the built-in model if none is given.
    ///
    /// # Errors
    /// [`AclError`], naming file and line.
    pub fn load(model: Option<&Path>, policy: &Path) -> Result<Acl, AclError> {
        let current = Policy::load(model, policy)?;
        Ok(Acl::new(Some((model.map(Path::to_owned), policy.to_owned())), current))
    }

    /// Creates a policy from text, with the built-in model. It can't be reloaded.
    ///
    /// # Errors
    /// [`AclError`], naming the line.
    pub fn from_text(policy: &str) -> Result<Acl, AclError> {
        Ok(Acl::new(None, Policy::new(MODEL, policy, Path::new("model"), Path::new("policy"))?))
    }

    fn new(files: Option<(Option<PathBuf>, PathBuf)>, current: Policy) -> Acl {
        Acl(Arc::new(LiveAcl { files, current: RwLock::new(Arc::new(current)), generation: AtomicU64::new(1) }))
    }

    /// Returns whether the principal may perform the action on the log, or on [`Acl::EVERY_LOG`].
    pub fn allows(&self, principal: &Principal, log: &str, action: Action) -> bool {
        self.current().allows(principal, log, action)
    }

    /// Returns whether the principal may perform the action on at least one log. A `ServerChecker` uses this before
    /// the name of the log is known.
    pub fn allows_some(&self, principal: &Principal, action: Action) -> bool {
        self.current().allows(principal, SOME_LOG, action)
    }

    /// Returns what the policy grants to the principal, itself or by a role: patterns of logs, and actions.
    pub fn permissions(&self, principal: &Principal) -> Vec<(String, Action)> {
        self.current().permissions(principal)
    }

    /// Returns a number that changes when a reload has changed the policy. Open streams then check their permissions
    /// again.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Reads the files again. Returns whether the policy has changed. After an error, the last valid policy stays in
    /// use.
    ///
    /// # Errors
    /// [`AclError`], naming file and line.
    pub fn reload(&self) -> Result<bool, AclError> {
        let Some((model, policy)) = &self.0.files else { return Ok(false) };
        let new = Policy::load(model.as_deref(), policy)?;
        let mut current = self.0.current.write();
        if new.text == current.text {
            return Ok(false);
        }
        *current = Arc::new(new);
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        Ok(true)
    }

    fn current(&self) -> Arc<Policy> {
        self.0.current.read().clone()
    }
}

impl fmt::Debug for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acl").field("files", &self.0.files).field("generation", &self.generation()).finish()
    }
}

/// Why a policy is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the texts name every field")]
pub enum AclError {
    /// A file can't be read.
    #[error("{file}: {error}", file = file.display())]
    Unreadable { file: PathBuf, error: String },
    /// The policy contains no permission. It would deny everything, or it is just being written.
    #[error("{file}: nobody may do anything: no line begins with \"p\" (a permission)", file = _0.display())]
    Empty(PathBuf),
    /// No permission of the policy has an effect under the model, for example because the model compares `*` literally.
    #[error(
        "{policy}: nobody may do anything: under {model} none of its lines grants a right (does the matcher accept \"*\" for \
         every log?)",
        policy = policy.display(),
        model = model.as_ref().map_or("the built-in model".to_owned(), |model| model.display().to_string())
    )]
    WithoutEffect { policy: PathBuf, model: Option<PathBuf> },
    /// Casbin rejects the model, or the model defines other requests or policies than expected.
    #[error("{file}: {error}", file = file.display())]
    Model { file: PathBuf, error: String },
    /// A line of the policy is malformed. Lines count from 1.
    #[error("{file}:{line}: {error}", file = file.display())]
    Line { file: PathBuf, line: usize, error: String },
}

impl AclError {
    /// Returns the flag of the option whose file is refused.
    pub fn flag(&self) -> &'static str {
        match self {
            AclError::Model { .. } => "acl-model-file",
            AclError::Unreadable { .. }
            | AclError::Empty(_)
            | AclError::WithoutEffect { .. }
            | AclError::Line { .. } => "acl-policy-file",
        }
    }
}

/// One loaded policy, and a cache of its decisions.
struct Policy {
    /// The texts of the model and the policy, to detect changes.
    text: (String, String),
    enforcer: Enforcer,
    /// The log columns of all lines.
    patterns: BTreeSet<String>,
    /// The subject, log and action of all permissions.
    rules: Vec<(String, String, String)>,
    decided: Mutex<Decisions>,
}

#[derive(Default)]
struct Decisions {
    count: usize,
    of: HashMap<Principal, HashMap<String, [Option<bool>; Action::ALL.len()]>>,
}

impl Policy {
    fn load(model: Option<&Path>, policy: &Path) -> Result<Policy, AclError> {
        let read = |file: &Path| {
            let unreadable = |error: String| AclError::Unreadable { file: file.to_owned(), error };
            let bytes = read_needed(file).map_err(|e| unreadable(e.to_string()))?;
            let text = String::from_utf8(bytes).map_err(|e| unreadable(e.to_string()))?;
            // Some editors write a byte order mark at the beginning.
            Ok(text.trim_start_matches('\u{feff}').to_owned())
        };
        let model_text = model.map_or_else(|| Ok(MODEL.to_owned()), read)?;
        let new = Policy::new(&model_text, &read(policy)?, model.unwrap_or(Path::new("the built-in model")), policy)?;
        if new.patterns.is_empty() {
            return Err(AclError::Empty(policy.to_owned()));
        }
        if new.rules.iter().all(|rule| !new.takes_effect(rule)) {
            return Err(AclError::WithoutEffect { policy: policy.to_owned(), model: model.map(Path::to_owned) });
        }
        Ok(new)
    }

    /// Returns whether a permission grants its subject the action on a log that matches its pattern.
    fn takes_effect(&self, (subject, pattern, action): &(String, String, String)) -> bool {
        let log = match pattern.strip_suffix('*') {
            Some(beginning) => format!("{beginning}x"),
            None => pattern.clone(),
        };
        self.enforcer.enforce((subject.as_str(), log.as_str(), action.as_str())).unwrap_or(false)
    }

    fn new(model: &str, policy: &str, model_file: &Path, policy_file: &Path) -> Result<Policy, AclError> {
        let bad_model = |error: String| AclError::Model { file: model_file.to_owned(), error };
        let parsed = block_on(DefaultModel::from_str(model)).map_err(|e| bad_model(e.to_string()))?;
        let with_effect = check_model(&parsed).map_err(bad_model)?;
        let lines = lines(policy, with_effect).map_err(|(line, error)| AclError::Line {
            file: policy_file.to_owned(),
            line,
            error,
        })?;
        let text: String = lines.iter().map(|columns| columns.join(", ") + "\n").collect();
        let patterns = lines.iter().filter(|c| c[0] == "p").map(|c| c[2].to_owned()).collect();
        let rule = |c: &Vec<&str>| (c[1].to_owned(), c[2].to_owned(), c[3].to_owned());
        let rules = lines.iter().filter(|c| c[0] == "p").map(rule).collect();
        let enforcer =
            block_on(Enforcer::new(parsed, StringAdapter::new(text))).map_err(|e| bad_model(e.to_string()))?;
        // A matcher that can't be evaluated should fail here, not at the first call. The columns of a permission make
        // casbin evaluate all parts of the matcher.
        let probe = lines.iter().find(|c| c[0] == "p").map_or(("nobody", "log", "consume"), |c| (c[1], c[2], c[3]));
        enforcer.enforce(probe).map_err(|e| bad_model(e.to_string()))?;
        let text = (model.to_owned(), policy.to_owned());
        Ok(Policy { text, enforcer, patterns, rules, decided: Mutex::default() })
    }

    fn allows(&self, principal: &Principal, log: &str, action: Action) -> bool {
        let slot = action as usize;
        {
            let decided = self.decided.lock();
            if let Some(known) = decided.of.get(principal).and_then(|logs| logs.get(log)).and_then(|d| d[slot]) {
                return known;
            }
        }
        let decision = match log {
            // A pattern matches itself.
            SOME_LOG => self.patterns.iter().any(|pattern| self.decide(principal, pattern, action)),
            _ => self.decide(principal, log, action),
        };
        let mut decided = self.decided.lock();
        if decided.count >= DECISIONS_REMEMBERED_MAX {
            *decided = Decisions::default();
        }
        decided.count += 1;
        let of_log = decided.of.entry(principal.clone()).or_default().entry(log.to_owned()).or_default();
        of_log[slot] = Some(decision);
        decision
    }

    fn permissions(&self, principal: &Principal) -> Vec<(String, Action)> {
        let mut granted = BTreeSet::new();
        for (_, pattern, action) in &self.rules {
            if let Ok(action) = Action::try_from(action.as_str())
                // A pattern matches itself.
                && self.decide(principal, pattern, action)
            {
                granted.insert((pattern.clone(), action));
            }
        }
        // A pattern of another principal's line is granted, too, if a wider one of this principal's covers it.
        let is_covered = |pattern: &str, action: Action| {
            granted.iter().any(|(wider, of)| *of == action && wider != pattern && covers(wider, pattern))
        };
        granted.iter().filter(|(pattern, action)| !is_covered(pattern, *action)).cloned().collect()
    }

    fn decide(&self, principal: &Principal, log: &str, action: Action) -> bool {
        self.enforcer.enforce((principal.as_str(), log, action.code())).unwrap_or_else(|e| {
            log::error!("the access policy can't be evaluated, so {principal} may not {action} {log}: {e}");
            false
        })
    }
}

/// Returns whether the log column of a permission, a name or a prefix followed by `*`, includes a log, or all logs of another
/// column. Only `*` itself includes [`Acl::EVERY_LOG`].
pub fn covers(permitted: &str, log: &str) -> bool {
    match permitted.strip_suffix('*') {
        Some(prefix) if log == Acl::EVERY_LOG => prefix.is_empty(),
        Some(prefix) => log.starts_with(prefix),
        None => permitted == log,
    }
}

/// Returns whether the policies of the model have an effect (`allow` or `deny`) as their last column.
fn check_model(model: &DefaultModel) -> Result<bool, String> {
    use casbin::Model as _;
    let tokens = |section: &str| -> Vec<String> {
        let assertion = model.get_model().get(section).and_then(|s| s.get(section));
        // Casbin prefixes each token with the section's name: "r_sub".
        assertion.map(|a| a.tokens.iter().map(|t| t[section.len() + 1..].to_owned()).collect()).unwrap_or_default()
    };
    if tokens("r") != ["sub", "obj", "act"] {
        return Err("the request definition is not \"r = sub, obj, act\"".to_owned());
    }
    match tokens("p").iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["sub", "obj", "act"] => Ok(false),
        ["sub", "obj", "act", "eft"] => Ok(true),
        _ => Err("the policy definition is neither \"p = sub, obj, act\" nor \"p = sub, obj, act, eft\"".to_owned()),
    }
}

/// Returns the lines of a policy, each split into columns.
///
/// # Errors
/// The number of a malformed line, from 1, and what is wrong with it.
fn lines(policy: &str, with_effect: bool) -> Result<Vec<Vec<&str>>, (usize, String)> {
    let mut lines = Vec::new();
    for (number, line) in policy.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let columns: Vec<&str> = line.split(',').map(str::trim).collect();
        check_line(&columns, with_effect).map_err(|error| (number + 1, error))?;
        lines.push(columns);
    }
    Ok(lines)
}

fn check_line(columns: &[&str], with_effect: bool) -> Result<(), String> {
    match (columns, with_effect) {
        (["p", subject, log, action], false) => check_rule(subject, log, action),
        (["p", subject, log, action, "allow" | "deny"], true) => check_rule(subject, log, action),
        (["p", ..], false) => Err("a permission is \"p, <name>, <log>, <action>\"".to_owned()),
        (["p", ..], true) => Err("a permission is \"p, <name>, <log>, <action>, allow\" (or deny)".to_owned()),
        (["g", member, role], _) => {
            check_subject(member)?;
            if role.starts_with(ROLE_PREFIX) {
                check_subject(role)
            } else {
                Err(format!("{role:?} is not a role: roles are called \"{ROLE_PREFIX}<name>\""))
            }
        }
        (["g", ..], _) => Err(format!("a membership is \"g, <name>, {ROLE_PREFIX}<name>\"")),
        _ => Err("a line begins with \"p\" (a permission), \"g\" (a membership) or \"#\" (a remark)".to_owned()),
    }
}

fn check_rule(subject: &str, log: &str, action: &str) -> Result<(), String> {
    check_subject(subject)?;
    // Casbin ends a pattern at its first star: "a*b" would mean "a*".
    let beginning = log.strip_suffix('*');
    if !(log == Acl::EVERY_LOG || !log.is_empty() && LogName::new(beginning.unwrap_or(log)).is_ok()) {
        return Err(format!("{log:?} is neither the name of a log nor the beginning of one with a \"*\" at the end"));
    }
    let known = || Action::ALL.iter().map(|action| action.code()).collect::<Vec<_>>().join(", ");
    Action::try_from(action).map(drop).map_err(|_| format!("{action:?} is not an action: the actions are {}", known()))
}

fn check_subject(subject: &str) -> Result<(), String> {
    let name = subject.strip_prefix(ROLE_PREFIX).unwrap_or(subject);
    // Casbin removes quotes, so a quoted name would mean another name.
    if name.contains('"') {
        return Err(format!("{subject:?} has quotes"));
    }
    Principal::new(name).map(drop).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests;
