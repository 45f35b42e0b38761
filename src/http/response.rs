//! Writes the head of a response.

use bytes::Bytes;

/// The status of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of HTTP")]
pub enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    Misdirected,
    HeadTooLarge,
    ServiceUnavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::BadRequest => "400 Bad Request",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::Misdirected => "421 Misdirected Request",
            Status::HeadTooLarge => "431 Request Header Fields Too Large",
            Status::ServiceUnavailable => "503 Service Unavailable",
        }
    }
}

/// Nothing may be loaded: the policy of every response but the page.
const NO_CONTENT: &str = "default-src 'none'; frame-ancestors 'none'";

/// A response. The body is shared, so that the same page or text is not copied for each connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of HTTP")]
pub struct Response {
    pub status: Status,
    /// The media type of the body.
    pub content_type: &'static str,
    /// What the browser may load and run.
    pub content_security_policy: String,
    pub body: Bytes,
}

impl Response {
    /// A response of this type, from which a browser loads nothing.
    pub fn new(status: Status, content_type: &'static str, body: impl Into<Bytes>) -> Response {
        Response { status, content_type, content_security_policy: NO_CONTENT.to_owned(), body: body.into() }
    }

    /// A response of one or more lines of text.
    pub fn text(status: Status, text: impl Into<String>) -> Response {
        Response::new(status, "text/plain; charset=utf-8", text.into())
    }

    /// A response with a JSON value.
    pub fn json(status: Status, value: &serde_json::Value) -> Response {
        Response::new(status, "application/json", format!("{value}\n"))
    }

    /// Returns the head, up to the empty line. What is sent changes from second to second and names logs, so no cache may
    /// keep it.
    pub fn head(&self) -> String {
        let allow = if self.status == Status::MethodNotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
        format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n{allow}\
             Cache-Control: no-store\r\nContent-Security-Policy: {}\r\nCross-Origin-Resource-Policy: same-origin\r\n\
             Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n\r\n",
            self.status.line(),
            self.content_type,
            self.body.len(),
            self.content_security_policy,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_forbids_caches_frames_and_other_content() {
        let head = Response::text(Status::Ok, "ok\n").head();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        for line in [
            "Content-Length: 3",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
            "Connection: close",
        ] {
            assert!(head.split("\r\n").any(|other| other == line), "{line}: {head}");
        }
        assert!(Response::text(Status::MethodNotAllowed, "").head().contains("\r\nAllow: GET, HEAD\r\n"));
    }
}
