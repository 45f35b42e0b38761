//! Rounds of requests: finds the cluster that answers, and asks it for admission.

use std::time::{Duration, Instant};

use futures::future::FutureExt as _;

use super::form::{FormRound, Formed, conclude};
use super::{Goal, MembershipDriver, REPORT, ROUND, Stage};
use crate::membership::admission::{Admission, AdmissionError, Entrance, Probed, join_request, members_of, with_hint};
use crate::membership::reasons::{self, MdnsState};
use crate::membership::search::{Search, SearchVerdict};
use crate::pb::peer::JoinResponse;
use crate::replication::refusal::{Reason, Refusal, error_text};
use crate::types::ClusterId;

/// The timeout of a join request: its entry must be committed within this time.
const JOIN_MAX: Duration = Duration::from_secs(6);
/// The pause between the first rounds while another node is joining. On an idle cluster, a join takes much less than
/// a second.
const ROUND_SHORT: Duration = Duration::from_millis(100);
const ROUNDS_SHORT: u32 = 30;
/// The number of leader hints in a row that are followed without a pause. Without a limit, members that name each
/// other as the leader would be asked forever without a pause.
const HINTS_MAX: u32 = 3;

impl MembershipDriver {
    pub(super) fn round(&mut self) {
        match &self.goal {
            Goal::Nothing => {}
            Goal::Probe { until, .. } => self.search(*until),
            // The previous round has shown that only one cluster has this name.
            Goal::Admission { .. } if self.leader.is_some() => self.join(Vec::new(), None),
            Goal::Admission { .. } => self.search(None),
            Goal::Keep { .. } => self.update_own_entry(),
        }
    }

    fn search(&mut self, until: Option<Instant>) {
        let request = join_request(&self.options, None, &self.me);
        let mut search = Search::new(self.dialer.clone(), request, until);
        search.ask(self.candidates.addresses());
        if let Some(forming) = &self.options.forming {
            search.ask(forming.state.lock().addresses());
        }
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
        self.nothing_answers = !search.has_answer(&self.me.bind_addr);
        match std::mem::replace(&mut self.goal, Goal::Nothing) {
            Goal::Probe { reply, .. } => reply.send(Probed {
                found: match verdict {
                    SearchVerdict::Nobody => None,
                    SearchVerdict::One(found) => found.into_iter().next(),
                    // Each of them is a reason not to found another cluster.
                    SearchVerdict::Several(_) => search.found_clusters().first().cloned(),
                },
                silent: search.silent(self.candidates.join()),
            }),
            Goal::Admission { reply } => {
                if let Some(refusal) = search.ended().filter(|_| verdict == SearchVerdict::Nobody) {
                    let (reason, text) = (refusal.reason, refusal.text.clone());
                    return reply.send(Err(AdmissionError::Refused { reason, text }));
                }
                self.goal = Goal::Admission { reply };
                match verdict {
                    SearchVerdict::Nobody => {
                        let join = self.candidates.join();
                        let why = reasons::nobody(join, &self.me.bind_addr, search.others(), self.mdns_state());
                        match &self.options.forming {
                            None => {
                                self.not_admitted(why);
                                self.rest();
                            }
                            Some(forming) => {
                                self.trouble = why;
                                let mut addresses = search.blank().clone();
                                addresses.remove(&self.me.bind_addr);
                                let name = &self.options.cluster_name;
                                let round = FormRound::start(&self.dialer, name, &forming.state, &addresses);
                                self.stage = Stage::Forming(round);
                            }
                        }
                    }
                    SearchVerdict::One(found) => {
                        if !self.refused {
                            let members: Vec<&str> = found.iter().map(|f| f.addr.as_str()).collect();
                            self.not_admitted(format!("asked to be admitted by {}", members.join(" or ")));
                        }
                        let addresses = found.into_iter().map(|f| f.addr).collect();
                        self.join(addresses, None);
                    }
                    SearchVerdict::Several(clusters) => {
                        self.not_admitted(reasons::several(&clusters));
                        self.rest();
                    }
                }
            }
            goal @ (Goal::Nothing | Goal::Keep { .. }) => self.goal = goal,
        }
    }

