//! Authorization. A client's certificate and permissions are checked before its message is received, again for the log that the
//! message names, and repeatedly while its stream is open.

use std::time::{Duration, Instant, SystemTime};

use futures::future::select;
use grpcio::RpcContext;

use super::error::{ApiError, LogScope};
use super::lifecycle::{Lifecycle, Phase};
use crate::security::acl::{Acl, Action};
use crate::security::identity::{Identities, Identity, NoIdentity, Principal};
use crate::security::tls::{Authorities, ConnectionCertificate};
use crate::timers::TimersHandle;
use crate::types::LogName;

/// The time between two checks of an open stream.
const RECHECK_EVERY: Duration = Duration::from_secs(60);

/// The permission that an RPC requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// No permission: an accepted certificate is enough.
    Certificate,
    /// One of these actions on the log that the message names. Before the message is received: on at least one log.
    Log(&'static [Action]),
    /// One of these actions on the log that the message names. If it names none, an accepted certificate is enough.
    LogIfNamed(&'static [Action]),
    /// This action on every log. Before the message is received: on at least one log.
    EveryLog(Action),
}

impl Right {
    /// Returns the actions of which one must be allowed.
    fn actions(&self) -> &[Action] {
        match self {
            Right::Certificate => &[],
            Right::Log(actions) | Right::LogIfNamed(actions) => actions,
            Right::EveryLog(action) => std::slice::from_ref(action),
        }
    }
}

/// Identifies clients and checks their permissions.
#[derive(Clone)]
pub struct AccessControl {
    identities: Identities,
    authorities: Authorities,
    acl: Acl,
}

/// A client with an accepted certificate and a usable name.
#[derive(Clone)]
pub struct ClientAccess {
    identity: Identity,
    certificate: ConnectionCertificate,
    acl: Acl,
}

impl AccessControl {
    /// Creates the checks. `authorities` are those that issue the clients' certificates; `acl` is the access policy.
    pub fn new(identities: Identities, authorities: Authorities, acl: Acl) -> AccessControl {
        AccessControl { identities, authorities, acl }
    }

    /// Returns the certificate of the request's connection.
    ///
    /// # Errors
    /// Those of [`Authorities::certificate_of`].
    pub fn certificate(&self, ctx: &RpcContext<'_>) -> Result<ConnectionCertificate, NoIdentity> {
        self.authorities.certificate_of(ctx)
    }

    /// Returns the client that sends the request, with that certificate.
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`].
    pub fn client(&self, ctx: &RpcContext<'_>, certificate: ConnectionCertificate) -> Result<ClientAccess, ApiError> {
        Ok(ClientAccess { identity: self.identities.client(ctx)?, certificate, acl: self.acl.clone() })
    }

    /// Checks the certificate and the permission, as far as possible before the message is received.
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`], [`ApiError::NotAllowed`].
    pub fn check_before_message(&self, ctx: &RpcContext<'_>, right: Right) -> Result<(), ApiError> {
        let certificate = self.certificate(ctx)?;
        match right {
            Right::Certificate | Right::LogIfNamed(_) => Ok(certificate.check(SystemTime::now())?),
            Right::Log(_) | Right::EveryLog(_) => self.client(ctx, certificate)?.check_any_log(right),
        }
    }
}

impl ClientAccess {
    /// Returns the name that the policy and the limits use.
    pub fn principal(&self) -> &Principal {
        &self.identity.principal
    }

    /// Returns whether the client may perform at least one of the actions on a log.
    pub fn allows_one_of(&self, actions: &[Action], log: &LogName) -> bool {
        actions.iter().any(|action| self.acl.allows(self.principal(), log.as_str(), *action))
    }

    /// Returns what the policy allows to the client: patterns of logs, and actions.
    pub fn permissions(&self) -> Vec<(String, Action)> {
        self.acl.permissions(self.principal())
    }

    fn check_certificate(&self) -> Result<(), ApiError> {
        let now = SystemTime::now();
        self.certificate.check(now)?;
        Ok(self.identity.check(now)?)
    }

