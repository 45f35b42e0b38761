//! Streams that are cut short: what is said to be in the log is there, and nothing else.

use grpcio::RpcStatusCode as Code;
use seriatim::pb::log::ProduceRequest;

use crate::harness::{Cluster, record};

/// Requests of a stream are proposed without waiting for the answers of those before. So when one was refused by the leader
/// (here by its `expected_offset`; a full queue or an election does it too), those behind it were on their way, and were
/// appended: 20 of 20 in the run that found it, although nothing behind a failure may be.
#[test]
fn nothing_behind_a_failed_request_is_appended() {
    let cluster = Cluster::start(3);
    for client in cluster.clients() {
        let before = client.get_log("").expect("a log").next_offset;
        let mut stream = client.produce_stream().expect("a stream");
        let request = |expected_offset| ProduceRequest {
            records: vec![record("x")],
            expected_offset,
            ..ProduceRequest::default()
        };
        stream.send(request(Some(before)));
        stream.send(request(Some(before)));
        // The stream may be broken already.
        while stream.send(request(None)) && client.get_log("").expect("a log").next_offset == before {}
        for _ in 0..200 {
            stream.send(request(None));
        }
        assert_eq!(stream.answer().expect("an answer").expect("the first one is right").offset, before);
        let error = stream.answer().expect("a status").expect_err("the second one is wrong");
        let status = error.status().expect("a status");
        assert_eq!((status.code, status.reason.as_str()), (Code::FAILED_PRECONDITION, "EXPECTED_OFFSET_MISMATCH"));
        assert_eq!((status.number("failed_request"), status.number("unknown_through")), (Some(1), None));
        assert_eq!(client.get_log("").expect("a log").next_offset, before + 1);
    }
}
