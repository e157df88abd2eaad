//! Which request goes to which node.

use super::{
    ANSWER_LIMIT, Call, Lane, WAIT_SLICE, encode,
    tries::{Repeatable, Tries},
};
use crate::{
    consensus::{cluster::Cluster, peers::NodeId},
    node::local::LocalGateway,
    runtime::executor,
    shard::guests,
    wire::{
        api::{Completion, Error, TaskFilter, TaskView},
        id::{PartitionIndex, TaskId},
        letter::{Request, Response},
    },
};
use futures_util::future::{join, join_all};
use std::{
    cell::Cell,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// Where a request is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum At {
    /// At this node.
    Here,
    /// At another one.
    Node(NodeId),
}

impl LocalGateway {
    /// The cluster, when other nodes may lead partitions.
    pub(super) fn in_cluster(&self) -> Option<&Arc<Cluster>> {
        self.forwarder.as_ref().map(|forwarder| &forwarder.cluster)
    }

    /// Tries that end in time.
    pub(super) fn tries(&self) -> Tries {
        let patience = self.forwarder.as_ref().map(|forwarder| forwarder.settings.patience);
        Tries::new(patience.unwrap_or_default())
    }

    /// Does something where a partition is led, again when that changes meanwhile.
    async fn at_leader<T>(
        &self,
        partition: PartitionIndex,
        repeatable: Repeatable,
        ask: impl AsyncFn(At) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Some(cluster) = self.in_cluster() else { return ask(At::Here).await };
        let mut tries = self.tries();
        loop {
            let began = Instant::now();
            let asked = match cluster.leaders.of(partition) {
                Some(leader) if leader == cluster.leaders.me() => ask(At::Here).await,
                Some(leader) if self.forwards => ask(At::Node(leader)).await,
                leader => Err(self.not_leader(leader)),
            };
            let error = match asked {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match self.pause(&mut tries, &error, repeatable, began) {
                Some(pause) => executor::sleep(pause).await,
                None => return Err(self.explain(error, Some(partition))),
            }
        }
    }

    /// How long to pause before another try; `None` when there should be none.
    pub(super) fn pause(
        &self,
        tries: &mut Tries,
        error: &Error,
        repeatable: Repeatable,
        began: Instant,
    ) -> Option<Duration> {
        // Whoever forwarded it tries again.
        if !self.forwards {
            return None;
        }
        tries.again(error, repeatable, began, Instant::now())
    }

    /// The error that names a leader by its address, where that is known.
    pub(super) fn not_leader(&self, leader: Option<NodeId>) -> Error {
        let address = || {
            let cluster = self.in_cluster()?;
            leader.filter(|leader| *leader != cluster.leaders.me())?;
            cluster.address(leader?)
        };
        Error::NotLeader(address().map(|address| address.rpc.to_string()))
    }

    /// An error as the client sees it: with the leader of the partition, where that is known.
    pub(super) fn explain(&self, error: Error, partition: Option<PartitionIndex>) -> Error {
        let Error::NotLeader(named) = error else { return error };
        self.shared.counts.not_leader.fetch_add(1, Ordering::Relaxed);
        let leader = self.in_cluster().zip(partition);
        let leader = leader.and_then(|(cluster, partition)| cluster.leaders.of(partition));
        match self.not_leader(leader) {
            Error::NotLeader(None) => Error::NotLeader(named),
            error => error,
        }
    }

    /// Asks another node.
    pub(super) async fn forward(&self, node: NodeId, call: Call<'_>) -> Result<Vec<u8>, Error> {
        let Some(forwarder) = &self.forwarder else { return Err(Error::NotLeader(None)) };
        self.shared.counts.forwarded.fetch_add(1, Ordering::Relaxed);
        forwarder.call(node, call).await
    }

    /// As [`Gateway::task_within`](crate::node::gateway::Gateway::task_within).
    pub(in crate::node) async fn task_at_leader(
        &self,
        id: TaskId,
        wait_ms: u64,
        result_bytes: usize,
    ) -> Result<TaskView, Error> {
        let until = Instant::now() + Duration::from_millis(wait_ms);
        loop {
            let ask = async |at| {
                let left = until.saturating_duration_since(Instant::now());
                match at {
                    At::Here => self.task_here(id, left, result_bytes).await,
                    At::Node(node) => {
                        self.task_there(node, id, left.min(WAIT_SLICE), result_bytes).await
                    }
                }
            };
            let view = self.at_leader(id.partition, Repeatable::Yes, ask).await?;
            if view.status.is_ended() || Instant::now() >= until {
                return Ok(view);
            }
            if self.in_cluster().is_none() {
                return Ok(view);
            }
        }
    }

    async fn task_here(
        &self,
        id: TaskId,
        wait: Duration,
        result_bytes: usize,
    ) -> Result<TaskView, Error> {
        let wait_ms = wait.as_millis() as u64;
        let request = Request::Task(id, wait_ms, result_bytes as u64);
        let limit_ms = wait_ms + ANSWER_LIMIT.as_millis() as u64;
        match self.ask(self.core_of(id.partition), &request, limit_ms).await? {
            Response::Task(view) => Ok(view),
            other => unreachable!("a question for a task was answered with {other:?}"),
        }
    }

    async fn task_there(
        &self,
        node: NodeId,
        id: TaskId,
        wait: Duration,
        result_bytes: usize,
    ) -> Result<TaskView, Error> {
        let lane = if wait.is_zero() { Lane::Work } else { Lane::Waits };
        let params = encode::question(id, wait.as_millis() as u64, result_bytes);
        let as_long_as_led = Some(id.partition);
        let method = "here.task.result";
        let answer = self.forward(node, Call { lane, method, params, wait, as_long_as_led }).await;
        match answer {
            // As many wait as may: it is asked for what there is, a little later.
            Err(Error::Backpressure(_)) if lane == Lane::Waits => {
                executor::sleep(wait.min(CROWDED)).await;
                let params = encode::question(id, 0, result_bytes);
                let (lane, wait) = (Lane::Work, Duration::ZERO);
                let call = Call { lane, method, params, wait, as_long_as_led };
                encode::view(&self.forward(node, call).await?)
            }
            answer => encode::view(&answer?),
        }
    }

    /// As [`Gateway::cancel`](crate::node::gateway::Gateway::cancel).
    pub(in crate::node) async fn cancel_at_leader(&self, id: TaskId) -> Result<bool, Error> {
        let ask = async |at| match at {
            At::Here => {
                match self.ask(self.core_of(id.partition), &Request::Cancel(id), 0).await? {
                    Response::Cancelled(cancelled) => Ok(cancelled),
                    other => unreachable!("a cancellation was answered with {other:?}"),
                }
            }
            At::Node(node) => {
                let call = Call::once("here.task.cancel", encode::only_id(id));
                encode::cancelled(&self.forward(node, call).await?)
            }
        };
        // A second one would find the task ended, and say so.
        self.at_leader(id.partition, Repeatable::No, ask).await
    }

    /// As [`Gateway::requeue`](crate::node::gateway::Gateway::requeue).
    pub(in crate::node) async fn requeue_at_leader(&self, id: TaskId) -> Result<(), Error> {
        let ask = async |at| match at {
            At::Here => {
                self.ask(self.core_of(id.partition), &Request::Requeue(id), 0).await.map(drop)
            }
            At::Node(node) => {
                let call = Call::once("here.dead.requeue", encode::only_id(id));
                self.forward(node, call).await.map(drop)
            }
        };
        self.at_leader(id.partition, Repeatable::No, ask).await
    }

    /// As [`Gateway::extend`](crate::node::gateway::Gateway::extend).
    pub(in crate::node) async fn extend_at_leader(
        &self,
        id: TaskId,
        lease: u64,
        extend_ms: u64,
    ) -> Result<(), Error> {
        let ask = async |at| match at {
            At::Here => {
                let request = Request::Extend(id, lease, extend_ms);
                self.ask(self.core_of(id.partition), &request, 0).await.map(drop)
            }
            At::Node(node) => {
                let params = encode::extension(id, lease, extend_ms);
                let mut call = Call::once("here.worker.extend", params);
                call.as_long_as_led = Some(id.partition);
                self.forward(node, call).await.map(drop)
            }
        };
        self.at_leader(id.partition, Repeatable::Yes, ask).await
    }

    /// A part of a partition's tasks, and where the next one begins.
    pub(in crate::node) async fn tasks_at_leader(
        &self,
        partition: PartitionIndex,
        filter: &TaskFilter,
        from: u64,
        max: u32,
    ) -> Result<(Vec<TaskView>, Option<u64>), Error> {
        let ask = async |at| match at {
            At::Here => {
                let request = Request::Tasks(partition, filter.clone(), from, max);
                match self.ask(self.core_of(partition), &request, 0).await? {
                    Response::Tasks(tasks, next) => Ok((tasks, next)),
                    other => unreachable!("a question for tasks was answered with {other:?}"),
                }
            }
            At::Node(node) => {
                let params = encode::part(partition, filter, from, max);
                let mut call = Call::once("here.task.list", params);
                call.as_long_as_led = Some(partition);
                encode::views(&self.forward(node, call).await?)
            }
        };
        self.at_leader(partition, Repeatable::Yes, ask).await
    }

    /// As [`Gateway::end_attempts`](crate::node::gateway::Gateway::end_attempts).
    pub(in crate::node) async fn end_attempts_at_leaders(
        &self,
        completions: Vec<Completion>,
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let is_here = |completion: &Completion| {
            let led_here =
                |cluster: &Arc<Cluster>| cluster.leaders.is_here(completion.id.partition);
            let is_led_here = self.in_cluster().is_none_or(led_here)
                || self.check_partition(completion.id).is_err();
            is_led_here && !self.is_guest(completion)
        };
        if completions.iter().all(is_here) {
            return self.end_attempts_here(&completions).await;
        }
        // Those of this node are ended in one visit, beside the others.
        let (here, there): (Vec<_>, Vec<_>) =
            completions.into_iter().enumerate().partition(|(_, completion)| is_here(completion));
        let (places, here): (Vec<_>, Vec<_>) = here.into_iter().unzip();
        let there = there.into_iter().map(async |(place, completion)| {
            let ended = match self.is_guest(&completion) {
                true => self.end_guest(completion).await,
                false => self.end_attempt_there(&completion).await,
            };
            (place, ended)
        });
        let (here, mut ended) = join(self.end_attempts_here(&here), join_all(there)).await;
        ended.extend(places.into_iter().zip(here?));
        ended.sort_unstable_by_key(|(place, _)| *place);
        Ok(ended.into_iter().map(|(_, outcome)| outcome).collect())
    }

    fn is_guest(&self, completion: &Completion) -> bool {
        self.in_cluster().is_some() && guests::core_of(completion.lease).is_some()
    }

    async fn end_attempt_there(&self, completion: &Completion) -> Result<(), Error> {
        let ask = async |at| self.end_attempt_at(at, completion).await;
        self.at_leader(completion.id.partition, Repeatable::No, ask).await
    }

    async fn end_attempt_at(&self, at: At, completion: &Completion) -> Result<(), Error> {
        match at {
            At::Here => {
                let ended = self.end_attempts_here(std::slice::from_ref(completion)).await?;
                ended.into_iter().next().unwrap_or(Ok(()))
            }
            At::Node(node) => {
                let (method, params) = encode::completion(completion);
                self.forward(node, Call::once(method, params)).await.map(drop)
            }
        }
    }

    /// Ends an attempt that another node has lent, by its lease; again while nobody knows whether that
    /// was taken, since a lease ends once. Tells as well whether the lease is over.
    pub(in crate::node) async fn end_lent_attempt(
        &self,
        completion: &Completion,
    ) -> (Result<(), Error>, bool) {
        let uncertain = Cell::new(None);
        let ask = async |at| {
            let ended = self.end_attempt_at(at, completion).await;
            if let Err(error @ Error::Uncertain(_)) = &ended {
                uncertain.set(Some(error.clone()));
            }
            ended
        };
        let mut ended = Err(Error::Uncertain("nobody was asked".into()));
        for _ in 0..LENT_TRIES {
            ended = self.at_leader(completion.id.partition, Repeatable::Yes, &ask).await;
            if !matches!(ended, Err(Error::Uncertain(_))) {
                break;
            }
        }
        match (ended, uncertain.take()) {
            (Ok(()), _) => (Ok(()), true),
            // An earlier try may have been the one that ended it.
            (Err(Error::StaleLease(_) | Error::NotFound(_)), Some(error)) => (Err(error), true),
            (Err(error @ (Error::StaleLease(_) | Error::NotFound(_))), None) => (Err(error), true),
            (Err(error), _) => (Err(error), false),
        }
    }
}

/// How often the end of a lent attempt is said until somebody says that it was taken, or was before.
const LENT_TRIES: usize = 3;
/// The pause before a task is looked at again when too many wait at its leader already.
const CROWDED: Duration = Duration::from_millis(250);
