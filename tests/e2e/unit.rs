//! systemd accepts the unit, and the program sends READY when it serves requests and STOPPING when it stops.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{SERIATIM, Site, TIMEOUT, print_uncaptured};

#[test]
fn systemd_accepts_the_unit() {
    let dir = tempfile::tempdir().expect("a folder");
    let unit = fs::read_to_string("dist/seriatim.service").expect("the unit");
    // With the path of the program under test in place of the installed one.
    let installed = unit.replace("/usr/local/bin/seriatim", SERIATIM);
    assert_ne!(unit, installed);
    let file = dir.path().join("seriatim.service");
    fs::write(&file, installed).expect("writes");
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output() {
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{stderr}");
            assert!(!stderr.contains("seriatim.service"), "no warning about the unit: {stderr}");
        }
        Err(error) => print_uncaptured(&format!("SKIPPED: `systemd-analyze verify dist/seriatim.service`: {error}")),
    }
}

#[test]
fn notifies_systemd_when_ready_and_when_stopping() {
    let site = Site::new();
    let socket = site.path().join("notify");
    let systemd = UnixDatagram::bind(&socket).expect("a socket");
    systemd.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    fs::write(site.policy(), "p, anonymous, *, admin\n").expect("a policy");
    let mut node = site
        .command(&[
            "serve",
            "--node-name=n1",
            "--data-dir=n1",
            "--bind-addr=127.0.0.1:0",
            "--rpc-addr=127.0.0.1:0",
            "--http-addr=off",
        ])
        .args(["--insecure", "--acl-policy-file=policy.csv", "--bootstrap"])
        .env("NOTIFY_SOCKET", &socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    let until = |word: &str| {
        let begin = Instant::now();
        let mut buffer = [0; 1024];
        let mut all = String::new();
        while !all.contains(word) {
            assert!(begin.elapsed() < TIMEOUT, "no {word}: {all}");
            let bytes = systemd.recv(&mut buffer).expect("a message");
            all.push_str(&String::from_utf8_lossy(&buffer[..bytes]));
        }
        all
    };
    assert!(until("READY=1").contains("EXTEND_TIMEOUT_USEC="), "extends the timeout while it recovers");
    kill_process(Pid::from_child(&node), Signal::TERM).expect("a signal");
    until("STOPPING=1");
    assert!(node.wait().expect("ends").success());
}
