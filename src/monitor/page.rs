//! The page: one HTML file with its style and its script inside, so that a browser loads nothing else.
//!
//! The browser is told to run only this script: its hash is in the `Content-Security-Policy` header. So text that got into
//! the page by mistake, like a name of a log, can't run.

use openssl::base64::encode_block;
use openssl::sha::sha256;

use crate::http::{Response, Status};

const HTML: &str = include_str!("page.html");

pub(super) struct Page(Response);

impl Page {
    pub fn new() -> Page {
        let mut response = Response::new(Status::Ok, "text/html; charset=utf-8", HTML);
        response.content_security_policy = format!(
            "default-src 'none'; connect-src 'self'; style-src '{}'; script-src '{}'; img-src data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
            hash(inside("style")),
            hash(inside("script")),
        );
        Page(response)
    }

    pub fn response(&self) -> Response {
        self.0.clone()
    }
}

/// Returns what is between `<tag>` and `</tag>`; each occurs once.
fn inside(tag: &str) -> &'static str {
    let after = HTML.split_once(&format!("<{tag}>")).map_or("", |(_, after)| after);
    after.split_once(&format!("</{tag}>")).map_or("", |(inside, _)| inside)
}

fn hash(text: &str) -> String {
    format!("sha256-{}", encode_block(&sha256(text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any other address would be blocked by the policy, or would tell another host that the page is used.
    #[test]
    fn the_page_names_nothing_outside_and_inserts_no_html() {
        for tag in ["style", "script"] {
            assert_eq!(HTML.matches(&format!("<{tag}")).count(), 1, "{tag}");
            assert!(!inside(tag).is_empty(), "{tag}");
        }
        for absent in
            ["src=", "href=\"http", "url(", "@import", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval("]
        {
            assert!(!HTML.contains(absent), "{absent}");
        }
        // The namespace of SVG is a name, not an address that is loaded.
        let addresses: Vec<&str> =
            HTML.match_indices("://").map(|(at, _)| &HTML[at - 4..(at + 20).min(HTML.len())]).collect();
        assert!(addresses.iter().all(|address| address.starts_with("http://www.w3.org/")), "{addresses:?}");
        let policy = Page::new().response().content_security_policy;
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
    }
}
