//! What a core is asked by another, or by a door of its own.

use super::{core::Shard, kernel::watcher_of};
use crate::{
    task::pool::Input,
    wire::{
        api::Error,
        id::CoreIndex,
        letter::{Request, Response},
    },
};

impl Shard {
    /// Does what a core asks and answers it, at once or when a task has ended.
    pub(super) fn handle_request(&mut self, asker: CoreIndex, correlation: u64, request: Request) {
        let response = match request {
            Request::Task(random, wait_ms) => {
                if wait_ms > 0 && self.watch_task(asker, correlation, random, wait_ms) {
                    return;
                }
                self.view_task(random)
            }
            Request::Cancel(random) => match self.cancel_task(random) {
                Ok(cancelled) => Response::Cancelled(cancelled),
                Err(error) => Response::Failed(error),
            },
            Request::Agents(type_index) => Response::Agents(self.list_agents(type_index)),
            Request::Spawn(type_index, name) => match self.spawn_agent(type_index, name) {
                Ok(id) => Response::Spawned(id),
                Err(error) => Response::Failed(error),
            },
            Request::Grow(type_index) => {
                self.step_pool(type_index, Input::Wanted);
                Response::Done
            }
            Request::Stop(agent) => done(self.stop_agent(agent)),
            Request::Reserve(count) => {
                done(self.tasks.reserve(self.kernel.now_ms(), count as usize))
            }
            Request::Release(count) => {
                self.tasks.release(count as usize);
                Response::Done
            }
        };
        self.kernel.answer(asker, correlation, &response);
    }

    /// Lets an asker wait for a task's end; false when there is nothing to wait for.
    fn watch_task(
        &mut self,
        asker: CoreIndex,
        correlation: u64,
        random: u128,
        wait_ms: u64,
    ) -> bool {
        let watcher = crate::task::Watcher { target: watcher_of(asker).to_bits(), correlation };
        if !self.tasks.watch(random, watcher) {
            return false;
        }
        let timer = super::kernel::Timer::Watch(asker, correlation, random);
        self.kernel.wheel.insert(self.kernel.now_ms() + wait_ms, timer);
        true
    }
}

fn done(result: Result<(), Error>) -> Response {
    match result {
        Ok(()) => Response::Done,
        Err(error) => Response::Failed(error),
    }
}