    /// Ends a round of messages to other blank nodes.
    pub(super) fn formed(&mut self) {
        let Some(forming) = &self.options.forming else { return };
        let now = Instant::now();
        match conclude(forming, self.me.id, now) {
            Ok(Formed::Waits(status, pause)) => {
                let asked = std::mem::take(&mut self.trouble);
                self.not_admitted(reasons::forming(&status, &asked));
                self.stage = Stage::Rest { until: now + pause };
            }
            Ok(Formed::Founds) => {
                self.rest();
                match std::mem::replace(&mut self.goal, Goal::Nothing) {
                    Goal::Admission { reply } => reply.send(Ok(Entrance::Founds)),
                    goal @ (Goal::Nothing | Goal::Probe { .. } | Goal::Keep { .. }) => self.goal = goal,
                }
            }
            Err(error) => self.failure = Some(error),
        }
    }

    /// Sends a join request: to the leader if its address is known (it is used once), otherwise to the next of the
    /// addresses.
    pub(super) fn join(&mut self, addresses: Vec<String>, cluster_id: Option<ClusterId>) {
        let next = self.leader.take().or_else(|| {
            self.joins += 1;
            addresses.get((self.joins - 1) % addresses.len().max(1)).cloned()
        });
        let Some(addr) = next else { return self.rest() };
        let request = join_request(&self.options, cluster_id, &self.me);
        let (dialer, to) = (self.dialer.clone(), addr.clone());
        let call = async move { dialer.join_any(&to, &request, JOIN_MAX).await };
        self.stage = Stage::Joining { addr, call: call.boxed() };
    }

