//! Starts the listener for monitoring.

use std::net::TcpListener;
use std::sync::Arc;

use super::base::Base;
use super::error::{AgentError, no_thread};
use super::listen_addr;
use crate::config::{Config, host_name};
use crate::http::hosts::host_of;
use crate::http::{Hosts, HttpServer};
use crate::monitor::{Liveness, Monitor};

/// Binds the address, unless the listener is off. Connections wait until [`start`].
pub(super) fn bind(config: &Config) -> Result<Option<TcpListener>, AgentError> {
    let Some(addr) = config.http.http_addr.0 else { return Ok(None) };
    if !addr.ip().is_loopback() {
        log::warn!("http_addr is {addr}: every host that reaches it can read metrics, and names of logs and nodes");
    }
    listen_addr::bind("http-addr (for monitoring; `--http-addr off` turns it off)", addr).map(Some)
}

/// Returns the address of the listener as text, with its actual port; `off` without one.
pub(super) fn addr_text(listener: Option<&TcpListener>) -> String {
    let addr = listener.and_then(|listener| listener.local_addr().ok());
    addr.map_or_else(|| "off".to_owned(), |addr| addr.to_string())
}

/// Serves the requests to the listener.
pub(super) fn start(listener: TcpListener, base: &Arc<Base>, liveness: Liveness) -> Result<HttpServer, AgentError> {
    let hosts = [&base.me.rpc_addr, &base.me.bind_addr].into_iter().filter_map(|addr| host_of(addr)).map(str::to_owned);
    let hosts = Hosts::new(hosts.chain([host_name()]).chain(base.config.http.http_host.clone()));
    // The registry of the base holds this, too. A strong reference would keep both for ever.
    let weak = Arc::downgrade(base);
    let ready = move || weak.upgrade().map_or_else(|| Err("the node is stopping".to_owned()), |base| base.readiness());
    let monitor = Monitor::new(base.api().service(), liveness, Arc::new(ready));
    HttpServer::start(listener, hosts, monitor.handler(), &base.fatal).map_err(no_thread)
}
