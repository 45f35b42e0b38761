//! Who calls, and whether they may: before a message is looked at, before a log is looked up, and while a stream is open.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::future::select;
use grpcio::{CheckResult, RpcContext, RpcStatus, RpcStatusCode, ServerChecker};

use super::errors::ApiError;
use super::methods::name;
use super::refusals::count;
use super::state::{Phase, Seen, State};
use crate::grpc::guarded;
use crate::metrics::Metrics;
use crate::security::acl::{Acl, Action};
use crate::security::identity::{Identities, Identity, NoIdentity, Principal};
use crate::security::tls::{Authorities, Standing};
use crate::thread::FatalSender;
use crate::timers::TimersHandle;
use crate::types::LogName;

/// An open stream's rights are checked again after this long.
const RECHECK_EVERY: Duration = Duration::from_secs(60);

/// Tells callers and rights.
#[derive(Clone)]
pub struct Access {
    identities: Identities,
    authorities: Authorities,
    acl: Acl,
}

/// Somebody with an accepted certificate and a usable name.
#[derive(Clone)]
pub struct Caller {
    identity: Identity,
    standing: Standing,
    acl: Acl,
}

/// The logs that somebody wanted to do something with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Any log at all.
    Any,
    /// All of them: only a line for `*` gives that.
    Every,
    /// This one.
    One(LogName),
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::Any => f.write_str("any log"),
            Which::Every => f.write_str("every log (`*` in the policy)"),
            Which::One(log) => write!(f, "the log {log}"),
        }
    }
}

/// What a method needs before its message is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// A certificate that would be accepted now.
    Certificate,
    /// One of these actions, with any log.
    AnyOf(&'static [Action]),
}

fn needs(method: &[u8]) -> Needs {
    const LOOK: &[Action] = &[Action::Consume, Action::Produce, Action::Admin];
    match std::str::from_utf8(method).unwrap_or_default() {
        name::PRODUCE | name::PRODUCE_STREAM => Needs::AnyOf(&[Action::Produce]),
        name::CONSUME | name::CONSUME_STREAM => Needs::AnyOf(&[Action::Consume]),
        name::GET_LOG => Needs::AnyOf(LOOK),
        name::GET_SERVERS | name::HEALTH_CHECK | name::HEALTH_WATCH => Needs::Certificate,
        // The methods of Admin, and whatever is added without a line here.
        _ => Needs::AnyOf(&[Action::Admin]),
    }
}

impl Access {
    /// Asks these.
    pub fn new(identities: Identities, authorities: Authorities, acl: Acl) -> Access {
        Access { identities, authorities, acl }
    }

    /// The certificate of this call's connection.
    ///
    /// # Errors
    /// As [`Authorities::standing`].
    pub fn standing(&self, ctx: &RpcContext<'_>) -> Result<Standing, NoIdentity> {
        self.authorities.standing(ctx)
    }

    /// Who makes this call, with that certificate.
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`].
    pub fn caller(&self, ctx: &RpcContext<'_>, standing: Standing) -> Result<Caller, ApiError> {
        Ok(Caller { identity: self.identities.client(ctx)?, standing, acl: self.acl.clone() })
    }

    fn may_call(&self, ctx: &RpcContext<'_>) -> Result<(), ApiError> {
        let standing = self.standing(ctx)?;
        match needs(ctx.method()) {
            Needs::Certificate => Ok(standing.check(SystemTime::now())?),
            Needs::AnyOf(actions) => self.caller(ctx, standing)?.check_some(actions),
        }
    }
}

impl Caller {
    /// The name for policy and limits.
    pub fn principal(&self) -> &Principal {
        &self.identity.principal
    }

    fn check_certificate(&self) -> Result<(), ApiError> {
        let now = SystemTime::now();
        self.standing.check(now)?;
        Ok(self.identity.check(now)?)
    }

    fn check_some(&self, actions: &[Action]) -> Result<(), ApiError> {
        self.check_certificate()?;
        if actions.iter().any(|action| self.acl.allows_some(self.principal(), *action)) {
            return Ok(());
        }
        let action = actions.first().copied().unwrap_or(Action::Admin);
        Err(ApiError::NotAllowed { principal: self.principal().clone(), log: Which::Any, action })
    }

    /// Checks the certificate and one of the rights.
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`], [`ApiError::NotAllowed`].
    pub fn check_any(&self, log: &LogName, actions: &[Action]) -> Result<(), ApiError> {
        self.check_certificate()?;
        if actions.iter().any(|action| self.acl.allows(self.principal(), log.as_str(), *action)) {
            return Ok(());
        }
        let action = actions.first().copied().unwrap_or(Action::Admin);
        Err(ApiError::NotAllowed { principal: self.principal().clone(), log: Which::One(log.clone()), action })
    }

    /// Checks the certificate and the right.
    ///
    /// # Errors
    /// As [`Caller::check_any`].
    pub fn check(&self, log: &LogName, action: Action) -> Result<(), ApiError> {
        self.check_any(log, &[action])
    }

    /// Checks a right that belongs to no single log.
    ///
    /// # Errors
    /// As [`Caller::check_any`].
    pub fn check_every_log(&self, action: Action) -> Result<(), ApiError> {
        self.check_certificate()?;
        if self.acl.allows(self.principal(), Acl::EVERY_LOG, action) {
            return Ok(());
        }
        Err(ApiError::NotAllowed { principal: self.principal().clone(), log: Which::Every, action })
    }

    /// Resolves when an open stream has to end: the right or the certificate is gone, or the node stops.
    /// Without a log: the right to any.
    pub async fn broken(self, log: Option<LogName>, action: Action, state: State, timers: TimersHandle) -> ApiError {
        let mut seen: Seen = state.now();
        loop {
            if seen.phase == Phase::Stopping {
                return ApiError::Stopping;
            }
            let allowed = match &log {
                Some(log) => self.check(log, action),
                None => self.check_some(&[action]),
            };
            if let Err(error) = allowed {
                return error;
            }
            select(state.changed(seen), timers.at(next_look(self.identity.expires))).await;
            seen = state.now();
        }
    }
}

