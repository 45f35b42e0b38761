//! Floods of HTTP/2 frames that are no calls, by a client with an accepted certificate and no right: its connections are closed,
//! and honest clients work on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use seriatim::client::ClientFiles;
use seriatim::security::certs::{Request, Usage};

use crate::harness::{Cluster, Site, eventually, loudly};
use crate::hostile::{Honest, Memory, counter, raise_open_files, scale, under};
use crate::raw::{Connection, Dialer, Frame};

const CLOSED: &str = "seriatim_flood_connections_closed_total";

/// What floods, and how a connection for it begins.
struct Kind {
    name: &'static str,
    frame: Frame,
    begin: fn(&mut Connection) -> u32,
}

const fn kind(name: &'static str, kind: u8, payload: &'static [u8], begin: fn(&mut Connection) -> u32) -> Kind {
    Kind { name, frame: Frame { kind, flags: 0, payload }, begin }
}

fn no_stream(_: &mut Connection) -> u32 {
    0
}

/// A call that everybody with a certificate may make, and that never ends.
fn watch(connection: &mut Connection) -> u32 {
    let stream = connection.call("/grpc.health.v1.Health/Watch");
    connection.data(stream, &[0; 5]);
    stream
}

/// Headers that never end.
fn headers(connection: &mut Connection) -> u32 {
    connection.endless_headers()
}

const KINDS: [Kind; 7] = [
    kind("SETTINGS", 4, &[], no_stream),
    kind("unknown frames", 0x42, &[], no_stream),
    kind("PING", 6, &[0; 8], no_stream),
    kind("PRIORITY", 2, &[0; 5], |_| 1),
    kind("WINDOW_UPDATE", 8, &[0, 0, 0, 1], no_stream),
    kind("empty DATA", 0, &[], watch),
    kind("CONTINUATION", 9, &[], headers),
];

/// Sends these frames as fast as they are taken, on a new connection when one is closed. How many frames, and how many
/// connections were closed.
fn flood(dialer: &Dialer, kind: &Kind, connections: usize, seconds: u64) -> (u64, u64) {
    let (frames, closed) = (AtomicU64::new(0), AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(seconds);
    let one = |mut connection: Connection| {
        let stream = (kind.begin)(&mut connection);
        while Instant::now() < until {
            (0..1000).for_each(|_| connection.raw(&kind.frame, stream));
            if connection.flush().is_err() || connection.is_closed() {
                closed.fetch_add(1, Ordering::Relaxed);
                return;
            }
            frames.fetch_add(1000, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                while Instant::now() < until {
                    if let Ok(connection) = dialer.connect() {
                        one(connection);
                    }
                }
            });
        }
    });
    (frames.into_inner(), closed.into_inner())
}

/// A certificate of a name without rights, another one for each kind: who floods is kept out for ten seconds.
fn stranger(site: &Site, number: usize) -> ClientFiles {
    let (dir, name) = (site.certs(), format!("stranger-{number}"));
    let request =
        Request { common_names: vec![name.clone()], hosts: vec![], usage: Usage::Client, lifetime_seconds: 3600 };
    site.ca().issue_files(&request, &dir, &name).expect("a certificate");
    ClientFiles {
        ca_file: dir.join("ca.pem"),
        cert_file: dir.join(format!("{name}.pem")),
        key_file: dir.join(format!("{name}-key.pem")),
    }
}

/// Two connections made an honest call wait for 50 to 500 ms, with empty DATA for seconds, and were never closed.
#[test]
fn connections_that_flood_frames_are_closed() {
    raise_open_files();
    let (few, seconds) = (scale().few, scale().seconds.max(3));
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let memory = Memory::of(node.pid());
    let client = cluster.client(0);
    let other = Cluster::start(1);
    let honest = Honest::new(client.clone(), other.client(0));
    let quiet = || std::thread::sleep(Duration::from_secs(seconds));
    loudly("floods of frames");
    under("nobody else", &honest, &memory, quiet);
    for (number, kind) in KINDS.iter().enumerate() {
        let dialer = Dialer::new(&node.rpc_addr, &stranger(&cluster.site, number));
        let before = counter(&client, CLOSED);
        let (mut frames, mut closed) = (0, 0);
        under(&format!("{few} times {}", kind.name), &honest, &memory, || {
            (frames, closed) = flood(&dialer, kind, few, seconds);
        });
        let counted = eventually("a flood is counted", || {
            let counted = counter(&client, CLOSED) - before;
            // The core closes connections for pings by itself.
            if counted > 0 || kind.name == "PING" { Ok(counted) } else { Err("none".to_owned()) }
        });
        assert!(closed > 0, "nobody stopped it");
        loudly(&format!("  {frames} frames; {closed} connections were closed, {counted} as a flood"));
    }
    under("nobody else any more", &honest, &memory, quiet);
}
