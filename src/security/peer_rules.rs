//! The requirements for peer certificates, in addition to a trusted authority.
//!
//! - `require_named_peers`: refuses the shared certificate, with which a peer can act as any node. The option is off
//!   by default, so that a cluster with a shared certificate can replace it node by node, and set the option
//!   afterwards. The default is safe for a cluster without a shared certificate, because only the cluster's authority
//!   can issue one.
//! - `peer_deny_file`: names of nodes whose certificates are refused, one per line. It excludes a compromised host
//!   without affecting others. A name must stay in the file while its certificate is valid, so the host needs another
//!   name to return.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use thiserror::Error;

use super::peer_names::{Dialled, PeerName, PeerNames};
use super::read_needed;
use crate::types::{BadName, NodeName};

/// The time after which the warning about a host with the shared certificate is repeated.
const WARN_AGAIN: Duration = Duration::from_secs(10 * 60);
/// The number of hosts whose warnings are tracked. No warning is logged for further hosts.
const WARNED_MAX: usize = 64;

/// The current rules. Clones share them.
#[derive(Clone, Debug)]
pub struct PeerRules(Arc<LiveRules>);

#[derive(Debug)]
struct LiveRules {
    names: PeerNames,
    insecure: bool,
    require_named: bool,
    deny_file: Option<PathBuf>,
    denied: RwLock<Arc<BTreeSet<NodeName>>>,
    generation: AtomicU64,
    warned: Mutex<Vec<(String, Instant)>>,
}

/// Why the list of denied nodes is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the texts name every field")]
pub enum PeerRulesError {
    /// The file can't be read.
    #[error("{file}: {error}", file = file.display())]
    Unreadable { file: PathBuf, error: String },
    /// A line is not the name of a node. Lines count from 1.
    #[error("{file}:{line}: {error}", file = file.display())]
    Line { file: PathBuf, line: usize, error: BadName },
}

impl PeerRules {
    /// Returns the rules without TLS, where no peer has a certificate.
    pub fn without_tls(cluster_name: &str) -> PeerRules {
        PeerRules::new(cluster_name, true, false, None, BTreeSet::new())
    }

    /// Reads the list of denied nodes, if one is configured.
    ///
    /// # Errors
    /// [`PeerRulesError`], naming file and line.
    pub fn load(
        cluster_name: &str,
        require_named: bool,
        deny_file: Option<&Path>,
    ) -> Result<PeerRules, PeerRulesError> {
        let denied = read_denied(deny_file)?;
        Ok(PeerRules::new(cluster_name, false, require_named, deny_file, denied))
    }

    fn new(
        cluster_name: &str,
        insecure: bool,
        require_named: bool,
        deny_file: Option<&Path>,
        denied: BTreeSet<NodeName>,
    ) -> PeerRules {
        PeerRules(Arc::new(LiveRules {
            names: PeerNames::new(cluster_name),
            insecure,
            require_named,
            deny_file: deny_file.map(Path::to_owned),
            denied: RwLock::new(Arc::new(denied)),
            generation: AtomicU64::new(1),
            warned: Mutex::default(),
        }))
    }

    /// Returns the names in the peer certificates of this cluster.
    pub fn names(&self) -> &PeerNames {
        &self.0.names
    }

    /// Reads the list of denied nodes again. Returns whether it has changed. After an error, the last valid list
    /// stays in use.
    ///
    /// # Errors
    /// [`PeerRulesError`], naming file and line.
    pub fn reload(&self) -> Result<bool, PeerRulesError> {
        let new = read_denied(self.0.deny_file.as_deref())?;
        let mut denied = self.0.denied.write();
        if new == **denied {
            return Ok(false);
        }
        *denied = Arc::new(new);
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        Ok(true)
    }

    /// Returns a number that changes when a reload has changed the list.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Returns whether the certificates of this node are refused.
    pub fn denies(&self, node: &NodeName) -> bool {
        self.0.denied.read().contains(node)
    }

    /// Returns whether the certificates of any node are refused.
    pub fn denies_any(&self) -> bool {
        !self.0.denied.read().is_empty()
    }

    /// Returns whether the shared certificate is accepted.
    pub fn accepts_shared(&self) -> bool {
        !self.0.insecure && !self.0.require_named
    }

    /// Checks whether a peer with this certificate is accepted. If `host` uses the shared certificate, a warning is
    /// logged.
    ///
    /// # Errors
    /// Why it is refused, and what to do.
    pub fn check(&self, name: &PeerName, host: &str) -> Result<(), String> {
        match name {
            PeerName::Unproven => Ok(()),
            PeerName::Shared if self.0.require_named => {
                Err("the certificate names no node, and require_named_peers is set: issue one for this node with \
                 `seriatim certs --use-ca --peers NAME`"
                    .to_owned())
            }
            PeerName::Shared => {
                self.warn_of_shared(host);
                Ok(())
            }
            PeerName::Nodes(nodes) => match nodes.iter().find(|node| self.denies(node)) {
                Some(node) => Err(format!("the certificates of node {node} are refused here (peer_deny_file)")),
                None => Ok(()),
            },
        }
    }

    fn warn_of_shared(&self, host: &str) {
        if self.is_due(host, Instant::now()) {
            log::warn!(
                "the peer at {host} has the shared peer certificate, which can speak for every node: give each node its own \
                 (`seriatim certs --use-ca --peers NAME,...`), then set require_named_peers"
            );
        }
    }

    fn is_due(&self, host: &str, now: Instant) -> bool {
        let mut warned = self.0.warned.lock();
        warned.retain(|(_, at)| now - *at < WARN_AGAIN);
        if warned.len() >= WARNED_MAX || warned.iter().any(|(known, _)| known == host) {
            return false;
        }
        warned.push((host.to_owned(), now));
        true
    }

