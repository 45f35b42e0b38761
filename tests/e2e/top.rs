//! `seriatim top` with a real cluster, and in a terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Stdio;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::harness::{Cluster, eventually, outcome, record};

#[test]
fn prints_one_frame_if_standard_output_is_no_terminal() {
    let cluster = Cluster::start(3);
    let client = cluster.client(0);
    eventually("a record is appended", || client.produce("", vec![record("a")]).map(drop).map_err(|e| e.to_string()));
    let addr = cluster.nodes[1].rpc_addr.as_str();
    for args in [&["top", "--interval", "200ms"][..], &["top", "--once", "--interval", "200ms"]] {
        let (code, text, errors) = outcome(&cluster.site.cli(addr, args).output().expect("it ran"));
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
        assert!(text.starts_with("cluster seriatim (") && text.contains("3 of 3 nodes answer, 1 log"), "{text}");
        for node in ["n1", "n2", "n3"] {
            assert!(text.lines().any(|line| line.starts_with(node)), "{text}");
        }
        assert!(text.lines().any(|line| line.starts_with("default ") && line.contains("  0..1  ")), "{text}");
        assert!(!text.contains('\x1b'), "{text:?}");
    }
    let refused = outcome(&cluster.site.cli(addr, &["top", "--once", "--user", "reader"]).output().expect("it ran"));
    assert_eq!(refused.0, Some(77), "{refused:?}");
}

/// The terminal stayed without an echo, and on the alternate screen, if the command did not end by `q`.
#[test]
fn restores_the_terminal_however_it_ends() {
    let cluster = Cluster::start(1);
    for how in ["q", "SIGTERM"] {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let slave = || File::from(open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("opens"));
        let kept = slave();
        tcsetwinsize(&kept, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).expect("a size");
        let modes = || tcgetattr(&kept).expect("modes").local_modes;
        let before = modes();
        assert!(before.contains(LocalModes::ECHO | LocalModes::ICANON));
        let mut command = cluster.site.cli(&cluster.nodes[0].rpc_addr, &["top", "--interval", "200ms"]);
        let mut child = command.stdin(slave()).stdout(slave()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut terminal = File::from(master);
        let mut shown = String::new();
        while !shown.contains("default ") {
            shown += &read(&mut terminal).expect("a frame");
        }
        assert!(shown.contains("\x1b[?1049h") && !modes().contains(LocalModes::ECHO), "{shown:?}");
        match how {
            "q" => terminal.write_all(b"q").expect("typed"),
            _ => {
                let pid = rustix::process::Pid::from_child(&child);
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
            }
        }
        let status = eventually("it ends", || child.try_wait().expect("waits").ok_or("it runs".to_owned()));
        assert_eq!(status.code(), Some(if how == "q" { 0 } else { 130 }), "{how}");
        assert_eq!(modes(), before, "{how}");
        drop(kept);
        // The rest, up to the end of the other side.
        while let Some(text) = read(&mut terminal) {
            shown += &text;
        }
        assert!(shown.ends_with("\x1b[?25h\x1b[?1049l"), "{how}: {shown:?}");
    }
}

/// Returns what the other side of the terminal has written; `None` at its end, or if it writes nothing.
fn read(terminal: &mut File) -> Option<String> {
    let timeout = Timespec { tv_sec: 20, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(&*terminal, PollFlags::IN)], Some(&timeout)).expect("waits");
    let mut buffer = [0; 4096];
    if ready == 0 {
        return None;
    }
    let n = terminal.read(&mut buffer).ok().filter(|n| *n > 0)?;
    Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
}