/// When the certificate of an open stream, and a right, are checked again: when the certificate expires, at the latest after
/// `RECHECK_EVERY`.
pub fn next_look(expires: Option<SystemTime>) -> Instant {
    let left = expires.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
    // A moment behind the end, so that the look finds it passed.
    let left = left.map(|left| left + Duration::from_millis(1));
    Instant::now() + left.map_or(RECHECK_EVERY, |left| left.min(RECHECK_EVERY))
}

/// Refuses a call before its message is decoded.
#[derive(Clone)]
pub struct Guard {
    access: Access,
    metrics: Arc<Metrics>,
    fatal: FatalSender,
}

impl Guard {
    /// Asks `access`.
    pub fn new(access: Access, metrics: Arc<Metrics>, fatal: FatalSender) -> Guard {
        Guard { access, metrics, fatal }
    }
}

impl ServerChecker for Guard {
    fn check(&mut self, ctx: &RpcContext<'_>) -> CheckResult {
        match guarded(&self.fatal, || self.access.may_call(ctx)) {
            Some(Ok(())) => CheckResult::Continue,
            // gRPC's binding sends a refusal without the details.
            Some(Err(error)) => {
                count(&self.metrics, &error);
                CheckResult::Abort(error.status())
            }
            None => CheckResult::Abort(RpcStatus::new(RpcStatusCode::INTERNAL)),
        }
    }

    fn box_clone(&self) -> Box<dyn ServerChecker> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_stream_ends_when_its_certificate_does() {
        let (fatal, _failures) = crate::thread::fatal_channel();
        let timers = crate::timers::Timers::start(&fatal).expect("a thread");
        let expires = SystemTime::now() + Duration::from_millis(50);
        let identity = Identity { principal: Principal::anonymous(), expires: Some(expires) };
        let standing = Standing::default();
        let caller = Caller { identity, standing, acl: Acl::from_text("p, anonymous, *, consume").expect("a policy") };
        let log = LogName::new("").expect("a name");
        assert_eq!(caller.check(&log, Action::Consume), Ok(()));
        assert!(caller.check(&log, Action::Produce).is_err());
        let broken = caller.broken(Some(log), Action::Consume, State::default(), timers.handle());
        let error = futures::executor::block_on(broken);
        assert!(matches!(error, ApiError::NoIdentity(_)), "{error:?}");
        assert!(SystemTime::now() >= expires);
    }

    #[test]
    fn each_method_needs_its_right() {
        assert_eq!(needs(b"/log.v1.Log/Produce"), Needs::AnyOf(&[Action::Produce]));
        assert_eq!(needs(b"/log.v1.Log/ConsumeStream"), Needs::AnyOf(&[Action::Consume]));
        assert_eq!(needs(b"/log.v1.Log/GetServers"), Needs::Certificate);
        assert_eq!(needs(b"/seriatim.v1.Admin/Trim"), Needs::AnyOf(&[Action::Admin]));
        assert_eq!(needs(b"/seriatim.v1.Admin/SomethingNew"), Needs::AnyOf(&[Action::Admin]));
        assert_eq!(needs(&[0xff]), Needs::AnyOf(&[Action::Admin]));
    }
}
