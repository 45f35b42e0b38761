//! Requests of `log.v1`, as bytes, and the answers of the server before `seriatim.v1` existed. Clients of that package must get
//! the same answers: the same bytes, and errors with the same code, message, reason and `LocalizedMessage`. The metadata of
//! an `ErrorInfo` may gain keys.
//!
//! `tests/golden/log-v1.jsonl` contains the steps. It was recorded once and is never written again, except to add steps: with
//! `SERIATIM_RECORD_LOG_V1` set, the answers are printed instead of compared.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::node::{Fate, ME, Node, OTHER};
use super::raw::exchange;
use super::*;
use crate::consensus::handle::ProposeError;
use crate::types::Offset;

const GOLDEN: &str = include_str!("../../../tests/golden/log-v1.jsonl");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Parses hexadecimal text. `78*3` means 787878.
fn unhex(text: &str) -> Vec<u8> {
    let byte = |two: &[u8]| u8::from_str_radix(&String::from_utf8_lossy(two), 16).expect("digits");
    let part = |part: &str| match part.split_once('*') {
        Some((one, times)) => vec![byte(one.as_bytes()); times.parse().expect("a number")],
        None => part.as_bytes().chunks(2).map(byte).collect(),
    };
    text.split_whitespace().flat_map(part).collect()
}

/// Returns the answer to the messages, as JSON.
fn answer(node: &Node, method: &str, requests: &[Vec<u8>]) -> Value {
    let (responses, end) = exchange(node, method, requests);
    let responses: Vec<String> = responses.iter().map(|bytes| hex(bytes)).collect();
    json!({ "responses": responses, "status": end.err().map(|status| status_json(&status)) })
}

fn status_json(rpc: &RpcStatus) -> Value {
    let details = status::Status::parse_from_bytes(rpc.details()).expect("a google.rpc.Status").details;
    let info = details.iter().find_map(|any| any.unpack::<error_details::ErrorInfo>().expect("well-formed"));
    let localized =
        details.iter().find_map(|any| any.unpack::<error_details::LocalizedMessage>().expect("well-formed"));
    let metadata: BTreeMap<_, _> = info.clone().unwrap_or_default().metadata.into_iter().collect();
    json!({
        "code": rpc.code().to_string(),
        "message": rpc.message(),
        "domain": info.clone().unwrap_or_default().domain,
        "reason": info.unwrap_or_default().reason,
        "metadata": metadata,
        "localized": localized.map(|localized| format!("{} {}", localized.locale, localized.message)),
    })
}

/// Prepares the node for a step, by the name in the golden file.
fn prepare(node: &Node, what: &str) {
    let fail = |error| node.fates(&[Fate::Fail(error)]);
    match what {
        "" => {}
        "serve" => node.serve(),
        "leave and stop" => drop(node.api().drain(std::time::Instant::now())),
        "trim to 2" => node.trim_at_read_index(2),
        "no leader" => node.leader_is(None),
        "another leads" => node.leader_is(Some(OTHER)),
        "leads" => node.leader_is(Some(ME)),
        "damaged" => node.damaged(),
        "dropped" => fail(ProposeError::Dropped),
        "not leader" => fail(ProposeError::NotLeader { leader: None }),
        "queue full" => fail(ProposeError::QueueFull),
        "disk full" => fail(ProposeError::DiskFull),
        "outcome unknown" => fail(ProposeError::OutcomeUnknown),
        "deadline passed" => fail(ProposeError::DeadlinePassed),
        "replica damaged" => fail(ProposeError::Damaged),
        "no replica" => fail(ProposeError::NoSuchGroup),
        "too large" => fail(ProposeError::TooLarge),
        "past end" => fail(ProposeError::PastEnd { next_offset: Offset(9) }),
        "leader stopping" => fail(ProposeError::Stopping),
        "no majority" => node.read_index(Err(crate::consensus::handle::ReadIndexError::Unconfirmed)),
        "majority" => node.read_index(Ok(())),
        other => panic!("unknown preparation {other:?}"),
    }
}

/// Returns true if the answer is the recorded one, except that the metadata may have gained keys.
fn is_kept(recorded: &Value, answer: &Value) -> bool {
    match (recorded, answer) {
        (Value::Object(recorded), Value::Object(answer)) => {
            recorded.iter().all(|(key, value)| answer.get(key).is_some_and(|answer| is_kept(value, answer)))
        }
        (recorded, answer) => recorded == answer,
    }
}

#[test]
fn clients_of_log_v1_get_the_answers_that_they_always_got() {
    let node = Node::joining(super::node::OPEN_POLICY);
    let is_recording = std::env::var_os("SERIATIM_RECORD_LOG_V1").is_some();
    for line in GOLDEN.lines() {
        let step: Value = serde_json::from_str(line).expect("JSON");
        let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
        prepare(&node, &text("prepare"));
        let requests: Vec<Vec<u8>> = step["requests"]
            .as_array()
            .expect("requests")
            .iter()
            .map(|request| unhex(request.as_str().expect("hexadecimal digits")))
            .collect();
        let answer = answer(&node, &format!("/log.v1.Log/{}", text("method")), &requests);
        if is_recording {
            let mut step = step;
            step["answer"] = answer;
            println!("RECORDED {step}");
        } else {
            assert!(is_kept(&step["answer"], &answer), "{}: {} became {answer}", text("step"), step["answer"]);
        }
    }
}
