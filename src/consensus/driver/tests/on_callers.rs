//! Small work runs on the thread that brings it. In these tests nothing else runs the driver before [`run`].

use super::*;
use crate::consensus::driver::run::SharedDriver;
use crate::consensus::driver::ticking::Ticking;
use crate::consensus::wake::SMALL_BYTES_MAX;
use crate::storage::payload::{RecordFields, encode_record};

const LOG: GroupId = GroupId(1);

/// A node that leads its only log. Its log-writer is real.
struct Unattended {
    shared: Arc<SharedDriver>,
    handle: ConsensusHandle,
    _writer: crate::writer::Writer,
    _readers: crate::storage::reader::Readers,
    _dir: tempfile::TempDir,
}

fn unattended() -> Unattended {
    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    let Founder { mut driver, handle, _writer, _readers, .. } = founder;
    // While a tick is due, callers leave the work to the thread.
    driver.ticking = Ticking::new(clock::now() + Duration::from_secs(3600));
    Unattended { shared: SharedDriver::share(driver), handle, _writer, _readers, _dir: dir }
}

fn records(bytes: usize) -> Proposal {
    let mut payload = Unstamped::room(bytes + 64);
    encode_record(&mut payload, &RecordFields { value: &vec![7; bytes], ..RecordFields::default() });
    Proposal::new(LOG, EntryKind::Records, 1, Unstamped::new(payload))
}

/// Runs the driver on this thread, which created it, and `calls` on another one. Then the node stops.
fn run(node: &Unattended, calls: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            calls();
            node.handle.stop();
        });
        node.shared.run().expect("stopped");
    });
    assert_eq!(node.handle.propose(records(1)).wait(), Ok(Err(ProposeError::Stopping)));
}

fn next_offset(node: &Unattended) -> u64 {
    node.shared.with(|driver| driver.groups[&LOG].watermark.get().next_offset.0)
}

/// It took two wake-ups of `consensus`, 50 to 100 µs each on a virtual machine.
#[test]
fn a_lone_record_is_appended_on_the_thread_of_its_caller() {
    let node = unattended();
    let reply = node.handle.propose(records(100));
    let groups = node.shared.with(|driver| (driver.inbox.is_empty(), driver.groups[&LOG].log().bounds().next_offset.0));
    assert_eq!(groups, (true, 1), "nothing but its caller could do this");
    run(&node, || {
        assert_eq!(reply.wait().expect("an answer").expect("appended").offset.0, 0);
        for offset in 1..100 {
            let appended = node.handle.propose(records(100)).wait().expect("an answer").expect("appended");
            assert_eq!(appended.offset.0, offset);
        }
    });
}

#[test]
fn large_records_and_commands_wait_for_the_thread_and_so_does_what_follows_them() {
    let node = unattended();
    let large = node.handle.propose(records(SMALL_BYTES_MAX + 1));
    assert_eq!(node.shared.with(|driver| driver.inbox.len()), 1);
    let command = node.handle.command(Command::AddNode(member(OTHER, "n2")), FeatureRange::SUPPORTED);
    let small = node.handle.propose(records(1));
    assert_eq!(node.shared.with(|driver| driver.inbox.len()), 3, "none was taken");
    run(&node, || {
        assert_eq!(large.wait().expect("an answer").expect("appended").offset.0, 0);
        assert_eq!(small.wait().expect("an answer").expect("appended").offset.0, 1);
        command.wait().expect("an answer").expect("appended");
    });
}

/// A caller that finds the message to stop must leave it to the thread.
#[test]
fn a_caller_does_not_swallow_a_stop() {
    let node = unattended();
    node.handle.stop();
    let request = node.handle.propose(records(1));
    node.shared.run().expect("stopped");
    assert_eq!(request.wait(), Ok(Err(ProposeError::Stopping)));
}

#[test]
fn after_a_slow_turn_callers_leave_the_work_to_the_thread() {
    let node = unattended();
    node.shared.with(|driver| driver.not_here_before = Instant::now() + Duration::from_secs(3600));
    let request = node.handle.propose(records(1));
    assert_eq!(node.shared.with(|driver| driver.inbox.len()), 1);
    run(&node, || {
        request.wait().expect("an answer").expect("appended");
    });
}

/// Callers, the log-writer and the thread take turns, and requests gather.
#[test]
fn many_callers_lose_no_request() {
    let node = unattended();
    run(&node, || {
        std::thread::scope(|scope| {
            for caller in 0..64 {
                let handle = &node.handle;
                scope.spawn(move || {
                    for n in 0..20 {
                        let bytes = if (caller + n) % 16 == 0 { SMALL_BYTES_MAX + 1 } else { 100 };
                        handle.propose(records(bytes)).wait().expect("an answer").expect("appended");
                    }
                });
            }
        });
        assert_eq!(next_offset(&node), 1280);
    });
}
