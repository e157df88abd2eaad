//! What a core is asked by another, or by a door of its own.

use super::{
    core::Shard,
    kernel::{Timer, watcher_of},
    ledger::Logged,
    reads::{Question, Read},
    remote::Fetch,
    tasks::Watch,
};
use crate::{
    task::pool::Input,
    wire::{
        api::Error,
        id::{CoreIndex, TaskId},
        letter::{Request, Response},
    },
};

impl Shard {
    /// Does what a core asks and answers it, at once or when a task has ended.
    pub(super) fn handle_request(&mut self, asker: CoreIndex, correlation: u64, request: Request) {
        let response = match request {
            Request::Task(id, wait_ms, result_bytes) => {
                let result_bytes = usize::try_from(result_bytes).unwrap_or(usize::MAX);
                if wait_ms > 0 && self.watch_task(asker, correlation, id, wait_ms, result_bytes) {
                    return;
                }
                let question = Question::Task(id, result_bytes);
                return self.read(Read { asker, correlation, question });
            }
            Request::Tasks(partition, filter, from, max) => {
                let question = Question::Tasks(partition, filter, from, max);
                return self.read(Read { asker, correlation, question });
            }
            Request::Requeue(id) => return self.requeue_task(asker, correlation, id),
            Request::Seat(types, capacity) => match self.seat_worker(&types, capacity) {
                Ok(worker) => Response::Seated(worker),
                Err(error) => Response::Failed(error),
            },
            Request::Fetch(worker, max, wait_ms) => {
                return self.fetch(Fetch { asker, correlation, worker, max }, wait_ms);
            }
            Request::StopFetch(worker) => {
                self.stop_fetch(&worker);
                Response::Done
            }
            Request::GiveBack(id, lease) => {
                self.give_back(id, lease);
                Response::Done
            }
            Request::Extend(id, lease, extend_ms) => {
                match self.extend_lease(id, lease, extend_ms) {
                    Ok(None) => Response::Done,
                    Ok(Some(lent)) => Response::Lent(lent),
                    Err(error) => Response::Failed(error),
                }
            }
            Request::Run(type_index, guest) => {
                return self.take_guest(asker, correlation, type_index, &guest);
            }
            Request::Lender(id, lease) => match self.lender_of(id, lease) {
                Ok(lent) => Response::Lent(lent),
                Err(error) => Response::Failed(error),
            },
            Request::StopRun(random, lease) => {
                self.stop_guest(random, lease);
                Response::Done
            }
            Request::Cancel(id) => return self.cancel_task(asker, correlation, id),
            Request::Agents(type_index) => Response::Agents(self.list_agents(type_index)),
            Request::Spawn(type_index, name) => match self.spawn_asked(type_index, name) {
                Ok(id) => Response::Spawned(id),
                Err(error) => Response::Failed(error),
            },
            Request::Grow(type_index) => {
                self.step_pool(type_index, Input::Wanted);
                Response::Done
            }
            Request::Stop(agent) => done(self.stop_agent(agent)),
            Request::Reserve(partition, count, priority, keys) => {
                let now_ms = self.kernel.now_ms();
                let partition = self.tasks.of(partition);
                let reserved = partition.reserve(now_ms, count, priority, &keys);
                partition.end_evicted();
                // What an agreed table says is committed.
                if let Err(Error::Conflict(_)) = reserved
                    && !partition.table.is_agreed()
                {
                    let then = Logged::ConflictInBatch { asker, correlation };
                    return partition.ledger.after_all(then);
                }
                done(reserved)
            }
            Request::Release(partition, count) => {
                self.tasks.of(partition).table.release(count as usize);
                Response::Done
            }
            request @ (Request::MemoryPut(..)
            | Request::MemoryGet(..)
            | Request::MemoryDelete(..)
            | Request::MemorySearch(..)
            | Request::MemoryList(..)
            | Request::MemoryStats(..)) => {
                return self.ask_memory(asker, correlation, request);
            }
        };
        self.kernel.answer(asker, correlation, &response);
    }

    /// Lets an asker wait for a task's end; false when there is nothing to wait for.
    fn watch_task(
        &mut self,
        asker: CoreIndex,
        correlation: u64,
        id: TaskId,
        wait_ms: u64,
        result_bytes: usize,
    ) -> bool {
        let watcher = crate::task::Watcher { target: watcher_of(asker).to_bits(), correlation };
        if self.tasks.of(id.partition).check_leading().is_err() || !self.tasks.watch(id, watcher) {
            return false;
        }
        let timer = Timer::Watch(asker, correlation);
        let timer = self.kernel.wheel.insert(self.kernel.now_ms() + wait_ms, timer);
        self.tasks.watches.insert((asker, correlation), Watch { timer, id, result_bytes });
        true
    }

    /// A wait for a task's end is over: it is answered with what is known of the task.
    pub(super) fn end_watch(&mut self, asker: CoreIndex, correlation: u64, watch: &Watch) {
        let Watch { id, result_bytes, .. } = *watch;
        if self.tasks.stop_watching(id, asker, correlation).is_some() {
            let question = Question::Task(id, result_bytes);
            self.read(Read { asker, correlation, question });
        }
    }

    /// Ends all waits for tasks and for ends of tasks: each is answered with what there is now.
    pub fn end_waits(&mut self) {
        self.stop_fetches();
        for ((asker, correlation), watch) in std::mem::take(&mut self.tasks.watches) {
            self.kernel.wheel.cancel(watch.timer);
            self.end_watch(asker, correlation, &watch);
        }
    }
}

fn done(result: Result<(), Error>) -> Response {
    match result {
        Ok(()) => Response::Done,
        Err(error) => Response::Failed(error),
    }
}
