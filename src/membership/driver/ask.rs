//! Rounds of asking: who is there, and who admits this node.

use std::time::Instant;

use futures::future::FutureExt as _;

use super::{Driver, Goal, JOIN_MAX, REPORT, ROUND, Stage};
use crate::membership::admission::{Admission, AdmissionError, Probed, join_request, members_of, with_hint};
use crate::membership::reasons::{self, MdnsState};
use crate::membership::search::{Search, Verdict};
use crate::pb::peer::JoinResponse;
use crate::replication::refusal::{Reason, Refusal, error_text};
use crate::types::ClusterId;

impl Driver {
    pub(super) fn round(&mut self) {
        match &self.goal {
            Goal::Nothing => {}
            Goal::Probe { until, .. } => self.search(*until),
            Goal::Admission { .. } => self.search(None),
            Goal::Keep { .. } => self.keep(),
        }
    }

    fn search(&mut self, patience: Option<Instant>) {
        let request = join_request(&self.options.cluster_name, None, &self.me);
        let mut search = Search::new(self.dialer.clone(), request, patience);
        search.ask(self.candidates.addresses());
        self.stage = Stage::Searching(Box::new(search));
    }

    pub(super) fn rest(&mut self) {
        self.stage = Stage::Rest { until: Instant::now() + ROUND };
    }

    pub(super) fn searched(&mut self) {
        let Stage::Searching(search) = std::mem::replace(&mut self.stage, Stage::Rest { until: Instant::now() }) else {
            return;
        };
        let verdict = search.verdict(self.candidates.join());
        match std::mem::replace(&mut self.goal, Goal::Nothing) {
            Goal::Probe { reply, .. } => reply.send(Probed {
                found: match verdict {
                    Verdict::Nobody => None,
                    Verdict::One(found) => found.into_iter().next(),
                    // Any of them is a reason not to found another one.
                    Verdict::Several(_) => search.found().first().cloned(),
                },
                silent: search.silent(self.candidates.join()),
            }),
            Goal::Admission { reply } => {
                if let Some(text) = search.removed().filter(|_| verdict == Verdict::Nobody) {
                    return reply.send(Err(AdmissionError::Removed(text.to_owned())));
                }
                self.goal = Goal::Admission { reply };
                match verdict {
                    Verdict::Nobody => {
                        let join = self.candidates.join();
                        let why = reasons::nobody(join, &self.me.bind_addr, search.others(), self.mdns_state());
                        self.not_admitted(why);
                        self.rest();
                    }
                    Verdict::One(found) => {
                        if !self.refused {
                            let members: Vec<&str> = found.iter().map(|f| f.addr.as_str()).collect();
                            self.not_admitted(format!("asked to be admitted by {}", members.join(" or ")));
                        }
                        let addresses = found.into_iter().map(|f| f.addr).collect();
                        self.join(addresses, None);
                    }
                    Verdict::Several(clusters) => {
                        self.not_admitted(reasons::several(&clusters));
                        self.rest();
                    }
                }
            }
            goal @ (Goal::Nothing | Goal::Keep { .. }) => self.goal = goal,
        }
    }

    /// Asks one of the addresses, each time the next one.
    pub(super) fn join(&mut self, addresses: Vec<String>, cluster_id: Option<ClusterId>) {
        let Some(addr) = addresses.get(self.joins % addresses.len().max(1)).cloned() else { return self.rest() };
        self.joins += 1;
        let request = join_request(&self.options.cluster_name, cluster_id, &self.me);
        let (dialer, to) = (self.dialer.clone(), addr.clone());
        let call = async move { dialer.join(&to, &request, JOIN_MAX).await };
        self.stage = Stage::Joining { addr, call: call.boxed() };
    }

    pub(super) fn joined(&mut self, answer: grpcio::Result<JoinResponse>) {
        let addr = match &self.stage {
            Stage::Joining { addr, .. } => addr.clone(),
            Stage::Rest { .. } | Stage::Searching(_) => String::new(),
        };
        self.rest();
        let refusal = match answer {
            Ok(response) => return self.accepted(&addr, &response),
            Err(error) => {
                let refusal = Refusal::from_error(&error);
                let text = refusal.as_ref().map_or_else(|| error_text(&error), |refusal| refusal.text.clone());
                let text = with_hint(&error, text);
                if matches!(self.goal, Goal::Admission { .. }) {
                    self.not_admitted(format!("{addr} has not admitted it: {text}"));
                    self.refused = true;
                } else {
                    self.trouble = format!("{addr}: {text}");
                }
                refusal
            }
        };
        let Some(refusal) = refusal.filter(|r| r.reason.is_final()) else { return };
        match std::mem::replace(&mut self.goal, Goal::Nothing) {
            Goal::Admission { reply } => {
                let text =
                    format!("not admitted to cluster {:?} by {addr}: {}", self.options.cluster_name, refusal.text);
                reply.send(Err(if refusal.reason == Reason::Removed {
                    AdmissionError::Removed(text)
                } else {
                    AdmissionError::NameTaken(text)
                }));
            }
            Goal::Keep { peers, .. } => {
                log::error!("the cluster does not take this node's name and addresses: {}", self.trouble);
                peers.exclude(refusal);
                self.goal = Goal::Keep { peers, settled: true };
            }
            goal @ (Goal::Nothing | Goal::Probe { .. }) => self.goal = goal,
        }
    }

    fn accepted(&mut self, addr: &str, response: &JoinResponse) {
        match std::mem::replace(&mut self.goal, Goal::Nothing) {
            Goal::Admission { reply } if response.cluster_id != 0 => {
                let cluster_id = ClusterId(response.cluster_id);
                log::info!("admitted to cluster {:?} ({cluster_id}) by {addr}", self.options.cluster_name);
                reply.send(Ok(Admission { cluster_id, members: members_of(response) }));
            }
            // Whether the catalog says so here, too, the next round sees.
            goal @ (Goal::Admission { .. } | Goal::Keep { .. } | Goal::Nothing | Goal::Probe { .. }) => {
                self.goal = goal
            }
        }
    }

    /// Notes what the last round came to, for the log and for clients.
    pub(super) fn not_admitted(&mut self, why: String) {
        self.refused = false;
        self.waiting.set(format!("not admitted to cluster {:?} yet: {why}", self.options.cluster_name));
        self.trouble = why;
    }

    /// What mDNS contributes.
    pub(super) fn mdns_state(&self) -> MdnsState {
        match (self.options.mdns, self.mdns.is_some(), self.candidates.has_finds()) {
            (false, _, _) => MdnsState::Off,
            (true, false, _) => MdnsState::Broken,
            (true, true, false) => MdnsState::FoundNobody,
            (true, true, true) => MdnsState::FoundSome,
        }
    }

    pub(super) fn report(&mut self) {
        self.next_report = Instant::now() + REPORT;
        if self.trouble.is_empty() {
            return;
        }
        let name = &self.options.cluster_name;
        match &self.goal {
            Goal::Admission { .. } => log::info!(
                "waiting to be admitted to cluster {name:?} ({}). To join it, start with --join HOST:PORT, the peer address (bind_addr) of a member; to make a new cluster, start one node, once, with --bootstrap",
                self.trouble
            ),
            Goal::Keep { .. } => {
                log::warn!("this node's new addresses are not known to the cluster yet: {}", self.trouble)
            }
            Goal::Nothing | Goal::Probe { .. } => {}
        }
    }
}
