//! Authorizes peers: decides whether a caller is a peer, and for which node it may speak. Checked at every call
//! before any of its messages is decoded, and again while a stream is open.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use grpcio::{CheckResult, RpcContext, ServerChecker};

use crate::catalog::Member;
use crate::events::{EventKind, Severity};
use crate::metrics::Metrics;
use crate::replication::addresses::Addresses;
use crate::replication::refusal::{Reason, Refusal};
use crate::replication::refusal_log::RefusalLog;
use crate::security::acl::{Acl, Action};
use crate::security::identity::{Identities, NoIdentity, PeerCaller};
use crate::security::peer_names::PeerName;
use crate::security::peer_rules::PeerRules;
use crate::security::tls::{Authorities, ConnectionCertificate};
use crate::types::{NodeId, NodeName};

/// The permission of an open stream is checked again after this time, and whenever the policy or the rules have
/// changed.
const AGAIN: Duration = Duration::from_secs(60);

/// Accepts callers that have the certificate of a node of this cluster which is not denied, and the permission
/// `replicate`.
#[derive(Clone)]
pub struct PeerGuard {
    identities: Identities,
    authorities: Authorities,
    acl: Acl,
    rules: PeerRules,
    metrics: Arc<Metrics>,
}

/// The peer that makes an accepted call.
pub struct AuthorizedPeer {
    guard: PeerGuard,
    caller: PeerCaller,
    certificate: ConnectionCertificate,
    host: String,
    generation: (u64, u64),
    asked: Instant,
}

impl PeerGuard {
    /// Creates a guard that decides by the certificates, their authorities, the policy and the rules. Callers whose
    /// certificate names another node are counted in `metrics`.
    pub fn new(
        identities: Identities,
        authorities: Authorities,
        acl: Acl,
        rules: PeerRules,
        metrics: Arc<Metrics>,
    ) -> PeerGuard {
        PeerGuard { identities, authorities, acl, rules, metrics }
    }

    /// Accepts or refuses a call.
    ///
    /// # Errors
    /// The refusal, to be sent back.
    pub fn check(&self, ctx: &RpcContext<'_>) -> Result<AuthorizedPeer, Refusal> {
        let caller = self.identities.peer(ctx).map_err(|e| no_peer(&e))?;
        let certificate = self.authorities.certificate_of(ctx).map_err(|e| no_peer(&e))?;
        certificate.check(SystemTime::now()).map_err(|e| no_peer(&e))?;
        let (host, generation) = (host_of(&ctx.peer()).to_owned(), self.generation());
        let peer = AuthorizedPeer { guard: self.clone(), caller, certificate, host, generation, asked: Instant::now() };
        peer.check_permission()?;
        Ok(peer)
    }

    fn generation(&self) -> (u64, u64) {
        (self.acl.generation(), self.rules.generation())
    }
}

impl AuthorizedPeer {
    /// Checks the certificate, and the permission if that check is due.
    ///
    /// # Errors
    /// The refusal, to be sent back.
    pub fn check(&mut self) -> Result<(), Refusal> {
        // The result is cached until the authorities change: the check is cheap enough for each message.
        self.certificate.check(SystemTime::now()).map_err(|e| no_peer(&e))?;
        let generation = self.guard.generation();
        if generation == self.generation && self.asked.elapsed() < AGAIN {
            return Ok(());
        }
        self.generation = generation;
        self.asked = Instant::now();
        self.caller.identity.check(SystemTime::now()).map_err(|e| no_peer(&e))?;
        self.check_permission()
    }

    /// Returns the node that the caller's certificate names.
    pub fn name(&self) -> &PeerName {
        &self.caller.name
    }

    /// Refuses a message if `from` is not a node that the caller's certificate names. If this node does not know
    /// `from` yet, it refuses the message only if the certificate names a node that it knows.
    ///
    /// # Errors
    /// The refusal, to be sent back.
    pub fn speaks_for(&self, from: NodeId, known: &Addresses) -> Result<(), Refusal> {
        match (&self.caller.name, known.name_of(from)) {
            (PeerName::Unproven, _) | (PeerName::Shared, None) => Ok(()),
            (PeerName::Shared, Some(name)) if !self.guard.rules.denies(&name) => Ok(()),
            (PeerName::Shared, Some(name)) => {
                Err(self.refuse(format!("node {name} ({from}) is in peer_deny_file here")))
            }
            (PeerName::Nodes(names), Some(name)) if names.contains(&name) => Ok(()),
            (PeerName::Nodes(_), Some(name)) => Err(self.refuse(format!(
                "the certificate is for {}, and does not speak for {name} ({from})",
                self.caller.name
            ))),
            (PeerName::Nodes(names), None) => match names.iter().find_map(|name| known.id_of(name)) {
                None => Ok(()),
                Some(id) => Err(self.refuse(format!(
                    "the certificate is for {} ({id}), and does not speak for node {from}",
                    self.caller.name
                ))),
            },
        }
    }

