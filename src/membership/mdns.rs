//! mDNS: announces this node as `_seriatim._tcp.local.`, and finds other nodes. The only file that uses mdns-sd.
//!
//! The TXT record contains `cluster`, `cluster_id`, `node`, `node_id`, `bind_addr` and `rpc_addr`, ids as sixteen
//! hexadecimal digits. It is only a suggestion, because any host on the network can send it.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use mdns_sd::{IfKind, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};

use crate::catalog::Member;
use crate::types::{ClusterId, NodeId};

const SERVICE: &str = "_seriatim._tcp.local.";
/// The longest wait until the announcement is withdrawn.
const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// A node that mDNS found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    /// The full name of its announcement.
    pub instance: String,
    /// The cluster's name, as announced.
    pub cluster_name: String,
    /// The cluster's id, as announced. 0: it is a blank node.
    pub cluster_id: ClusterId,
    /// The node's id, as announced.
    pub node_id: NodeId,
    /// The address of its peer listener, `host:port`.
    pub bind_addr: String,
}

/// A change of the nodes that mDNS has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MdnsEvent {
    /// A node was found, or its announcement has changed.
    Found(Find),
    /// A node has withdrawn its announcement, or was not heard from for a long time.
    Gone(String),
    /// The search has ended. No other node will be found.
    Ended,
}

/// The error if mDNS does not work on this host.
#[derive(Debug, thiserror::Error)]
#[error("mDNS does not work on this host: {0}")]
pub struct MdnsError(#[from] mdns_sd::Error);

/// The running mdns-sd daemon, and its events.
pub struct Mdns {
    daemon: ServiceDaemon,
    events: Pin<Box<dyn Stream<Item = ServiceEvent> + Send>>,
    ended: bool,
    announced: Option<String>,
}

impl Mdns {
    /// Starts the daemon and the search on the interface with the address `bind_ip`, or on all interfaces if it is
    /// unspecified.
    ///
    /// # Errors
    /// [`MdnsError`] if the system does not provide the sockets or the thread.
    pub fn start(bind_ip: IpAddr) -> Result<Mdns, MdnsError> {
        let daemon = ServiceDaemon::new()?;
        if !bind_ip.is_unspecified() {
            daemon.disable_interface(IfKind::All)?;
            daemon.enable_interface(IfKind::Addr(bind_ip))?;
        }
        let events = daemon.browse(SERVICE)?;
        // mdns-sd limits the channel, and ends the subscription when the channel is full.
        Ok(Mdns { daemon, events: Box::pin(events.into_stream()), ended: false, announced: None })
    }

    /// Returns the next event.
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

    /// Announces this node as a member of a cluster; with the cluster id 0, as a blank node that waits for others.
    /// Replaces the announcement before.
    ///
    /// # Errors
    /// [`MdnsError`] if mdns-sd does not accept the announcement.
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
        // A DNS label has at most 63 bytes. A node's name can be longer, so its id is used.
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

    /// Withdraws the announcement and ends the daemon. Waits only briefly for each, because other nodes don't depend
    /// on it.
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
        // The enum of mdns-sd is not exhaustive. No other event contains the address of a node.
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
