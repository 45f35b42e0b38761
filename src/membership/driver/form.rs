//! Rounds of messages between blank nodes that form a cluster (`crate::forming`), and what each round decides.

use std::collections::BTreeSet;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;

use crate::forming::{FormAnswer, FormingHandle, FormingStatus, Step, StoredPledge};
use crate::membership::options::FormingOptions;
use crate::replication::dial::Dialer;
use crate::storage::log::StorageError;
use crate::types::NodeId;

/// The timeout of a message.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// The pause before the next round, after one that has decided something.
const ROUND_NEXT: Duration = Duration::from_millis(20);
/// The pause before the next round while other blank nodes answer, and the addition for each of them: every round needs
/// a connection to each.
const ROUND: Duration = Duration::from_millis(200);
const ROUND_FOR_EACH: Duration = Duration::from_millis(20);
/// The pause before the next round while none answers.
const ROUND_ALONE: Duration = Duration::from_millis(500);

/// The messages of one round.
pub(super) struct FormRound {
    state: FormingHandle,
    calls: FuturesUnordered<BoxFuture<'static, grpcio::Result<Option<FormAnswer>>>>,
}

impl FormRound {
    /// Sends a message to each address.
    pub(super) fn start(
        dialer: &Dialer,
        cluster_name: &str,
        state: &FormingHandle,
        addresses: &BTreeSet<String>,
    ) -> FormRound {
        let calls = FuturesUnordered::new();
        for addr in addresses {
            let message = state.lock().message_to(addr);
            let (dialer, cluster_name, addr) = (dialer.clone(), cluster_name.to_owned(), addr.clone());
            let call = async move { dialer.form(&cluster_name, &addr, &message, ANSWER_MAX).await };
            calls.push(call.boxed());
        }
        FormRound { state: state.clone(), calls }
    }

    /// Processes the answers that have arrived. Ready when the round is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.calls.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(Some(answer)))) => self.state.lock().answered(answer, Instant::now()),
                // A member is found by the next search. A node that does not answer does not count.
                Poll::Ready(Some(Ok(None) | Err(_))) => {}
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// What a round has decided.
pub(super) enum Formed {
    /// This node waits, for the reason in the status. The next round begins after this pause.
    Waits(Box<FormingStatus>, Duration),
    /// This node has the pledges to found the cluster.
    Founds,
}

/// Decides, and stores the decision before anything is said about it.
///
/// # Errors
/// The pledge can't be stored. The node must stop.
pub(super) fn conclude(forming: &FormingOptions, me: NodeId, now: Instant) -> Result<Formed, StorageError> {
    let step = forming.state.lock().decide(now);
    let decided = match step {
        Step::Found => return Ok(Formed::Founds),
        Step::Wait => false,
        Step::Store(pledge) => {
            forming.data_dir.store_pledge(&pledge)?;
            log_pledge(&pledge, me);
            forming.state.lock().stored(pledge);
            true
        }
    };
    let status = forming.state.lock().status(now);
    let others = u32::try_from(status.others.len()).unwrap_or(u32::MAX);
    let pause = match (decided, others) {
        (true, _) => ROUND_NEXT,
        (false, 0) => ROUND_ALONE,
        (false, _) => ROUND.saturating_add(ROUND_FOR_EACH.saturating_mul(others)),
    };
    Ok(Formed::Waits(Box::new(status), pause))
}

fn log_pledge(pledge: &StoredPledge, me: NodeId) {
    match &pledge.candidate {
        Some(candidate) if candidate.id == me => log::info!("pledged to found the cluster itself"),
        Some(candidate) if candidate.is_withdrawing => {
            log::info!("withdrawing the pledge to node {} at {}", candidate.id, candidate.addr);
        }
        Some(candidate) => {
            log::info!("pledged to node {} at {}, which is to found the cluster", candidate.id, candidate.addr);
        }
        None => log::info!("the pledge is withdrawn"),
    }
}