    /// Refuses a node that wants to join under a name that its certificate does not contain, or to rename another
    /// member.
    ///
    /// # Errors
    /// The refusal, to be sent back.
    pub fn joins_as(&self, member: &Member, known: &Addresses) -> Result<(), Refusal> {
        match &self.caller.name {
            PeerName::Nodes(names) if !names.contains(&member.name) => Err(self.refuse(format!(
                "the certificate is for {}, and {} ({}) can't join with it",
                self.caller.name, member.name, member.id
            ))),
            // Another member may have that name in the catalog; the leader tells them apart by id.
            PeerName::Nodes(_) if known.name_of(member.id).is_none() => Ok(()),
            PeerName::Unproven | PeerName::Shared | PeerName::Nodes(_) => self.speaks_for(member.id, known),
        }
    }

    /// Refuses a blank node that shows itself under a name that its certificate does not contain.
    ///
    /// # Errors
    /// The refusal, to be sent back.
    pub fn shows_itself_as(&self, name: &NodeName) -> Result<(), Refusal> {
        match &self.caller.name {
            PeerName::Nodes(names) if !names.contains(name) => {
                Err(self.refuse(format!("the certificate is for {}, and not for {name}", self.caller.name)))
            }
            PeerName::Unproven | PeerName::Shared | PeerName::Nodes(_) => Ok(()),
        }
    }

    /// Returns whether the caller's certificate names that member. A mismatch is not counted in the metrics.
    pub fn is(&self, node: NodeId, known: &Addresses) -> bool {
        match &self.caller.name {
            PeerName::Unproven | PeerName::Shared => true,
            PeerName::Nodes(names) => known.name_of(node).is_some_and(|name| names.contains(&name)),
        }
    }

    fn refuse(&self, text: String) -> Refusal {
        self.guard.metrics.peer_name_refused.inc();
        let event = format!("a peer at {} was refused: {text}", self.host);
        self.guard.metrics.registry().events().record(EventKind::Refusal, Severity::Warning, event);
        Refusal::new(Reason::PeerName, text)
    }

    fn check_permission(&self) -> Result<(), Refusal> {
        let checked = self.guard.rules.check(&self.caller.name, &self.host);
        checked.map_err(|text| self.refuse(text))?;
        let principal = &self.caller.identity.principal;
        if self.guard.acl.allows(principal, Acl::EVERY_LOG, Action::Replicate) {
            return Ok(());
        }
        let text =
            format!("{principal} may not replicate: the access policy needs a line \"p, {principal}, *, replicate\"");
        Err(Refusal::new(Reason::NotAllowed, text))
    }
}

/// Returns the host of an address like `ipv4:1.2.3.4:567`. The port differs for each connection.
pub(super) fn host_of(peer: &str) -> &str {
    peer.rsplit_once(':').map_or(peer, |(host, _)| host)
}

fn no_peer(error: &NoIdentity) -> Refusal {
    Refusal::new(Reason::NoPeer, format!("not a peer of this cluster: {error}"))
}

/// Makes gRPC call the guard before it decodes a message of any call.
#[derive(Clone)]
pub(super) struct Checker {
    pub(super) guard: PeerGuard,
    pub(super) refusals: Arc<RefusalLog>,
}

impl ServerChecker for Checker {
    fn check(&mut self, ctx: &RpcContext<'_>) -> CheckResult {
        match self.guard.check(ctx) {
            Ok(_) => CheckResult::Continue,
            Err(refusal) => {
                self.refusals.log(host_of(&ctx.peer()), &refusal);
                CheckResult::Abort(refusal.status())
            }
        }
    }

    fn box_clone(&self) -> Box<dyn ServerChecker> {
        Box::new(self.clone())
    }
}
