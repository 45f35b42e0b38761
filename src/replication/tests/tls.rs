//! The same over mutual TLS, and what a certificate must be.

use std::time::Instant;

use super::{Setup, TestNode, certs, message};
use crate::config::TlsFiles;
use crate::consensus::Outbound as _;
use crate::consensus::handle::{ConsensusMsg, ReadIndexError};
use crate::pb::peer::JoinRequest;
use crate::types::{GroupId, LogIndex};

fn reaches(from: &TestNode, to: &TestNode) -> bool {
    from.knows(&[to.member()]);
    from.peers.handle().send(to.id, message(from.id, to.id, 1, 100));
    let until = Instant::now() + super::LONG;
    loop {
        match from.inbox.try_recv() {
            Ok(ConsensusMsg::Unreachable(_)) => return false,
            Ok(other) => panic!("unexpected: {other:?}"),
            Err(_) => {}
        }
        if !to.from_peers.is_empty() {
            return to.messages(1).len() == 1;
        }
        assert!(Instant::now() < until, "neither arrived nor lost");
        std::thread::yield_now();
    }
}

#[test]
fn peers_of_one_authority_reach_each_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = certs(dir.path(), super::CLUSTER);
    let a = Setup { tls: Some(&files), ..Setup::node(1) }.start();
    let b = Setup { tls: Some(&files), ..Setup::node(2) }.start();
    assert!(reaches(&a, &b) && reaches(&b, &a));
    let index = a.peers.handle().read_index(b.id, GroupId(1), None);
    let ConsensusMsg::ReadIndex(_, _, reply) = b.next() else { panic!("a read index") };
    reply.send(Ok(LogIndex(4)));
    assert_eq!(index.wait(), Ok(Ok(LogIndex(4))));
}

/// The stream that is open already was served for as long as it lasted, and one to such a peer was kept.
#[test]
fn open_streams_of_and_to_a_peer_end_when_its_authority_is_removed() {
    let (old, new) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let files = certs(old.path(), super::CLUSTER);
    let own = tempfile::tempdir().expect("a directory");
    certs(own.path(), super::CLUSTER);
    let copy = |from: &std::path::Path| {
        for name in ["ca.pem", "server.pem", "server-key.pem", "peer.pem", "peer-key.pem"] {
            std::fs::copy(from.join(name), own.path().join(name)).expect("copied");
        }
    };
    copy(old.path());
    let own_files = TlsFiles::in_dir(own.path());
    let a = Setup { tls: Some(&files), ..Setup::node(1) }.start();
    let b = Setup { tls: Some(&own_files), ..Setup::node(2) }.start();
    assert!(reaches(&a, &b) && reaches(&a, &b) && reaches(&b, &a));
    certs(new.path(), super::CLUSTER);
    copy(new.path());
    assert_eq!(b.tls.reload(), Ok(true));
    assert!(!reaches(&a, &b), "its stream");
    assert!(!reaches(&b, &a), "the stream to it");
}

#[test]
fn a_clients_certificate_is_no_peers() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = certs(dir.path(), super::CLUSTER);
    let b = Setup { tls: Some(&files), ..Setup::node(2) }.start();
    let env = crate::grpc::Env::start("client", 1, &b.fatal);
    let creds = crate::security::tls::client_credentials(
        &dir.path().join("ca.pem"),
        &dir.path().join("client-root.pem"),
        &dir.path().join("client-root-key.pem"),
    )
    .expect("credentials");
    let channel = crate::grpc::peer_channel(env.get(), &b.addr, creds, super::CLUSTER);
    let client = crate::pb::peer_grpc::PeerClient::new(channel);
    let error = client.join(&JoinRequest::new()).expect_err("a refusal");
    let code = match &error {
        grpcio::Error::RpcFailure(status) => status.code(),
        other => panic!("unexpected: {other}"),
    };
    assert_eq!(code, grpcio::RpcStatusCode::UNAUTHENTICATED, "{error}");
    assert!(b.is_quiet());
}

#[test]
fn another_authority_another_cluster_and_no_tls_reach_nothing() {
    let (ours, theirs, named) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let files = certs(ours.path(), super::CLUSTER);
    let foreign = certs(theirs.path(), super::CLUSTER);
    let b = Setup { tls: Some(&files), ..Setup::node(2) }.start();
    let impostor = Setup { tls: Some(&foreign), ..Setup::node(3) }.start();
    assert!(!reaches(&impostor, &b) && !reaches(&b, &impostor));

    // One authority, two clusters: the name in the certificate keeps them apart.
    for file in ["ca.pem", "ca-key.pem"] {
        std::fs::copy(ours.path().join(file), named.path().join(file)).expect("copied");
    }
    crate::security::certs::renew(named.path(), &["127.0.0.1".to_owned()], &[], "other").expect("certificates");
    let other_files = TlsFiles::in_dir(named.path());
    let other = Setup { tls: Some(&other_files), cluster_name: "other", ..Setup::node(4) }.start();
    assert!(!reaches(&other, &b) && !reaches(&b, &other));

    let plain = Setup::node(5).start();
    assert!(!reaches(&plain, &b) && !reaches(&b, &plain));
    let index = b.peers.handle().read_index(plain.id, GroupId(1), None).wait();
    assert_eq!(index, Ok(Err(ReadIndexError::Unconfirmed)));
}