    /// Returns the certificates to expect if any member may answer, the preferred one first.
    pub fn any_member(&self) -> Vec<Dialled> {
        self.accepted([Dialled::Member, Dialled::Shared])
    }

    /// Returns the certificates to expect from this node, the preferred one first. `heard` is the certificate of its
    /// last hello. Once the node has used a certificate with its name, the shared one is no longer accepted, unless
    /// the node itself uses it in a later hello.
    pub fn node(&self, node: Option<NodeName>, heard: Option<&PeerName>) -> Vec<Dialled> {
        let named = |node: NodeName| Dialled::Node(node);
        match (heard, node) {
            (Some(PeerName::Unproven), _) => vec![Dialled::Member],
            (Some(PeerName::Nodes(_)), Some(node)) => vec![named(node)],
            (Some(PeerName::Nodes(nodes)), None) => nodes.iter().take(1).cloned().map(named).collect(),
            (Some(PeerName::Shared), node) => self.accepted([Dialled::Shared].into_iter().chain(node.map(named))),
            (None, Some(node)) => self.accepted([named(node), Dialled::Shared]),
            // No certificate can prove which node answers.
            (None, None) => self.accepted([Dialled::Shared]),
        }
    }

    fn accepted(&self, dialled: impl IntoIterator<Item = Dialled>) -> Vec<Dialled> {
        if self.0.insecure {
            return vec![Dialled::Member];
        }
        dialled.into_iter().filter(|d| *d != Dialled::Shared || self.accepts_shared()).collect()
    }
}

fn read_denied(file: Option<&Path>) -> Result<BTreeSet<NodeName>, PeerRulesError> {
    let Some(file) = file else { return Ok(BTreeSet::new()) };
    let unreadable = |error: String| PeerRulesError::Unreadable { file: file.to_owned(), error };
    let bytes = read_needed(file).map_err(|e| unreadable(e.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|e| unreadable(e.to_string()))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let names = lines.enumerate().filter(|(_, line)| !line.is_empty());
    let name = |(n, line)| {
        NodeName::new(line).map_err(|error| PeerRulesError::Line { file: file.to_owned(), line: n + 1, error })
    };
    names.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::new(name).expect("a name")
    }

    #[test]
    fn a_denied_node_is_refused_from_the_reload_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("denied");
        let missing = PeerRules::load("c", false, Some(&file)).expect_err("missing");
        assert!(matches!(missing, PeerRulesError::Unreadable { .. }), "{missing}");
        std::fs::write(&file, "# stolen\n\n").expect("written");
        let rules = PeerRules::load("c", false, Some(&file)).expect("rules");
        let n3 = PeerName::Nodes(vec![node("n3"), node("n4")]);
        assert_eq!((rules.check(&n3, "h"), rules.reload(), rules.generation()), (Ok(()), Ok(false), 1));
        std::fs::write(&file, "n3   # on 2026-11-28\nn9\n").expect("written");
        assert_eq!((rules.reload(), rules.generation()), (Ok(true), 2));
        assert!(rules.check(&n3, "h").is_err_and(|text| text.contains("node n3") && text.contains("peer_deny_file")));
        std::fs::write(&file, "n9\nno name\n").expect("written");
        let bad = rules.reload().expect_err("no name");
        assert!(bad.to_string().contains("denied:2: \"no name\" is not a valid node name"), "{bad}");
        assert!(rules.denies(&node("n3")), "the last valid list stays in use");
    }

    #[test]
    fn the_shared_certificate_causes_a_warning_or_a_refusal() {
        let lenient = PeerRules::load("c", false, None).expect("rules");
        assert_eq!(lenient.check(&PeerName::Shared, "h"), Ok(()));
        let now = Instant::now();
        assert!(!lenient.is_due("h", now) && lenient.is_due("i", now) && !lenient.is_due("i", now));
        assert!(lenient.is_due("h", now + WARN_AGAIN + Duration::from_secs(1)));
        let taken = (0..2 * WARNED_MAX).filter(|n| lenient.is_due(&n.to_string(), now)).count();
        assert!(taken <= WARNED_MAX);
        assert!(lenient.0.warned.lock().len() <= WARNED_MAX);

        let strict = PeerRules::load("c", true, None).expect("rules");
        assert!(strict.check(&PeerName::Shared, "h").is_err_and(|text| text.contains("require_named_peers")));
        assert_eq!(strict.any_member(), [Dialled::Member]);
        assert_eq!(strict.node(Some(node("a")), Some(&PeerName::Shared)), [Dialled::Node(node("a"))]);
        assert_eq!(strict.node(None, None), []);
    }

    /// If a node is known to have its own certificate, no other one must be accepted from it.
    #[test]
    fn a_node_that_has_used_its_own_certificate_must_keep_using_it() {
        let rules = PeerRules::load("c", false, None).expect("rules");
        let (a, own) = (node("a"), PeerName::Nodes(vec![node("a")]));
        assert_eq!(rules.node(Some(a.clone()), None), [Dialled::Node(a.clone()), Dialled::Shared]);
        assert_eq!(rules.node(Some(a.clone()), Some(&own)), [Dialled::Node(a.clone())]);
        assert_eq!(rules.node(None, Some(&own)), [Dialled::Node(a.clone())]);
        assert_eq!(rules.node(Some(a.clone()), Some(&PeerName::Shared)), [Dialled::Shared, Dialled::Node(a)]);
        assert_eq!(PeerRules::without_tls("c").any_member(), [Dialled::Member]);
    }
}
