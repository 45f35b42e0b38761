//! A server with hostile and slow clients.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::channel::oneshot;
use parking_lot::Mutex;

use super::{Hosts, HttpServer, Request, Response, Status};
use crate::thread::fatal_channel;

const GET: &str = "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn serve(handler: impl Fn(Request) -> super::Answer + Send + Sync + 'static) -> HttpServer {
    let (fatal, _) = fatal_channel();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    HttpServer::start(listener, Hosts::default(), Arc::new(handler), &fatal).expect("a server")
}

fn plain(request: Request) -> super::Answer {
    async move { Response::text(Status::Ok, format!("path {}\n", request.path)) }.boxed()
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream
}

fn ask(addr: SocketAddr, request: &str) -> String {
    let mut stream = connect(addr);
    stream.write_all(request.as_bytes()).expect("sent");
    read_all(&mut stream)
}

fn read_all(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a response");
    text
}

#[test]
fn serves_get_and_head() {
    let server = serve(plain);
    let answer = ask(server.addr(), GET);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\npath /a\n"), "{answer}");
    let answer = ask(server.addr(), &GET.replace("GET", "HEAD"));
    assert!(answer.contains("Content-Length: 8\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    // A second request on the same connection is not served.
    let answer = ask(server.addr(), &GET.repeat(2));
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

/// If the connection was closed while a body is on its way, the client's kernel could discard the response.
#[test]
fn a_body_is_not_read_and_the_refusal_arrives() {
    let server = serve(plain);
    let mut stream = connect(server.addr());
    stream.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n").expect("sent");
    stream.write_all(&[0; 10_000]).expect("sent");
    let answer = read_all(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{answer}");
}

#[test]
fn a_client_that_sends_nothing_is_disconnected() {
    let server = serve(plain);
    let began = Instant::now();
    let mut silent = connect(server.addr());
    let mut slow = connect(server.addr());
    slow.write_all(b"GET / HTTP/1.1\r\nHo").expect("sent");
    assert_eq!((read_all(&mut silent), read_all(&mut slow)), (String::new(), String::new()));
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
}

/// Otherwise 64 connections that send nothing would keep the monitoring system out.
#[test]
fn a_new_client_is_served_while_others_hold_all_connections() {
    let server = serve(plain);
    let held: Vec<TcpStream> = (0..200).map(|_| connect(server.addr())).collect();
    let began = Instant::now();
    assert!(ask(server.addr(), GET).ends_with("path /a\n"));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    drop(held);
}

#[test]
fn an_answer_that_comes_later_is_sent_and_others_are_served_meanwhile() {
    let (sender, receiver) = oneshot::channel::<()>();
    let receiver = Mutex::new(Some(receiver));
    let server = serve(move |request| match receiver.lock().take_if(|_| request.path == "/later") {
        Some(later) => async move {
            let _ = later.await;
            Response::text(Status::Ok, "later\n")
        }
        .boxed(),
        None => plain(request),
    });
    let mut later = connect(server.addr());
    later.write_all(GET.replace("/a", "/later").as_bytes()).expect("sent");
    assert!(ask(server.addr(), GET).ends_with("path /a\n"));
    sender.send(()).expect("it waits");
    assert!(read_all(&mut later).ends_with("\r\n\r\nlater\n"));
}

/// A client that reads nothing must not block the others, and a stop must not wait for it.
#[test]
fn a_client_that_reads_nothing_blocks_nobody() {
    let body = bytes::Bytes::from(vec![b'x'; 32 << 20]);
    let large = body.clone();
    let server = serve(move |request| {
        let body = if request.path == "/a" { "small".into() } else { large.clone() };
        async move { Response::new(Status::Ok, "text/plain", body) }.boxed()
    });
    // More than the maximum number of connections.
    let stuck: Vec<TcpStream> = (0..70)
        .map(|_| {
            let mut stuck = connect(server.addr());
            stuck.write_all(GET.replace("/a", "/large").as_bytes()).expect("sent");
            stuck.read_exact(&mut [0]).expect("the response has begun");
            stuck
        })
        .collect();
    let began = Instant::now();
    assert!(ask(server.addr(), GET).ends_with("small"));
    drop(server);
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(stuck);
}
