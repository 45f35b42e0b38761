//! A running node takes over new certificates, a new authority, and options that may change, without a failed call.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use seriatim::client::{Client, ClientFiles};
use seriatim::pb::v1::ConsumeRequest;
use seriatim::security::certs::{Plan, make, renew};

use crate::harness::{
    Cluster, Node, NodeOptions, Site, TIMEOUT, client_with, counter, eventually, record, wait_for_voters,
};

/// Waits until every node has logged this line so many times.
fn all_logged(cluster: &Cluster, line: &str, times: usize) {
    for node in &cluster.nodes {
        eventually(line, || {
            let log = node.log();
            (log.matches(line).count() >= times).then_some(()).ok_or(log)
        });
    }
}

fn plan(site: &Site) -> Plan {
    let plan = Plan::new(site.cluster()).host("localhost").host("127.0.0.1");
    plan.peer("n1").peer("n2").peer("n3").client("root")
}

/// Copies the certificates and keys of the nodes and of the client, without those of the authority.
fn install(from: &Path, to: &Path) {
    for name in ["n1", "n2", "n3"]
        .map(|node| format!("{node}/peer"))
        .iter()
        .map(String::as_str)
        .chain(["server", "client-root"])
    {
        for file in [format!("{name}.pem"), format!("{name}-key.pem")] {
            fs::copy(from.join(&file), to.join(&file)).expect("copied");
        }
    }
}

