//! Network namespaces on one bridge: each is a host with an address of its own, and its link can be cut.
//!
//! Needs root and `ip`; otherwise [`bridge`] prints that its test is skipped. `SERIATIM_TEST_NETNS=required` (CI) makes that
//! a failure.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::harness::{Node, NodeOptions, Site, print_uncaptured};

/// Creates the namespaces. Returns `None` if this process can't create them, and prints that `what` is skipped.
pub fn bridge(what: &str, namespaces: usize) -> Option<Bridge> {
    match Bridge::new(namespaces) {
        Ok(bridge) => Some(bridge),
        Err(why) if std::env::var("SERIATIM_TEST_NETNS").is_ok_and(|v| v == "required") => panic!("{why}"),
        Err(why) => {
            print_uncaptured(&format!("SKIPPED: {what}: {why}"));
            None
        }
    }
}

/// Network namespaces, each with an address, on a bridge that this process can reach too. Removed when dropped.
pub struct Bridge {
    id: u32,
    namespaces: usize,
}

impl Bridge {
    fn new(namespaces: usize) -> Result<Bridge, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".into());
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = std::process::id().wrapping_mul(4).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let bridge = Bridge { id: id % 50_000, namespaces };
        let name = bridge.name();
        ip(&["link", "add", &name, "type", "bridge", "mcast_snooping", "0"])?;
        ip(&["addr", "add", &format!("{}/24", bridge.host(254)), "dev", &name])?;
        ip(&["link", "set", &name, "up"])?;
        for number in 0..namespaces {
            let (namespace, outside) = (bridge.namespace(number), bridge.link(number));
            ip(&["netns", "add", &namespace])?;
            ip(&["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
            ip(&["link", "set", &outside, "master", &name, "up"])?;
            ip(&["-n", &namespace, "addr", "add", &format!("{}/24", bridge.addr(number)), "dev", "eth0"])?;
            ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        }
        Ok(bridge)
    }

    fn name(&self) -> String {
        format!("sb{}", self.id)
    }

    pub fn namespace(&self, number: usize) -> String {
        format!("seriatim-{}-{number}", self.id)
    }

    /// The name of the bridge's end of a namespace's link.
    fn link(&self, number: usize) -> String {
        format!("sv{}-{number}", self.id)
    }

    pub fn addr(&self, number: usize) -> String {
        self.host(number + 1)
    }

    pub fn hosts(&self) -> Vec<String> {
        (0..self.namespaces).map(|number| self.addr(number)).collect()
    }

    /// Returns the options of a node with this name in a namespace.
    pub fn options(&self, number: usize, name: String) -> NodeOptions {
        NodeOptions {
            name,
            bind_addr: Some(format!("{}:0", self.addr(number))),
            rpc_addr: Some(format!("{}:0", self.addr(number))),
            wrapper: ["ip", "netns", "exec", &self.namespace(number)].map(str::to_owned).to_vec(),
            ..NodeOptions::default()
        }
    }

    /// Starts a node in a namespace with the configuration file of all hosts. Its name is the one of its host. What differs between
    /// the file systems of hosts is given by flags.
    pub fn start_host(&self, site: &Site, number: usize, file: &Path) -> Node {
        let name = format!("n{number}");
        let files = site.node_files(&name);
        let more = [
            format!("--config={}", file.display()),
            format!("--data-dir={}", site.path().join(&name).display()),
            format!("--peer-cert-file={}", files.peer_cert_file.display()),
            format!("--peer-key-file={}", files.peer_key_file.display()),
        ];
        let as_host = ["unshare", "--uts", "sh", "-c", "echo \"$0\" >/proc/sys/kernel/hostname; exec \"$@\"", &name];
        let mut wrapper = self.options(number, name.clone()).wrapper;
        wrapper.extend(as_host.map(str::to_owned));
        let more = more.to_vec();
        let options = NodeOptions { name, joins_later: true, more, only_more: true, wrapper, ..NodeOptions::default() };
        Node::start(site, options)
    }

    /// Drops every packet from and to a namespace, without an error on either side.
    pub fn cut(&self, number: usize) {
        ip(&["link", "set", &self.link(number), "nomaster"]).expect("cut");
    }

    pub fn repair(&self, number: usize) {
        ip(&["link", "set", &self.link(number), "master", &self.name()]).expect("repaired");
    }

    /// Returns an address in 198.18.0.0/15, which is reserved for tests.
    pub fn host(&self, host: usize) -> String {
        format!("198.{}.{}.{host}", 18 + self.id / 256 % 2, self.id % 256)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Removal fails for parts that were not created.
        for number in 0..self.namespaces {
            let _ = ip(&["netns", "del", &self.namespace(number)]);
        }
        let _ = ip(&["link", "del", &self.name()]);
    }
}

/// Runs `ip`.
pub fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|e| format!("`ip` can't be run: {e}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("`ip {}`: {}", args.join(" "), stderr.trim()))
}
