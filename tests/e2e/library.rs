//! The client library with real nodes. `clients/conformance` tests its behaviour in detail, with nodes that fail where a
//! test says.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::executor::block_on;
use seriatim::client::{
    Cluster as Library, ClusterOptions, ConsumerOptions, ErrorKind, Producer, ProducerOptions, Record, StartAt,
};

use crate::harness::{Cluster, TIMEOUT, eventually, read_all, wait_for_voters};

fn connect(cluster: &Cluster, nodes: &[usize]) -> Library {
    let addrs = nodes.iter().map(|node| cluster.nodes[*node].rpc_addr.clone());
    let files = Some(cluster.site.client_files("root"));
    Library::new(ClusterOptions { files, ..ClusterOptions::new(addrs) }).expect("a cluster")
}

fn producer(library: &Library) -> Producer {
    library.producer(&ProducerOptions::new("default")).expect("a producer")
}

/// Threads share a producer while the leader is killed. Each record is in the log once, at the offset of its
/// acknowledgement, and those of each thread are in order.
#[test]
fn a_shared_producer_survives_the_loss_of_the_leader() {
    const THREADS: u64 = 8;
    const RECORDS: u64 = 200;
    let mut cluster = Cluster::start(3);
    wait_for_voters(&cluster.clients());
    let library = connect(&cluster, &[0, 1, 2]);
    let (producer, begin) = (producer(&library), read_all(&cluster.client(0)).len() as u64);
    let leader = cluster.leader();
    let append = |thread: u64| {
        let one = |number| {
            let value = format!("{thread}-{number}");
            (producer.append(Record::new(value.clone())).expect("appended").offset.expect("an offset"), value)
        };
        (0..RECORDS).map(one).collect::<Vec<_>>()
    };
    let acknowledged: Vec<Vec<(u64, String)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || append(thread))).collect();
        let reader = cluster.client((leader + 1) % 3);
        eventually("a quarter is appended", || {
            let next = reader.get_log("").map_err(|e| e.to_string())?.position.unwrap_or_default().next_offset;
            (next >= begin + THREADS * RECORDS / 4).then_some(()).ok_or(next.to_string())
        });
        cluster.nodes[leader].kill();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    });
    producer.close(TIMEOUT).expect("closed");
    for of_thread in &acknowledged {
        assert!(of_thread.windows(2).all(|two| two[0].0 < two[1].0), "the records of a thread are in order");
    }
    let mut expected: Vec<(u64, String)> = acknowledged.into_iter().flatten().collect();
    expected.sort();
    let consumer = library
        .consumer(&ConsumerOptions { start: StartAt::Offset(begin), ..ConsumerOptions::new("default") })
        .expect("a consumer");
    let read = consumer.take(expected.len()).map(|received| {
        let received = received.expect("a record");
        (received.offset, String::from_utf8(received.record.value.to_vec()).expect("text"))
    });
    assert_eq!(read.collect::<Vec<_>>(), expected);
}

/// Whatever is dropped or closed ends its threads, and nothing waits for ever.
#[test]
fn everything_ends_with_its_owner() {
    let cluster = Cluster::start(1);
    let threads = || -> BTreeSet<String> {
        let tasks = std::fs::read_dir("/proc/self/task").expect("tasks").flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        // The kernel shows 15 bytes.
        names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("seriatim-")).collect()
    };
    let library = connect(&cluster, &[0]);
    library.ready(TIMEOUT).expect("a node answers");
    let closed = producer(&library);
    let handle = closed.send("a").expect("sent");
    assert_eq!(block_on(handle).expect("appended").offset, Some(0), "a handle is a future");
    closed.close(TIMEOUT).expect("closed");
    closed.close(TIMEOUT).expect("closed again");
    let late = closed.send("late").expect_err("closed");
    assert_eq!((late.kind(), late.may_have_been_done()), (ErrorKind::Closed, false));

    let dropped = producer(&library);
    let unanswered = dropped.send("b").expect("sent");
    drop(dropped);
    // It was answered before, or fails.
    let _ = unanswered.wait_timeout(Duration::ZERO).expect("a result");

    let consumer = library.consumer(&ConsumerOptions::new("")).expect("a consumer");
    assert_eq!(consumer.recv_timeout(TIMEOUT).expect("no error").expect("a record").record, Record::new("a"));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| (&consumer).map(|received| received.expect("no error").offset).last());
        consumer.close().expect("closed");
        waiting.join().expect("the iterator ends");
    });
    assert!(consumer.recv().expect("no error").is_none());

    let other = library.consumer(&ConsumerOptions::new("")).expect("a consumer");
    drop((library, closed, consumer));
    assert!(other.recv_timeout(TIMEOUT).expect("no error").is_some(), "a consumer keeps what it needs");
    drop(other);
    eventually("all threads end", || threads().is_empty().then_some(()).ok_or(format!("{:?}", threads())));
}
