//! What a node asks of another for an attempt that it lends.

use super::{Call, Forwarder, Lane, encode};
use crate::{
    shard::lending::Lent,
    wire::{
        api::{Error, Ran},
        id::{NodeId, TaskId},
    },
};
use std::time::Duration;

/// How long an attempt may be under way: the lender's lease ends it before.
const RUN_LIMIT: Duration = Duration::from_millis(u32::MAX as u64 + crate::shard::lending::MORE_MS);

/// The id of no task: those of tasks are drawn by lot.
const NO_TASK: TaskId = TaskId { partition: 0, random: 0 };

impl Forwarder {
    /// Has an attempt run by another node.
    pub(in crate::node) async fn run(&self, lent: &Lent) -> Result<Ran, Error> {
        let params = encode::run(&lent.agent_type, &lent.guest);
        let lane = Lane::Runs;
        let call = Call { lane, method: "here.run", params, wait: RUN_LIMIT, as_long_as_led: None };
        encode::ran(&self.call(lent.node, call).await?)
    }

    /// Whether a node answers: it is told to stop an attempt that there is not, behind those that are under
    /// way to it.
    pub(in crate::node) async fn answers(&self, node: NodeId) -> bool {
        let call = Call::once("here.stop", encode::stop(NO_TASK, 0));
        match self.call(node, Call { lane: Lane::Runs, ..call }).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(node, %error, "a node that said nothing of an attempt does not answer");
                false
            }
        }
    }

    /// Tells the other node that nobody wants an attempt any more: behind what asked for it, so that it
    /// does not come first. When it does not hear of it, the attempt ends by its timeout, and its answer
    /// changes nothing.
    pub(in crate::node) async fn stop(&self, lent: &Lent) {
        let stop = || Call::once("here.stop", encode::stop(lent.guest.id, lent.guest.lease));
        let mut told = self.call(lent.node, Call { lane: Lane::Runs, ..stop() }).await;
        if let Err(Error::Backpressure(_)) = told {
            // As many attempts are under way as may be; this one has been for long.
            told = self.call(lent.node, stop()).await;
        }
        if let Err(error) = told {
            tracing::debug!(node = lent.node, %error, "a node was not told to stop an attempt");
        }
    }
}
