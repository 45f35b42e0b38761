//! What the HTTP listener serves: metrics, health, and a page about the cluster. All of it is read-only, and none of it
//! contains records or secrets, because every client that reaches the listener can read it.
//!
//! ```text
//!   health.rs     /live and /ready
//!   families.rs   metrics of each log, the disk and the cluster; process.rs: those of the process
//!   nodes.rs      asks the other nodes what they report of themselves, over the connections between peers
//!   state.rs      /api/cluster and /api/logs: what the page shows, as JSON
//!   page.rs       the page: page.html
//! ```
//!
//! To add a path, add a line to `ROUTES`. Nothing here blocks: answers are futures on the thread `http`.

mod families;
mod health;
mod nodes;
mod page;
mod process;
mod state;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::ready;
use parking_lot::Mutex;

pub use self::health::{Liveness, ReadyCheck};

use self::nodes::Gatherer;
use self::page::Page;
use crate::api::service::Service;
use crate::http::{Answer, Handler, Request, Response, Status};
use crate::metrics::TextFormat;

/// Metrics are encoded at most once in this time, so that clients can't make the node spend its time on them.
const TEXT_FRESH: Duration = Duration::from_millis(500);

/// A path, what is found there, and what answers.
type Route = (&'static str, &'static str, fn(&Arc<Parts>, Request) -> Answer);

const ROUTES: [Route; 6] = [
    ("/", "the page", |parts, _| now(parts.page.response())),
    ("/metrics", "metrics for Prometheus", |parts, request| now(parts.metrics(&request))),
    ("/live", "200 while no thread of the node hangs", |parts, _| now(health::live(&parts.liveness))),
    ("/ready", "200 while the node serves requests", |parts, _| {
        let parts = parts.clone();
        async move { health::ready(&parts.service, &parts.ready).await }.boxed()
    }),
    ("/api/cluster", "nodes and events as JSON; may change with any version", |parts, _| {
        let parts = parts.clone();
        async move { state::cluster(&*parts.gatherer.snapshot().await) }.boxed()
    }),
    ("/api/logs", "logs and cursors as JSON; may change with any version", |parts, request| {
        let parts = parts.clone();
        async move { state::logs(&*parts.gatherer.snapshot().await, &request) }.boxed()
    }),
];

/// Answers the requests to the HTTP listener.
pub struct Monitor(Arc<Parts>);

struct Parts {
    service: Service,
    liveness: Liveness,
    ready: ReadyCheck,
    gatherer: Gatherer,
    page: Page,
    /// The last texts of metrics, and when they were encoded.
    texts: Mutex<[Option<(Instant, Bytes)>; 2]>,
}

impl Monitor {
    /// Registers the metrics that are collected when they are read. `ready` returns what the node waits for, if it is not
    /// ready. The registry keeps it, so it must not own what owns the registry.
    pub fn new(service: Service, liveness: Liveness, ready: ReadyCheck) -> Monitor {
        families::register(&service, &ready);
        process::register(service.metrics.registry());
        let gatherer = Gatherer::new(service.clone());
        Monitor(Arc::new(Parts { service, liveness, ready, gatherer, page: Page::new(), texts: Mutex::default() }))
    }

    /// Returns what answers requests.
    pub fn handler(self) -> Handler {
        let parts = self.0;
        Arc::new(move |request| match ROUTES.iter().find(|(path, ..)| *path == request.path) {
            Some((_, _, answer)) => answer(&parts, request),
            None => now(not_found()),
        })
    }
}

impl Parts {
    fn metrics(&self, request: &Request) -> Response {
        let format = TextFormat::accepted(&request.accept);
        let mut texts = self.texts.lock();
        let fresh = texts[format as usize].as_ref().filter(|(at, _)| at.elapsed() < TEXT_FRESH);
        let text = match fresh {
            Some((_, text)) => text.clone(),
            None => {
                let text = Bytes::from(self.service.metrics.registry().encode(format));
                texts[format as usize] = Some((Instant::now(), text.clone()));
                text
            }
        };
        Response::new(Status::Ok, format.content_type(), text)
    }
}

fn now(response: Response) -> Answer {
    ready(response).boxed()
}

fn not_found() -> Response {
    let mut text = "not found; this listener serves:\n".to_owned();
    ROUTES.iter().for_each(|(path, what, _)| text += &format!("{path:<14}{what}\n"));
    Response::text(Status::NotFound, text)
}