    /// Checks the certificate, and the permission on at least one log.
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`], [`ApiError::NotAllowed`].
    pub fn check_any_log(&self, right: Right) -> Result<(), ApiError> {
        self.check(right, LogScope::Any, |action| self.acl.allows_some(self.principal(), action))
    }

    /// Checks the certificate, and the permission on a log.
    ///
    /// # Errors
    /// Those of [`ClientAccess::check_any_log`].
    pub fn check_log(&self, right: Right, log: &LogName) -> Result<(), ApiError> {
        self.check(right, LogScope::One(log.clone()), |action| self.acl.allows(self.principal(), log.as_str(), action))
    }

    /// Checks the certificate, and the permission on every log.
    ///
    /// # Errors
    /// Those of [`ClientAccess::check_any_log`].
    pub fn check_every_log(&self, right: Right) -> Result<(), ApiError> {
        self.check(right, LogScope::Every, |action| self.acl.allows(self.principal(), Acl::EVERY_LOG, action))
    }

    fn check(&self, right: Right, log: LogScope, allows: impl Fn(Action) -> bool) -> Result<(), ApiError> {
        self.check_certificate()?;
        match right.actions() {
            [] => Ok(()),
            actions if actions.iter().any(|action| allows(*action)) => Ok(()),
            [action, ..] => Err(ApiError::NotAllowed { principal: self.principal().clone(), log, action: *action }),
        }
    }

    /// Resolves, with the reason, when an open stream must end: its certificate or its permission is no longer accepted, or the
    /// node stops. `log` is `None` until a message has named the log.
    pub async fn must_end(
        self,
        right: Right,
        log: Option<LogName>,
        lifecycle: Lifecycle,
        timers: TimersHandle,
    ) -> ApiError {
        let mut seen = lifecycle.now();
        loop {
            if seen.phase == Phase::Stopping {
                return ApiError::Stopping;
            }
            let allowed = match &log {
                Some(log) => self.check_log(right, log),
                None => self.check_any_log(right),
            };
            if let Err(error) = allowed {
                return error;
            }
            select(lifecycle.changed(seen), timers.at(next_check(self.identity.expires))).await;
            seen = lifecycle.now();
        }
    }
}

/// Returns when an open stream is checked again: when its certificate expires, but at the latest after `RECHECK_EVERY`.
pub fn next_check(expires: Option<SystemTime>) -> Instant {
    let left = expires.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
    // A moment later, so that the certificate has expired when it is checked.
    let left = left.map(|left| left + Duration::from_millis(1));
    Instant::now() + left.map_or(RECHECK_EVERY, |left| left.min(RECHECK_EVERY))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSUME: Right = Right::Log(&[Action::Consume]);

    fn client(policy: &str, expires: Option<SystemTime>) -> ClientAccess {
        let identity = Identity { principal: Principal::anonymous(), expires };
        ClientAccess {
            identity,
            certificate: ConnectionCertificate::default(),
            acl: Acl::from_text(policy).expect("a policy"),
        }
    }

    #[test]
    fn an_open_stream_ends_when_its_certificate_expires() {
        let (fatal, _failures) = crate::thread::fatal_channel();
        let timers = crate::timers::Timers::start(&fatal).expect("a thread");
        let expires = SystemTime::now() + Duration::from_millis(50);
        let client = client("p, anonymous, *, consume", Some(expires));
        let log = LogName::new("").expect("a name");
        assert_eq!(client.check_log(CONSUME, &log), Ok(()));
        assert!(client.check_log(Right::Log(&[Action::Produce]), &log).is_err());
        let end = client.must_end(CONSUME, Some(log), Lifecycle::default(), timers.handle());
        let error = futures::executor::block_on(end);
        assert!(matches!(error, ApiError::NoIdentity(_)), "{error:?}");
        assert!(SystemTime::now() >= expires);
    }

    #[test]
    fn one_of_several_actions_is_enough_and_no_action_needs_no_line_in_the_policy() {
        let client = client("p, anonymous, a, produce", None);
        let (a, b) = (LogName::new("a").expect("a name"), LogName::new("b").expect("a name"));
        let any = Right::Log(&[Action::Consume, Action::Produce]);
        assert_eq!((client.check_log(any, &a), client.check_any_log(any)), (Ok(()), Ok(())));
        let not_allowed = |log, action| Err(ApiError::NotAllowed { principal: Principal::anonymous(), log, action });
        assert_eq!(client.check_log(any, &b), not_allowed(LogScope::One(b.clone()), Action::Consume));
        assert_eq!(client.check_any_log(CONSUME), not_allowed(LogScope::Any, Action::Consume));
        let every = Right::EveryLog(Action::Produce);
        assert_eq!(client.check_any_log(every), Ok(()));
        assert_eq!(client.check_every_log(every), not_allowed(LogScope::Every, Action::Produce));
        assert_eq!(client.check_log(Right::Certificate, &b), Ok(()));
    }
}
