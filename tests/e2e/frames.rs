//! Floods of HTTP/2 frames outside of calls, from a client with an accepted certificate but without permissions: its connections
//! are closed, and honest clients are served.

use std::time::Duration;

use seriatim::client::ClientFiles;
use seriatim::security::certs::{Request, Usage};

use crate::harness::{Cluster, Site, counter, eventually, print_uncaptured};
use crate::hostile::{HonestClients, MemoryPeak, measure, raise_open_files, scale};
use crate::raw::{Connection, Dialer, Frame, flood};

const CLOSED: &str = "seriatim_flood_connections_closed_total";

/// A frame to flood with. `begin` sends what must come before it, and returns the stream that the frames name.
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

/// Begins a call that every client with a certificate may make, and that does not end.
fn watch(connection: &mut Connection) -> u32 {
    let stream = connection.call("/grpc.health.v1.Health/Watch");
    connection.data(stream, &[0; 5]);
    stream
}

/// Begins a call whose headers do not end.
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

/// Sends these frames as fast as the node reads them. Returns how many frames were sent, and how many connections were closed.
fn flood_frames(dialer: &Dialer, kind: &Kind, connections: usize, seconds: u64) -> (u64, u64) {
    const BATCH: u64 = 1000;
    let (batches, closed) = flood(dialer, connections, seconds, kind.begin, |connection, stream| {
        (0..BATCH).for_each(|_| connection.raw(&kind.frame, stream));
    });
    (batches * BATCH, closed)
}

/// Issues a certificate for a name without permissions. Each kind of flood uses another name, because a client that floods is
/// banned for ten seconds.
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

/// Two flooding connections delayed an honest call by 50 to 500 ms, and by seconds with empty DATA. They were never closed.
#[test]
fn connections_that_flood_frames_are_closed() {
    raise_open_files();
    let (few, seconds) = (scale().few, scale().seconds.max(3));
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let memory = MemoryPeak::of(node.pid());
    let client = cluster.client(0);
    let other = Cluster::start(1);
    let honest = HonestClients::new(client.clone(), other.client(0));
    let quiet = || std::thread::sleep(Duration::from_secs(seconds));
    print_uncaptured("floods of frames");
    measure("no attack", &honest, &memory, quiet);
    for (number, kind) in KINDS.iter().enumerate() {
        let dialer = Dialer::new(&node.rpc_addr, &stranger(&cluster.site, number));
        let before = counter(&client, CLOSED);
        let (mut frames, mut closed) = (0, 0);
        measure(&format!("{few} times {}", kind.name), &honest, &memory, || {
            (frames, closed) = flood_frames(&dialer, kind, few, seconds);
        });
        let counted = eventually("a flood is counted", || {
            let counted = counter(&client, CLOSED) - before;
            // gRPC's core itself closes connections that flood pings.
            if counted > 0 || kind.name == "PING" { Ok(counted) } else { Err("none".to_owned()) }
        });
        assert!(closed > 0, "the flood was not stopped");
        print_uncaptured(&format!("  {frames} frames; {closed} connections closed, {counted} counted as floods"));
    }
    measure("after the attacks", &honest, &memory, quiet);
}
