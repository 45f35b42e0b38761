//! Checks addresses that other nodes and clients dial: `host:port`.

use std::net::{IpAddr, Ipv4Addr};

use super::names::is_host_name;

/// Checks an address to dial, and adds `default_port` if it has no port.
///
/// # Errors
/// The reason why it is refused.
pub fn host_port(addr: &str, default_port: u16) -> Result<String, String> {
    let with_port = format!("{addr}:{default_port}");
    // A colon precedes a port, unless it is part of an IPv6 address in brackets.
    if (!addr.contains(':') || addr.ends_with(']')) && check_host_port(&with_port, default_port).is_ok() {
        return Ok(with_port);
    }
    check_host_port(addr, default_port).map(|()| addr.to_owned())
}

/// Checks an address that must contain a port; `example_port` is for the error message.
///
/// # Errors
/// The reason why it is refused.
pub fn check_host_port(addr: &str, example_port: u16) -> Result<(), String> {
    let wrong = || format!("{addr:?} is not a host and a port, like node-1.example:{example_port}");
    let (host, port) = addr.rsplit_once(':').ok_or_else(wrong)?;
    if port.parse::<u16>().ok().is_none_or(|p| p == 0) {
        return Err(wrong());
    }
    let ip = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => Some(IpAddr::V6(v6.parse().map_err(|_| wrong())?)),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    match ip {
        Some(ip) if ip.is_unspecified() => Err(format!("{addr} can't be dialled: it means every address of a host")),
        Some(_) => Ok(()),
        None if is_host_name(host) => Ok(()),
        None => Err(wrong()),
    }
}
