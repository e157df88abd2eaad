//! A worker's fetch over all shards of the node.

use super::local::LocalGateway;
use crate::wire::{
    api::{Error, Leased, Worker},
    id::CoreIndex,
    letter::{Request, Response},
};
use futures_util::{StreamExt, stream::FuturesUnordered};

/// What a wait takes on top until it counts as unanswered, milliseconds.
const ANSWER_MS: u64 = 5000;

impl LocalGateway {
    /// Leases tasks: of the worker's own shard, else of the others; while there are none anywhere,
    /// waits for the first shard that gets some.
    pub(super) async fn fetch_from_all(
        &self,
        worker: Worker,
        max: u32,
        wait_ms: u64,
    ) -> Result<Leased, Error> {
        let cores = self.cores();
        let here = self.index();
        for core in (0..cores).map(|step| (here + step) % cores) {
            let leased = self.fetch_from(core, worker.clone(), max, 0).await?;
            if !leased.tasks.is_empty() {
                return Ok(leased);
            }
        }
        if wait_ms == 0 {
            return Ok(Leased::default());
        }
        if cores == 1 {
            return self.fetch_from(here, worker, max, wait_ms).await;
        }
        self.wait_for_any(worker, max, wait_ms).await
    }

    async fn fetch_from(
        &self,
        core: CoreIndex,
        worker: Worker,
        max: u32,
        wait_ms: u64,
    ) -> Result<Leased, Error> {
        leased(self.ask(core, &Request::Fetch(worker, max, wait_ms), wait_ms + ANSWER_MS).await)
    }

    /// Waits at every shard; the first answer ends the waits at the others. What those gave by
    /// then beyond `max` goes back, as if it had not been taken.
    async fn wait_for_any(&self, worker: Worker, max: u32, wait_ms: u64) -> Result<Leased, Error> {
        let waits = (0..self.cores())
            .map(|core| self.fetch_from(core, worker.clone(), max, wait_ms))
            .collect::<FuturesUnordered<_>>();
        let mut waits = waits;
        let mut leased = Leased::default();
        let mut failed = None;
        let mut stopped = false;
        while let Some(answer) = waits.next().await {
            match answer {
                Ok(more) => leased.append(more),
                Err(error) => failed = Some(error),
            }
            if !stopped {
                stopped = true;
                for core in 0..self.cores() {
                    self.tell(core, &Request::StopFetch(worker.clone()));
                }
            }
        }
        if leased.tasks.is_empty() {
            return failed.map_or(Ok(leased), Err);
        }
        let kept = (max as usize).min(leased.tasks.len());
        for task in leased.tasks.drain(kept..) {
            let id = self.inner_id(task.id, task.lease);
            self.tell(self.core_of(id.partition), &Request::GiveBack(id, task.lease));
        }
        Ok(leased)
    }
}

fn leased(answer: Result<Response, Error>) -> Result<Leased, Error> {
    match answer? {
        Response::Leased(leased) => Ok(leased),
        other => unreachable!("a fetch was answered with {other:?}"),
    }
}
