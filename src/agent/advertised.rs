//! Finds the address to advertise if the node listens on all addresses: that under which `join` lists this host, or else the
//! only one that it has. So all hosts of a cluster can have the same configuration file.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::config::host_name;

/// What is known about this host, to find its address. By default nothing, for addresses that need not be found.
#[derive(Default)]
pub(super) struct Host {
    /// Its addresses, of interfaces that are up.
    ips: Vec<IpAddr>,
    /// Its name, as `uname -n` prints it.
    name: String,
    /// The part of `join` that names this host and its peer listener: `10.0.0.1` for `10.0.0.1:8401`.
    in_join: Option<String>,
}

impl Host {
    /// Looks at the network interfaces of this host, and for the first entry of `join` that names it. `peer_port` is the
    /// port of its peer listener: an entry with another port may be another node on this host.
    pub fn find(join: &[String], peer_port: u16) -> io::Result<Host> {
        let interfaces = if_addrs::get_if_addrs()?;
        let ips = interfaces.iter().filter(|interface| interface.is_oper_up()).map(|i| i.ip()).collect();
        Ok(Host::of(ips, host_name(), join, peer_port))
    }

    fn of(ips: Vec<IpAddr>, name: String, join: &[String], peer_port: u16) -> Host {
        let mut host = Host { ips, name, in_join: None };
        let hosts = join.iter().filter_map(|entry| entry.rsplit_once(':'));
        let hosts = hosts.filter(|(_, port)| port.parse() == Ok(peer_port)).map(|(name, _)| name);
        host.in_join = hosts.into_iter().find(|name| host.is_named(name)).map(str::to_owned);
        host
    }

    /// Returns whether `name`, an entry of `join` without its port, is an address or the name of this host.
    fn is_named(&self, name: &str) -> bool {
        let in_brackets = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        match in_brackets.unwrap_or(name).parse::<IpAddr>() {
            Ok(ip) => !ip.is_loopback() && self.ips.contains(&ip),
            Err(_) => {
                // The kernel's name is often the first label only, and DNS ignores case and a dot at the end.
                let (full, own) = (name.trim_end_matches('.'), self.name.trim_end_matches('.'));
                let first = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
                let is_short = !full.contains('.') || !own.contains('.');
                !own.is_empty()
                    && (full.eq_ignore_ascii_case(own) || is_short && first(full).eq_ignore_ascii_case(&first(own)))
            }
        }
    }

    /// Returns the address at which other hosts reach a listener, if the configuration names none. `listens` is its
    /// actual address.
    ///
    /// # Errors
    /// Why none was found; the text follows the name of the option with which one can be named.
    pub fn to_advertise(&self, listens: SocketAddr) -> Result<String, String> {
        if !listens.ip().is_unspecified() {
            return Ok(listens.to_string());
        }
        if let Some(name) = &self.in_join {
            return Ok(format!("{name}:{}", listens.port()));
        }
        only_address(&self.ips, listens.is_ipv4()).map(|ip| SocketAddr::new(ip, listens.port()).to_string())
    }
}

