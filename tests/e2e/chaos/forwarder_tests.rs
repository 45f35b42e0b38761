//! The forwarder between two addresses of the loopback interface.

use super::*;

/// Nodes 0 and 1, of which node 1 listens, and the forwarder have addresses of their own: another test must not get a
/// port that is closed.
struct Pair {
    forwarder: Forwarder,
    listener: TcpListener,
    node: IpAddr,
}

const SILENCE: Duration = Duration::from_millis(200);

fn pair() -> Pair {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let network = NEXT.fetch_add(1, Ordering::Relaxed) as u8;
    let addr = |host| IpAddr::from([127, 9, network, host]);
    let listener = TcpListener::bind((addr(2), 0)).expect("a port");
    let nodes = [SocketAddr::new(addr(1), 1), listener.local_addr().expect("an address")];
    let mut forwarder = Forwarder::new(addr(3), &nodes, 1);
    forwarder.listen(1);
    Pair { forwarder, listener, node: addr(1) }
}

impl Pair {
    /// Opens a connection from node 0, and returns both ends of it.
    fn connect(&self) -> (TcpStream, TcpStream) {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let dialled = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&dialled, &SocketAddr::new(self.node, 0)).expect("bound");
        connect(&dialled, &self.forwarder.advertised(1)).expect("connected");
        let accepted = self.listener.accept().expect("accepted").0;
        let dialled = TcpStream::from(dialled);
        for socket in [&dialled, &accepted] {
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        }
        (dialled, accepted)
    }
}

fn receive(socket: &mut TcpStream) -> String {
    let mut bytes = [0; 100];
    let count = socket.read(&mut bytes).expect("bytes");
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

fn is_silent(socket: &mut TcpStream) -> bool {
    socket.set_read_timeout(Some(SILENCE)).expect("a socket");
    let result = socket.read(&mut [0; 1]);
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn passes_bytes_and_the_end_of_a_connection_on() {
    let pair = pair();
    let (mut near, mut far) = pair.connect();
    near.write_all(b"there").expect("sent");
    assert_eq!(receive(&mut far), "there");
    far.write_all(b"and back").expect("sent");
    assert_eq!(receive(&mut near), "and back");
    drop(near);
    assert_eq!(receive(&mut far), "");
}

#[test]
fn holds_one_direction_and_delivers_later() {
    let pair = pair();
    let (mut near, mut far) = pair.connect();
    pair.forwarder.change(0, 1, |rule| rule.held = 1);
    near.write_all(b"there").expect("sent");
    far.write_all(b"back").expect("sent");
    assert_eq!(receive(&mut near), "back");
    assert!(is_silent(&mut far));
    pair.forwarder.change(0, 1, |rule| rule.held = 0);
    assert_eq!(receive(&mut far), "there");
}

/// The end of a connection is held, too: a cut cable does not say that a process has ended.
#[test]
fn holds_the_end_of_a_connection() {
    let pair = pair();
    let (near, mut far) = pair.connect();
    pair.forwarder.change(0, 1, |rule| rule.held = 1);
    drop(near);
    assert!(is_silent(&mut far));
    pair.forwarder.change(0, 1, |rule| rule.held = 0);
    assert_eq!(receive(&mut far), "");
}

#[test]
fn delays_each_chunk_and_keeps_the_order() {
    let pair = pair();
    let (mut near, mut far) = pair.connect();
    let delay = Duration::from_millis(100);
    pair.forwarder.change(0, 1, |rule| (rule.delay, rule.jitter) = (delay, delay));
    let begin = Instant::now();
    let sent: String = ('a'..='z').collect();
    for byte in sent.bytes() {
        near.write_all(&[byte]).expect("sent");
    }
    let mut received = String::new();
    while received.len() < sent.len() {
        received += &receive(&mut far);
    }
    assert_eq!(received, sent);
    assert!(begin.elapsed() >= delay, "{:?}", begin.elapsed());
}

#[test]
fn cuts_resets_and_refuses_connections() {
    let mut pair = pair();
    let (mut near, mut far) = pair.connect();
    // The connection is open on both sides before it is registered.
    near.write_all(b"there").expect("sent");
    assert_eq!(receive(&mut far), "there");
    assert_eq!(pair.forwarder.cut(1, 0), 1);
    assert!(matches!(near.read(&mut [0; 1]), Ok(0) | Err(_)));
    let (mut near, mut far) = pair.connect();
    pair.forwarder.change(0, 1, |rule| rule.reset_one_in = 1);
    near.write_all(b"lost").expect("sent");
    assert!(matches!(far.read(&mut [0; 1]), Ok(0) | Err(_)));
    pair.forwarder.close(1);
    let refused = TcpStream::connect(pair.forwarder.advertised(1)).expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    pair.forwarder.listen(1);
    TcpStream::connect(pair.forwarder.advertised(1)).expect("it listens again");
}
