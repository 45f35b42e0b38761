//! The names by which browsers may address the listener.
//!
//! A website can make its own name point at an address of this host (DNS rebinding). Its scripts could then read every
//! response, because for the browser the listener is a part of that website. Such a request names the website in its
//! `Host` header, so requests for unknown names are refused.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

/// The accepted names, in lower case. IP addresses and `localhost` are always accepted: no website has them as its name.
#[derive(Clone, Debug, Default)]
pub struct Hosts(BTreeSet<String>);

impl Hosts {
    /// Accepts these names, too. Empty ones are skipped.
    pub fn new(names: impl IntoIterator<Item = String>) -> Hosts {
        Hosts(names.into_iter().map(|name| normal(&name)).filter(|name| !name.is_empty()).collect())
    }

    /// Returns true if a request with this `Host` header is accepted: `host` or `host:port`.
    pub fn accept(&self, header: &str) -> bool {
        let Some(host) = host_of(header) else { return false };
        if let Some(v6) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            return v6.parse::<Ipv6Addr>().is_ok();
        }
        let name = normal(host);
        host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) || name == "localhost" || self.0.contains(&name)
    }
}

/// Returns the host of an address `host:port`, for example of an advertised one.
pub fn host_of(addr: &str) -> Option<&str> {
    match addr.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            let is_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
            (is_port && (!host.contains(':') || host.starts_with('['))).then_some(host)
        }
        _ => Some(addr),
    }
}

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_addresses_and_known_names_only() {
        let hosts = Hosts::new(["Node-1.example".to_owned(), String::new()]);
        for good in [
            "127.0.0.1",
            "127.0.0.1:8402",
            "10.1.2.3:80",
            "[::1]",
            "[::1]:8402",
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "node-1.example",
            "NODE-1.example:8402",
            "node-1.example.",
        ] {
            assert!(hosts.accept(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "evil.example:8402",
            "localhost.evil.example",
            "node-1",
            "127.0.0.1.evil.example",
            "::1",
            "127.0.0.1:",
            "127.0.0.1:x",
            "[::1",
            "[evil]",
            "127.0.0.1@evil.example",
            "localhost:80:80",
            "1:2:3",
            "2130706433",
        ] {
            assert!(!hosts.accept(bad), "{bad}");
        }
    }
}