    pub(super) fn joined(&mut self, answer: grpcio::Result<JoinResponse>) {
        let addr = match &self.stage {
            Stage::Joining { addr, .. } => addr.clone(),
            Stage::Rest { .. } | Stage::Searching(_) | Stage::Forming(_) => String::new(),
        };
        self.rest();
        let refusal = match answer {
            Ok(response) => return self.handle_accepted(&addr, &response),
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
        self.plan_next_request(&addr, refusal.as_ref());
        let Some(refusal) = refusal.filter(|r| r.reason.is_final()) else { return };
        match std::mem::replace(&mut self.goal, Goal::Nothing) {
            Goal::Admission { reply } => {
                let text =
                    format!("not admitted to cluster {:?} by {addr}: {}", self.options.cluster_name, refusal.text);
                reply.send(Err(AdmissionError::Refused { reason: refusal.reason, text }));
            }
            Goal::Keep { peers, .. } => {
                log::error!("the cluster does not take this node's name and addresses: {}", self.trouble);
                peers.exclude(refusal);
                self.goal = Goal::Keep { peers, settled: true };
            }
            goal @ (Goal::Nothing | Goal::Probe { .. }) => self.goal = goal,
        }
    }

    /// Decides when to send the next join request, and to which address.
    fn plan_next_request(&mut self, asked: &str, refusal: Option<&Refusal>) {
        let waits = refusal.is_some_and(|r| r.reason == Reason::AnotherJoins);
        self.leader = refusal.and_then(|r| r.leader.clone()).filter(|leader| leader != asked);
        self.hints = if self.leader.is_some() { self.hints + 1 } else { 0 };
        self.waits = match (waits, &self.leader) {
            (true, _) => self.waits + 1,
            (false, Some(_)) => self.waits,
            (false, None) => 0,
        };
        if self.hints > HINTS_MAX {
            (self.hints, self.leader) = (0, None);
        } else if self.leader.is_some() {
            self.stage = Stage::Rest { until: Instant::now() };
        } else if waits {
            // Only a leader refuses for this reason, so it is asked again. Now and then another member is asked, in
            // case that node is faulty.
            self.leader = Some(asked.to_owned()).filter(|_| !self.waits.is_multiple_of(ROUNDS_SHORT));
            let pause = if self.waits < ROUNDS_SHORT { ROUND_SHORT } else { ROUND };
            self.stage = Stage::Rest { until: Instant::now() + pause };
        }
    }

    fn handle_accepted(&mut self, addr: &str, response: &JoinResponse) {
        match std::mem::replace(&mut self.goal, Goal::Nothing) {
            Goal::Admission { reply } if response.cluster_id != 0 => {
                let cluster_id = ClusterId(response.cluster_id);
                log::info!("{addr} has admitted this node");
                reply.send(Ok(Entrance::Admitted(Admission { cluster_id, members: members_of(response) })));
            }
            // The next round checks whether this node's own catalog contains the change.
            goal @ (Goal::Admission { .. } | Goal::Keep { .. } | Goal::Nothing | Goal::Probe { .. }) => {
                self.goal = goal
            }
        }
    }

    /// Records the result of the last round, for the log and for clients.
    pub(super) fn not_admitted(&mut self, why: String) {
        self.refused = false;
        self.waiting.set(format!("not admitted to cluster {:?} yet: {why}", self.options.cluster_name));
        self.trouble = why;
    }

    /// Returns the state of mDNS, for the reasons that are logged.
    pub(super) fn mdns_state(&self) -> MdnsState {
        match (self.options.mdns.is_some(), self.mdns.is_some(), self.candidates.has_finds()) {
            (false, _, _) => MdnsState::Off,
            (true, false, _) => MdnsState::Broken,
            (true, true, false) => MdnsState::FoundNone,
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
            Goal::Admission { .. } if self.waits > 0 => {
                log::info!("waiting to be admitted to cluster {name:?}: {}", self.trouble);
            }
            Goal::Admission { .. } => {
                let (level, advice) = match self.options.forming {
                    Some(_) => (log::Level::Info, ""),
                    None => reasons::advice(self.candidates.join(), self.mdns_state()),
                };
                let firewall = match self.nothing_answers {
                    true => reasons::firewall(&self.me.bind_addr, self.mdns_state()),
                    false => String::new(),
                };
                log::log!(level, "waiting to be admitted to cluster {name:?}: {}{firewall}{advice}", self.trouble);
            }
            Goal::Keep { .. } => {
                log::warn!("this node's new addresses are not known to the cluster yet: {}", self.trouble)
            }
            Goal::Nothing | Goal::Probe { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc;

    use super::*;
    use crate::feature_level::ClusterLevel;
    use crate::membership::options::MembershipOptions;
    use crate::replication::tests::{CLUSTER, Setup};
    use crate::reply::reply;
    use crate::waiting::WaitingFor;

    /// Two members that named each other as the leader were asked alternately without a pause. A node that answered
    /// "another node is joining" was the only one that was asked from then on.
    #[test]
    fn no_answer_prevents_pauses_or_requests_to_other_members() {
        let node = Setup::node(3).start();
        let options = MembershipOptions {
            cluster_name: CLUSTER.to_owned(),
            join: Vec::new(),
            mdns: None,
            levels: ClusterLevel::default(),
            forming: None,
        };
        let (_, inbox) = mpsc::channel(0);
        let mut driver =
            MembershipDriver::new(options, node.member(), node.dialer.clone(), WaitingFor::default(), inbox);
        driver.goal = Goal::Admission { reply: reply().0 };
        let mut at_once = 0;
        for hop in 0..1000 {
            let (asked, leader) = if hop % 2 == 0 { ("a:1", "b:1") } else { ("b:1", "a:1") };
            driver.rest();
            driver.plan_next_request(asked, Some(&Refusal::ask_leader(leader.to_owned())));
            let waits = matches!(driver.stage, Stage::Rest { until } if until > Instant::now() + ROUND_SHORT / 2);
            at_once += u32::from(!waits);
        }
        println!("{at_once} of 1000 at once");
        let mut same = 0;
        for _ in 0..1000 {
            driver.leader = None;
            driver.plan_next_request("a:1", Some(&Refusal::new(Reason::AnotherJoins, "another")));
            same += u32::from(driver.leader.is_some());
        }
        println!("{same} of 1000 to the same");
        assert!(
            at_once <= 800 && same <= 980,
            "{at_once} hops of 1000 without a pause, {same} of 1000 waits to the same"
        );
    }
}
