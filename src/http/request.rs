//! Reads the head of a request.

use super::hosts::Hosts;
use super::response::Status;

/// The maximum size of a request's head. Browsers send about 1 KiB, because the listener sets no cookies.
pub const HEAD_BYTES_MAX: usize = 8 << 10;
/// The maximum number of header fields.
const HEADERS_MAX: usize = 64;

/// A request that is accepted: GET or HEAD, for a known host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The path, not decoded: no path of the listener needs it.
    pub path: String,
    /// The part after `?`, not decoded.
    pub query: String,
    /// The `Accept` header.
    pub accept: String,
    /// True for HEAD: the response has no body.
    pub is_head: bool,
}

impl Request {
    /// Returns the value of a parameter in the query, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| decoded(value))
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRequest {
    /// The status of the response.
    pub status: Status,
    /// The text of the response.
    pub why: &'static str,
}

const fn bad(status: Status, why: &'static str) -> BadRequest {
    BadRequest { status, why }
}

/// Reads the bytes that were received so far. `None` if the head is not complete.
///
/// # Errors
/// [`BadRequest`].
pub fn parse(bytes: &[u8], hosts: &Hosts) -> Result<Option<Request>, BadRequest> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(bad(Status::HeadTooLarge, "the head of the request is too large"));
        }
        Err(_) => return Err(bad(Status::BadRequest, "this is not a request of HTTP/1.1")),
    }
    let is_head = match head.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(bad(Status::MethodNotAllowed, "only GET and HEAD are served")),
    };
    let named = |name: &str| {
        let name = name.to_owned();
        head.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(&name)).map(|header| header.value)
    };
    match (named("host").count(), head.version) {
        // Only tools send HTTP/1.0 without a host; browsers do not.
        (0, Some(0)) | (1, _) => {}
        _ => return Err(bad(Status::BadRequest, "the request must have exactly one Host header")),
    }
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    if !named("host").all(|host| hosts.accept(&text(host))) {
        let why = "this host is not known by that name: use an IP address or localhost, or set http_host to the name";
        return Err(bad(Status::Misdirected, why));
    }
    let target = head.path.filter(|path| path.starts_with('/'));
    let target = target.ok_or(bad(Status::BadRequest, "the target of the request is not a path"))?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let accept = named("accept").map(text).collect::<Vec<_>>().join(",");
    Ok(Some(Request { path: path.to_owned(), query: query.to_owned(), accept, is_head }))
}

/// Decodes `%41` and `+` in a value of the query. What is not valid UTF-8 is replaced.
fn decoded(value: &str) -> String {
    let bytes = value.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, code) {
            (b'%', Some(code)) => {
                decoded.push(code);
                at += 3;
                continue;
            }
            (b'+', _) => decoded.push(b' '),
            _ => decoded.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Request>, BadRequest> {
        parse(text.as_bytes(), &Hosts::default())
    }

    fn status(text: &str) -> Status {
        read(text).expect_err("refused").status
    }

    #[test]
    fn reads_a_request_once_its_head_is_complete() {
        let text = "HEAD /api/logs?filter=a%2Bb+c&x HTTP/1.1\r\nHost: localhost:1\r\nAccept: text/plain\r\n\r\nbody";
        let end = text.len() - 4;
        (0..end).for_each(|end| assert_eq!(read(&text[..end]), Ok(None), "{end}"));
        let request = read(text).expect("valid").expect("complete");
        assert_eq!(
            (request.path.as_str(), request.accept.as_str(), request.is_head),
            ("/api/logs", "text/plain", true)
        );
        assert_eq!(request.parameter("filter").as_deref(), Some("a+b c"));
        assert_eq!((request.parameter("x"), request.parameter("filte")), (None, None));
        assert_eq!(decoded("%4"), "%4");
        assert_eq!(decoded("%zz%ff"), "%zz\u{fffd}");
    }

    #[test]
    fn refuses_what_it_does_not_serve() {
        assert_eq!(status("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n"), Status::MethodNotAllowed);
        assert_eq!(status("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"), Status::MethodNotAllowed);
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), Status::BadRequest, "no host");
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n"), Status::BadRequest, "two hosts");
        assert_eq!(status("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"), Status::Misdirected);
        assert_eq!(status("GET / HTTP/1.0\r\nHost: evil.example\r\n\r\n"), Status::Misdirected);
        assert_eq!(status("GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n"), Status::BadRequest);
        assert_eq!(status("\x16\x03\x01\x02\x00\x01\x00\x01"), Status::BadRequest, "TLS");
        assert_eq!(status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Status::BadRequest, "HTTP/2");
        assert!(read("GET / HTTP/1.0\r\n\r\n").is_ok_and(|request| request.is_some()));
        let large = format!("GET /{} HTTP/1.1\r\n", "a".repeat(HEAD_BYTES_MAX));
        assert_eq!(status(&large), Status::HeadTooLarge);
        let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX));
        assert_eq!(status(&many), Status::HeadTooLarge);
    }
}
