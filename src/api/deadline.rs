//! The deadline of a request, as an instant of the monotonic clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use grpcio::{Deadline, RpcContext};

/// A later deadline is ignored.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// gRPC's `gpr_timespec`, the only field of a [`Deadline`].
#[repr(C)]
#[derive(Clone, Copy)]
struct Timespec {
    seconds: i64,
    nanos: i32,
    clock: u32,
}

const _: () = assert!(size_of::<Deadline>() == size_of::<Timespec>());
const _: () = assert!(align_of::<Deadline>() == align_of::<Timespec>());

/// Returns the request's deadline, if it has one.
pub fn of(ctx: &RpcContext<'_>) -> Option<Instant> {
    moment(ctx.deadline())
}

fn moment(deadline: Deadline) -> Option<Instant> {
    if deadline.exceeded() {
        return Some(Instant::now());
    }
    // SAFETY: size and alignment are equal and every bit pattern of the target is valid. `grpcio` has no accessor for the
    // value. If its only field ever changes, the test below fails.
    let at: Timespec = unsafe { std::mem::transmute(deadline) };
    let since_epoch = Duration::new(u64::try_from(at.seconds).ok()?, u32::try_from(at.nanos).ok()?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let left = since_epoch.saturating_sub(now);
    (left < FAR).then(|| Instant::now() + left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_deadline_that_grpcio_was_given() {
        let now = Instant::now();
        let at = moment(Deadline::from(Duration::from_secs(100))).expect("a deadline");
        let left = at - now;
        assert!(left > Duration::from_secs(99) && left < Duration::from_secs(101), "{left:?}");
        assert!(moment(Deadline::from(Duration::from_secs(0))).expect("passed") <= Instant::now());
        assert_eq!(moment(Deadline::from(Duration::from_secs(u64::MAX / 4))), None);
    }
}
