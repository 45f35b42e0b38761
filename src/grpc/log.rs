//! Forwards the C core's log to this process's log: the reason for a failed handshake is reported nowhere else.
//!
//! Any host that can open connections can make the C core log. So each of its log statements may write a limited
//! number of lines; the next line says how many were suppressed. The C core's errors are logged as warnings, because
//! it has handled them.

use std::ffi::{CStr, c_char};
use std::sync::OnceLock;
use std::time::Instant;

use grpcio_sys::{gpr_log_func_args, gpr_log_severity, gpr_set_log_function, gpr_set_log_verbosity};
use log::{Level, LevelFilter};
use parking_lot::Mutex;

use super::handshakes;
use crate::line_limit::LineLimit;

/// The target of these lines in our log.
pub const TARGET: &str = "grpc";

/// The C core has one log per process, so one limiter is enough.
static LIMITER: OnceLock<Mutex<LineLimit<(usize, i32)>>> = OnceLock::new();

/// Forwards the C core's log. Must be called once, after the process's logger is set, whose level it uses.
pub fn redirect_log() {
    let severity = match log::max_level() {
        LevelFilter::Off | LevelFilter::Error | LevelFilter::Warn | LevelFilter::Info => {
            gpr_log_severity::GPR_LOG_SEVERITY_ERROR
        }
        LevelFilter::Debug => gpr_log_severity::GPR_LOG_SEVERITY_INFO,
        LevelFilter::Trace => gpr_log_severity::GPR_LOG_SEVERITY_DEBUG,
    };
    // SAFETY: both functions only set atomics, and `write` lives as long as the program.
    unsafe {
        gpr_set_log_verbosity(severity);
        gpr_set_log_function(Some(write));
    }
}

/// Called by the C core on any thread, possibly while it holds locks.
unsafe extern "C" fn write(args: *mut gpr_log_func_args) {
    // SAFETY: the C core passes a valid pointer, and strings that outlive the call.
    let (file, line, severity, message) = unsafe {
        let args = &*args;
        (args.file, args.line, args.severity, text(args.message))
    };
    let level = match severity {
        gpr_log_severity::GPR_LOG_SEVERITY_ERROR => Level::Warn,
        gpr_log_severity::GPR_LOG_SEVERITY_INFO => Level::Debug,
        gpr_log_severity::GPR_LOG_SEVERITY_DEBUG => Level::Trace,
    };
    if !log::log_enabled!(target: TARGET, level) {
        return;
    }
    let limiter = LIMITER.get_or_init(Mutex::default);
    let admitted = limiter.lock().admit((file as usize, line), Instant::now());
    match admitted {
        Some(0) => log::log!(target: TARGET, level, "{}", explain(&message)),
        Some(skipped) => {
            log::log!(target: TARGET, level, "{} (and {skipped} lines like it before, not shown)", explain(&message));
        }
        None => {}
    }
}

/// # Safety
/// `message` is null or a C string.
unsafe fn text(message: *const c_char) -> String {
    if message.is_null() {
        return String::new();
    }
    // SAFETY: the caller guarantees it.
    unsafe { CStr::from_ptr(message) }.to_string_lossy().trim_end().to_owned()
}

/// Adds what the C core does not log: the possible reasons for a rejected certificate, and the connection whose
/// handshake failed.
fn explain(message: &str) -> String {
    let mut more = Vec::new();
    if message.contains("certificate verify failed") {
        let may_be = "the other side's certificate was issued by another authority, has expired, is not valid yet (check this \
                      clock), or is not for this use";
        more.push(may_be.to_owned());
    }
    if message.contains("Handshake failed") {
        more.extend(handshakes::suspects());
    }
    if more.is_empty() { message.to_owned() } else { format!("{message} ({})", more.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explains_a_rejected_certificate() {
        let message =
            "Handshake failed with fatal error SSL_ERROR_SSL: error:0A000086:SSL routines::certificate verify failed.";
        assert!(explain(message).contains("or is not for this use"));
        assert_eq!(explain("something else"), "something else");
    }
}
