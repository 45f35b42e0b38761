//! A member that is restarted with the name of another member, or of another cluster.

use seriatim::client::Client;

use crate::harness::{Cluster, Node, NodeOptions, Site, eventually, wait_for_voters};

/// Returns the last index of a node's catalog, and the name of the catalog's leader.
fn catalog(client: &Client) -> (u64, String) {
    let node = client.get_node().expect("a response");
    let catalog = node.groups.iter().find(|group| group.log.is_empty()).expect("every node has the catalog");
    (catalog.last_index, catalog.leader.clone())
}

/// The member kept running, and while it led the catalog it proposed the name on every tick: twenty entries a second without
/// effect, synced on every node and kept forever.
#[test]
fn a_member_started_with_the_name_of_another_exits_without_a_catalog_entry() {
    let mut cluster = Cluster::start(3);
    let clients = cluster.clients();
    let ids: Vec<String> = clients.iter().map(|client| client.get_node().expect("a response").node_id).collect();
    let leader = eventually("a leader of the catalog", || {
        let (_, leader) = catalog(&clients[0]);
        ["n1", "n2", "n3"].iter().position(|name| *name == leader).ok_or("none".into())
    });
    // Not the leader, so that no election adds an entry.
    let victim = (leader + 1) % 3;
    let other = (leader + 2) % 3;
    eventually("all nodes have the same catalog", || {
        let (last, others) = (catalog(&clients[leader]).0, [victim, other].map(|i| catalog(&clients[i]).0));
        (others == [last; 2]).then_some(()).ok_or(format!("{last} {others:?}"))
    });
    let before = catalog(&clients[leader]);
    let (name, taken) = (format!("n{}", victim + 1), format!("n{}", other + 1));

    let mut node = cluster.nodes.remove(victim);
    assert!(node.stop().success());
    cluster.site.name_peer(&format!("{name}+{taken}"));
    let more = node.set_more(vec![format!("--node-name={taken}")]);
    // The node may serve requests until the cluster refuses it.
    let status = node.try_start_again().map_or_else(|status| status, |()| node.wait());
    assert_eq!(status.code(), Some(78), "{}", node.log());
    let log = node.log();
    let error = log.lines().rev().find(|line| line.contains("can't be called")).unwrap_or_else(|| panic!("{log}"));
    for part in [&name, &taken, &ids[victim], &ids[other]] {
        assert!(error.contains(part.as_str()), "{part}: {error}");
    }
    assert!(log.contains("next: start it with a --node-name that no other member has"), "{log}");
    assert_eq!(catalog(&clients[leader]), before, "the catalog has no new entry");

    node.set_more(more);
    node.start_again();
    cluster.nodes.insert(victim, node);
    wait_for_voters(&cluster.clients());
}

/// The start with another cluster's name succeeded silently: the member announced itself under that name, and no longer found its
/// peers.
#[test]
fn refuses_another_cluster_name_on_a_member_directory() {
    let site = Site::new();
    let other = Site::of_cluster("other", &["localhost", "127.0.0.1"]);
    let more = |name: &str, node: &str| {
        let files = other.node_files(node);
        vec![
            format!("--cluster-name={name}"),
            format!("--client-ca-file={}", files.client_ca_file.display()),
            format!("--peer-ca-file={}", files.peer_ca_file.display()),
            format!("--server-cert-file={}", files.server_cert_file.display()),
            format!("--server-key-file={}", files.server_key_file.display()),
            format!("--peer-cert-file={}", files.peer_cert_file.display()),
            format!("--peer-key-file={}", files.peer_key_file.display()),
        ]
    };
    let options = |name: &str| NodeOptions { name: name.into(), ..NodeOptions::default() };
    let mut node = Node::start(&site, NodeOptions { bootstrap: true, ..options("n1") });
    let path = site.path().join("n1/node.toml");
    let text = || std::fs::read_to_string(&path).expect("node.toml");
    let line = "cluster_name = \"seriatim\"\n";
    assert!(node.stop().success());
    let before = text();
    let original = node.set_more(more("other", "n1"));
    let status = node.try_start_again().expect_err("the start must fail");
    assert_eq!(status.code(), Some(78), "{}", node.log());
    let log = node.log();
    for part in ["member of cluster \"seriatim\"", "\"other\" is configured", "--cluster-name seriatim", "--data-dir"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert_eq!(text(), before, "nothing was changed");
    assert!(before.contains(line), "{before}");

    // A file of a version that did not store the name: the first start adds it.
    let older = before.replace(line, "");
    let lines = &older[..older.rfind("crc32c").expect("the last line")];
    std::fs::write(&path, format!("{lines}crc32c = \"{:08x}\"\n", crc32c::crc32c(lines.as_bytes()))).expect("written");
    node.set_more(original);
    node.start_again();
    assert_eq!(text(), before);

    // A node that was never admitted may change its cluster name.
    let join = vec![node.bind_addr.clone()];
    let wrong = NodeOptions { join, joins_later: true, more: more("other", "n2"), ..options("n2") };
    let mut blank = Node::start(&site, wrong);
    assert!(blank.stop().success());
    blank.set_more(Vec::new());
    blank.start_again();
}
