//! mDNS: this node is announced as `_seriatim._tcp.local.`, and others are found. The one file that knows mdns-sd.
//!
//! The TXT record says everything: `cluster`, `cluster_id`, `node`, `node_id`, `bind_addr`, `rpc_addr`; ids as sixteen
//! hexadecimal digits. Whatever it says is a suggestion, since everybody on the link can say it.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use mdns_sd::{ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};

use crate::catalog::Member;
use crate::types::{ClusterId, NodeId};

const SERVICE: &str = "_seriatim._tcp.local.";
/// The goodbye is given this long to go out.
const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// A node that announces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    /// The name of its announcement.
    pub instance: String,
    /// Its cluster's name.
    pub cluster_name: String,
    /// Its cluster's id.
    pub cluster_id: ClusterId,
    /// Its id.
    pub node_id: NodeId,
    /// Where its peer listener is, `host:port`.
    pub bind_addr: String,
}

/// What mDNS says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MdnsEvent {
    /// A node is there, or its announcement has changed.
    Found(Find),
    /// A node said goodbye, or was not heard for long.
    Gone(String),
    /// The search has ended: nothing is found any more.
    Ended,
}

/// mDNS does not work on this host.
#[derive(Debug)]
pub struct MdnsError(mdns_sd::Error);

impl fmt::Display for MdnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mDNS does not work here: {}", self.0)
    }
}

impl std::error::Error for MdnsError {}

impl From<mdns_sd::Error> for MdnsError {
    fn from(error: mdns_sd::Error) -> MdnsError {
        MdnsError(error)
    }
}

/// The daemon, its thread, and what it finds.
pub struct Mdns {
    daemon: ServiceDaemon,
    events: Pin<Box<dyn Stream<Item = ServiceEvent> + Send>>,
    ended: bool,
    announced: Option<String>,
}

impl Mdns {
    /// Starts the daemon and the search.
    ///
    /// # Errors
    /// [`MdnsError`] when the system has no sockets or thread for it.
    pub fn start() -> Result<Mdns, MdnsError> {
        let daemon = ServiceDaemon::new()?;
        let events = daemon.browse(SERVICE)?;
        // A subscription whose channel is full ends: its bound is mdns-sd's.
        Ok(Mdns { daemon, events: Box::pin(events.into_stream()), ended: false, announced: None })
    }

    /// What is said next.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<MdnsEvent> {
        while !self.ended {
            match self.events.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    self.ended = true;
                    return Poll::Ready(MdnsEvent::Ended);
                }
                Poll::Ready(Some(event)) => {
                    if let Some(event) = understood(event) {
                        return Poll::Ready(event);
                    }
                }
            }
        }
        Poll::Pending
    }

    /// Announces this node, a member of a cluster.
    ///
    /// # Errors
    /// [`MdnsError`] for what can't be announced.
    pub fn announce(&mut self, cluster_name: &str, cluster_id: ClusterId, me: &Member) -> Result<(), MdnsError> {
        let (host, port) = me.bind_addr.rsplit_once(':').unwrap_or((&me.bind_addr, "0"));
        let port = port.parse().unwrap_or(0);
        let properties = [
            ("cluster", cluster_name.to_owned()),
            ("cluster_id", cluster_id.to_string()),
            ("node", me.name.to_string()),
            ("node_id", me.id.to_string()),
            ("bind_addr", me.bind_addr.clone()),
            ("rpc_addr", me.rpc_addr.clone()),
        ];
        // A label holds 63 bytes; a node's name may be longer, its id is not.
        let instance = me.id.to_string();
        let host_name = format!("seriatim-{instance}.local.");
        let info = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) => ServiceInfo::new(SERVICE, &instance, &host_name, ip, port, &properties[..])?,
            Err(_) => ServiceInfo::new(SERVICE, &instance, &host_name, "", port, &properties[..])?.enable_addr_auto(),
        };
        let name = info.get_fullname().to_owned();
        self.daemon.register(info)?;
        self.announced = Some(name);
        Ok(())
    }

    /// Says goodbye and ends the daemon. Waits for each, but not for long: nobody depends on a goodbye.
    pub fn stop(mut self) {
        if let Some(Ok(said)) = self.announced.take().map(|name| self.daemon.unregister(&name)) {
            let _ = said.recv_timeout(GOODBYE_MAX);
        }
        if let Ok(ended) = self.daemon.shutdown() {
            let _ = ended.recv_timeout(GOODBYE_MAX);
        }
    }
}

fn understood(event: ServiceEvent) -> Option<MdnsEvent> {
    match event {
        ServiceEvent::ServiceResolved(service) => find(&service).map(MdnsEvent::Found),
        ServiceEvent::ServiceRemoved(_, instance) => Some(MdnsEvent::Gone(instance)),
        // Its enum may grow; nothing else says where a node is.
        _ => None,
    }
}

fn find(service: &ResolvedService) -> Option<Find> {
    let text = |key: &str| service.get_property_val_str(key);
    let bind_addr = text("bind_addr")?;
    let (host, port) = bind_addr.rsplit_once(':')?;
    if host.is_empty() || !port.parse::<u16>().is_ok_and(|p| p > 0) {
        return None;
    }
    Some(Find {
        instance: service.fullname.clone(),
        cluster_name: text("cluster")?.to_owned(),
        cluster_id: text("cluster_id")?.parse().ok()?,
        node_id: text("node_id")?.parse().ok()?,
        bind_addr: bind_addr.to_owned(),
    })
}
