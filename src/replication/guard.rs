//! Who may be a peer at all: decided at every call, before a byte of it is looked at, and again while a stream stays open.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use grpcio::{CheckResult, RpcContext, ServerChecker};

use crate::replication::refusal::{Rarely, Reason, Refusal};
use crate::security::acl::{Acl, Action};
use crate::security::identity::{Identities, Identity, NoIdentity};
use crate::security::tls::{Authorities, Standing};

/// An open stream is asked again after this long, and whenever the policy has changed.
const AGAIN: Duration = Duration::from_secs(60);

/// Lets peers in: a certificate with the cluster's peer name and the right `replicate`.
#[derive(Clone)]
pub struct Guard {
    identities: Identities,
    authorities: Authorities,
    acl: Acl,
}

/// A stream that was let in.
pub struct Pass {
    guard: Guard,
    identity: Identity,
    standing: Standing,
    generation: u64,
    asked: Instant,
}

impl Guard {
    /// Decides by the certificates and the policy.
    pub fn new(identities: Identities, authorities: Authorities, acl: Acl) -> Guard {
        Guard { identities, authorities, acl }
    }

    /// Lets a call in, or refuses it.
    ///
    /// # Errors
    /// The refusal, to be sent back.
    pub fn check(&self, ctx: &RpcContext<'_>) -> Result<Pass, Refusal> {
        let identity = self.identities.peer(ctx).map_err(|e| no_peer(&e))?;
        let standing = self.authorities.standing(ctx).map_err(|e| no_peer(&e))?;
        standing.check(SystemTime::now()).map_err(|e| no_peer(&e))?;
        let generation = self.acl.generation();
        let pass = Pass { guard: self.clone(), identity, standing, generation, asked: Instant::now() };
        pass.check_right()?;
        Ok(pass)
    }
}

impl Pass {
    /// Looks at the certificate, and asks for the right again if it is time to.
    ///
    /// # Errors
    /// The refusal, to be sent back.
    pub fn check(&mut self) -> Result<(), Refusal> {
        // Remembered until the authorities change, so that it costs nothing for each message.
        self.standing.check(SystemTime::now()).map_err(|e| no_peer(&e))?;
        let generation = self.guard.acl.generation();
        if generation == self.generation && self.asked.elapsed() < AGAIN {
            return Ok(());
        }
        self.generation = generation;
        self.asked = Instant::now();
        self.identity.check(SystemTime::now()).map_err(|e| no_peer(&e))?;
        self.check_right()
    }

    fn check_right(&self) -> Result<(), Refusal> {
        let principal = &self.identity.principal;
        if self.guard.acl.allows(principal, Acl::EVERY_LOG, Action::Replicate) {
            return Ok(());
        }
        let text =
            format!("{principal} may not replicate: the access policy needs a line \"p, {principal}, *, replicate\"");
        Err(Refusal::new(Reason::NotAllowed, text))
    }
}

/// The host of `ipv4:1.2.3.4:567`: a port is another one each time.
pub(super) fn host_of(peer: &str) -> &str {
    peer.rsplit_once(':').map_or(peer, |(host, _)| host)
}

fn no_peer(error: &NoIdentity) -> Refusal {
    Refusal::new(Reason::NoPeer, format!("no peer of this cluster: {error}"))
}

/// Asks the guard before a message of any call is decoded.
#[derive(Clone)]
pub(super) struct Checker {
    pub(super) guard: Guard,
    pub(super) refusals: Arc<Rarely>,
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