/// Returns the only address of the host by which other hosts may reach it. An IPv6 listener on all addresses accepts
/// IPv4, too, but an IPv4 address is used only if the host lacks one of IPv6.
fn only_address(ips: &[IpAddr], prefers_v4: bool) -> Result<IpAddr, String> {
    let is_usable = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified() && !prefers_v4,
    };
    let usable: BTreeSet<IpAddr> = ips.iter().copied().filter(is_usable).collect();
    let preferred: BTreeSet<IpAddr> = usable.iter().copied().filter(|ip| ip.is_ipv4() == prefers_v4).collect();
    let found = if preferred.is_empty() { usable } else { preferred };
    let mut all = found.iter();
    match (all.next(), all.next()) {
        (Some(ip), None) => Ok(*ip),
        (None, _) => {
            Err("is missing: the node listens on all addresses, but this host has none that others reach".to_owned())
        }
        (Some(_), Some(_)) => {
            let all = found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
            Err(format!(
                "is missing: the node listens on all addresses, this host has several ({all}), and join contains none of \
                 them with the port of bind_addr, nor the name of this host; add this host to join, the list of all \
                 hosts, or set this option"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_one_address_advertises_it() {
        let ips = |texts: &[&str]| texts.iter().map(|ip| ip.parse().expect("an address")).collect::<Vec<IpAddr>>();
        let v4 = |texts: &[&str]| only_address(&ips(texts), true).map(|ip| ip.to_string());
        let common = ["127.0.0.1", "::1", "fe80::1", "169.254.1.1", "10.0.0.1", "2001:db8::1"];
        assert_eq!(v4(&common), Ok("10.0.0.1".to_owned()));
        assert_eq!(only_address(&ips(&common), false).map(|ip| ip.to_string()), Ok("2001:db8::1".to_owned()));
        assert_eq!(only_address(&ips(&["10.0.0.1"]), false).map(|ip| ip.to_string()), Ok("10.0.0.1".to_owned()));
        let several = v4(&["10.0.0.1", "172.17.0.1"]).expect_err("several");
        assert!(
            several.contains("several (10.0.0.1, 172.17.0.1)") && several.contains("add this host to join"),
            "{several}"
        );
        assert!(v4(&["127.0.0.1", "2001:db8::1"]).expect_err("none").contains("has none"));
        let host = Host::of(Vec::new(), "n1".to_owned(), &["n1:8401".to_owned()], 8401);
        let named = host.to_advertise(SocketAddr::from(([10, 0, 0, 7], 8401)));
        assert_eq!(named.expect("an address"), "10.0.0.7:8401");
    }

    /// Three hosts needed three files, or one address each: any host with a second interface, for example that of a
    /// container runtime, refused to start with the shared file.
    #[test]
    fn a_host_with_several_addresses_advertises_the_one_in_join() {
        let host = |name: &str, join: &[&str]| {
            let ips = ["127.0.0.1", "10.0.0.2", "172.17.0.1", "2001:db8::2"].map(|ip| ip.parse().expect("an address"));
            let join: Vec<String> = join.iter().map(|entry| (*entry).to_owned()).collect();
            Host::of(ips.to_vec(), name.to_owned(), &join, 8401)
        };
        let all = |port: u16| SocketAddr::from(([0, 0, 0, 0], port));
        let advertised = |name: &str, join: &[&str]| {
            let host = host(name, join);
            let (peers, clients) = (host.to_advertise(all(8401)), host.to_advertise(all(8400)));
            Some((peers.ok()?, clients.ok()?))
        };
        let both = |host: &str| Some((format!("{host}:8401"), format!("{host}:8400")));
        assert_eq!(advertised("n2", &["10.0.0.1:8401", "10.0.0.2:8401", "10.0.0.3:8401"]), both("10.0.0.2"));
        assert_eq!(advertised("n2", &["n1.example:8401", "N2.example.:8401"]), both("N2.example."));
        assert_eq!(advertised("n2.example", &["n1:8401", "n2:8401"]), both("n2"));
        assert_eq!(advertised("n2", &["[2001:db8::1]:8401", "[2001:db8::2]:8401"]), both("[2001:db8::2]"));
        assert_eq!(advertised("n2", &["n2:8401", "10.0.0.2:8401"]), both("n2"), "the first one");
        for (name, join) in [
            ("n2", &["10.0.0.1:8401", "127.0.0.1:8401", "n1:8401", "n22:8401"][..]),
            // Another node on this host.
            ("n2", &["10.0.0.2:8411", "n2:8411"]),
            ("n2.example", &["n2.other.example:8401"]),
            ("", &["n2:8401", "example:8401"]),
            ("n2", &[]),
        ] {
            assert_eq!(advertised(name, join), None, "{name} {join:?}");
        }
    }
}