/// One client for each node, which appends and reads as fast as it can. After a change of the certificates it connects
/// again, as an application does that was told to.
struct Load {
    addrs: Vec<String>,
    files: ClientFiles,
    /// How often the certificates of the clients were changed.
    generation: AtomicUsize,
    /// The generation of each client's last successful call.
    reached: [AtomicUsize; 3],
    failures: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Load {
    fn client(&self, node: usize) -> Client {
        client_with(&self.addrs[node], Some(self.files.clone()))
    }

    fn run(&self, node: usize) {
        let (mut generation, mut client) = (0, self.client(node));
        while !self.stop.load(Ordering::Relaxed) {
            let now = self.generation.load(Ordering::Acquire);
            if now != generation {
                (generation, client) = (now, self.client(node));
            }
            let call = client
                .produce("", vec![record("under load")])
                .and_then(|appended| client.consume_at("", appended.offset));
            match call {
                Ok(_) => self.reached[node].store(generation, Ordering::Release),
                Err(error) => self.failures.lock().expect("no panic").push(format!("generation {generation}: {error}")),
            }
        }
    }

    /// Makes every client connect again, and waits until each has done so.
    fn reconnect(&self) {
        let now = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        for reached in &self.reached {
            eventually("a call on a new connection", || {
                let at = reached.load(Ordering::Acquire);
                (at == now).then_some(()).ok_or(format!("generation {at}: {:?}", self.failures.lock()))
            });
        }
    }

    #[track_caller]
    fn assert_no_failure(&self, step: &str) {
        assert_eq!(*self.failures.lock().expect("no panic"), Vec::<String>::new(), "{step}");
    }
}

/// The steps of docs/OPERATIONS.md, "Certificates": first all certificates, then the authority.
#[test]
fn certificates_and_the_authority_are_exchanged_under_load_without_a_failed_call() {
    let cluster = Cluster::start(3);
    let (site, certs) = (&cluster.site, cluster.site.certs());
    let load = Load {
        addrs: cluster.nodes.iter().map(|node| node.rpc_addr.clone()).collect(),
        files: site.client_files("root"),
        generation: AtomicUsize::new(0),
        reached: Default::default(),
        failures: Mutex::default(),
        stop: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        (0..3).for_each(|node| {
            drop(scope.spawn({
                let load = &load;
                move || load.run(node)
            }))
        });
        let mut reloads = 0;
        let mut reload = || {
            reloads += 1;
            cluster.nodes.iter().for_each(Node::reload);
            all_logged(&cluster, "certificates reloaded", reloads);
        };
        let work = || {
            renew(&certs, &plan(site)).expect("certificates");
            reload();
            load.reconnect();
            load.assert_no_failure("certificates of the same authority");

            let (old_ca, new) = (fs::read(certs.join("ca.pem")).expect("read"), site.path().join("new"));
            make(&new, &plan(site)).expect("certificates");
            let new_ca = fs::read(new.join("ca.pem")).expect("read");
            fs::write(certs.join("ca.pem"), [old_ca, new_ca.clone()].concat()).expect("written");
            reload();
            load.reconnect();
            load.assert_no_failure("both authorities");

            install(&new, &certs);
            reload();
            load.reconnect();
            load.assert_no_failure("certificates of the new authority");

            fs::write(certs.join("ca.pem"), new_ca).expect("written");
            reload();
            load.reconnect();
            load.assert_no_failure("the new authority only");
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        load.stop.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    load.assert_no_failure("the end");
    // All connections between the nodes are of the new authority: a restarted node is accepted.
    wait_for_voters(&cluster.clients());
    let appended = cluster.client(0).produce("", vec![record("after")]).expect("appended");
    for client in cluster.clients() {
        assert_eq!(client.consume_at("", appended.offset).expect("a record").value, record("after").value);
    }
}

/// Every file that can be reloaded is broken in turn. The node goes on with what it had.
#[test]
fn a_broken_file_changes_nothing() {
    let cluster = Cluster::start(1);
    let (node, client, certs) = (&cluster.nodes[0], cluster.client(0), cluster.site.certs());
    let broken = [
        (certs.join("server.pem"), "certificates"),
        (certs.join("server-key.pem"), "certificates"),
        (certs.join("ca.pem"), "certificates"),
        (certs.join("n1/peer.pem"), "certificates"),
        (cluster.site.policy(), "access policy"),
    ];
    for (times, (file, what)) in (1..).zip(broken) {
        let (line, metric) =
            (format!("{what} not reloaded"), format!("seriatim_reload_failures_total{{file={what:?}}}"));
        let failures = counter(&client, &metric);
        let good = fs::read(&file).expect("read");
        fs::write(&file, "no certificate, and no policy\n").expect("written");
        let before = node.log().matches(&line).count();
        node.reload();
        eventually(&line, || {
            let log = node.log();
            (log.matches(&line).count() > before).then_some(()).ok_or(log)
        });
        eventually(&metric, || {
            let now = counter(&client, &metric);
            (now > failures).then_some(()).ok_or(format!("{now}, before {failures}"))
        });
        client.produce("", vec![record("on an open connection")]).expect("appended");
        // The client reads its authority from the same file, so it connects after that is restored.
        fs::write(&file, &good).expect("written");
        let new = cluster.client(0);
        assert!(new.wait_connected(TIMEOUT), "{}", file.display());
        assert_eq!(new.produce("", vec![record("new")]).expect("appended").offset, 2 * times - 1);
    }
}

#[test]
fn limits_and_the_log_level_change_without_a_restart() {
    let site = Site::new();
    let file = site.path().join("seriatim.toml");
    let write = |text: &str| fs::write(&file, format!("config_version = 1\n{text}")).expect("written");
    write("[limits]\nstreams_per_principal_max = 2\n[logging]\nlevel = \"warn\"\n");
    let more = vec!["--bootstrap".to_owned(), "--config".to_owned(), file.display().to_string()];
    let node = Node::start(&site, NodeOptions { name: "n1".to_owned(), more, ..NodeOptions::default() });
    let client = site.client(&node.rpc_addr, "root");
    let request = ConsumeRequest { heartbeat_ms: 1000, ..ConsumeRequest::default() };
    let tail = || {
        let mut stream = client.consume_stream(&request, Some(TIMEOUT)).expect("a stream");
        stream.next().expect("a message").map(|_| stream).map_err(|error| error.to_string())
    };
    let mut open = vec![tail().expect("a stream"), tail().expect("a stream")];
    assert!(tail().err().expect("refused").contains("streams_per_principal_max (2)"));
    assert!(!node.log().contains("certificates"), "the level is warn");

    let reload = |line: &str| {
        node.reload();
        eventually(line, || {
            let log = node.log();
            log.contains(line).then_some(()).ok_or(log)
        });
    };
    write("[limits]\nstreams_per_principal_max = 3\n[logging]\nlevel = \"info\"\n");
    reload("configuration reloaded: streams_per_principal_max=3, log_level=info");
    open.push(tail().expect("a third stream"));
    assert!(tail().err().expect("refused").contains("streams_per_principal_max (3)"));

    write("[limits]\nstreams_per_principal_max = 0\n");
    reload("configuration not reloaded, the old one stays in use");
    assert!(tail().err().expect("refused").contains("streams_per_principal_max (3)"));
    write("[limits]\nstreams_per_principal_max = 3\n[logging]\nlevel = \"info\"\n[storage]\nhang_max = \"1m\"\n");
    reload("hang_max is 1m now: restart the node to apply it");
}
