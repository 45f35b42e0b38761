//! Checks the name of a cluster, and reads the name of this host.

use std::fs;

/// Checks the name of a cluster. It must be a valid label of a host name, because peer certificates contain
/// `peer.<cluster>.seriatim.internal`.
///
/// # Errors
/// The reason why it is refused.
pub fn check_cluster_name(name: &str) -> Result<(), String> {
    let good = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if good {
        Ok(())
    } else {
        Err(format!("{name:?} is not a valid cluster name: use 1 to 63 of a-z 0-9 -, not starting or ending with -"))
    }
}

/// Returns the name of this host; empty if it can't be read.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Returns true for the name of a host in the DNS or in `/etc/hosts`.
pub(super) fn is_host_name(name: &str) -> bool {
    let label = |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253 && name.split('.').all(label)
}
