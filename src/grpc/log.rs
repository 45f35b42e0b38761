//! Sends the C core's log to ours: why a handshake failed is written nowhere else.
//!
//! A host that can open connections can make the C core write, so each place in it may write a limited number of
//! lines; the next line says how many were left out. What it calls an error is a warning here: it has handled it.

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

/// The C core has one log for the process, and so one limiter.
static LIMITER: OnceLock<Mutex<LineLimit<(usize, i32)>>> = OnceLock::new();

/// Sends what the C core logs to our log. Called once, after the process's logger is set: its level is used.
pub fn redirect_log() {
    let severity = match log::max_level() {
        LevelFilter::Off | LevelFilter::Error | LevelFilter::Warn | LevelFilter::Info => {
            gpr_log_severity::GPR_LOG_SEVERITY_ERROR
        }
        LevelFilter::Debug => gpr_log_severity::GPR_LOG_SEVERITY_INFO,
        LevelFilter::Trace => gpr_log_severity::GPR_LOG_SEVERITY_DEBUG,
    };
    // SAFETY: both set atomics; the function lives as long as the program.
    unsafe {
        gpr_set_log_verbosity(severity);
        gpr_set_log_function(Some(write));
    }
}

/// Called by the C core on any thread, also with its locks held.
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
        Some(hidden) => {
            log::log!(target: TARGET, level, "{} (and {hidden} lines like it before, not shown)", explain(&message));
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
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(message) }.to_string_lossy().trim_end().to_owned()
}

/// Adds what the C core does not write: OpenSSL's reason, and the connection of a handshake.
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
