//! Partitions come to lead and cease to: what their tables do, and whom that concerns.
//!
//! Invariants worth naming
//! - A partition acts only after an entry of its own reign is committed, the reservation of its fencing
//!   tokens. That it leads is no fence by itself: where nodes may lie, an entry of an earlier leader
//!   that was finished for nobody may still come before the first of its own, and none after it.

use super::{
    core::Shard,
    kernel::watcher_of,
    ledger::{Logged, Next},
    reads::Read,
};
use crate::{
    runtime::executor,
    task::Watcher,
    wire::{
        api::Error,
        id::{AgentId, CoreIndex, TaskId},
        letter::Response,
    },
};

impl Shard {
    /// Takes a turn; whether every partition of this core leads.
    pub fn turn_until_it_leads(&mut self) -> bool {
        self.read_clock();
        self.turn().expect("no core has run a read of the log yet");
        self.tasks.partitions.iter().all(|partition| partition.check_leading().is_ok())
    }

    /// Does what a partition's log says beside what waits for it.
    #[cold]
    pub(super) fn follow_log(&mut self, place: usize, next: Next) {
        let now_ms = self.kernel.now_ms();
        let partition = &mut self.tasks.partitions[place];
        match next {
            Next::Logged(..) => unreachable!("what waits for the log is not for here"),
            Next::Foreign(foreign) => {
                let cores = self.kernel.links.cores() as CoreIndex;
                let settled = partition.follow(&foreign, &self.kernel.types, cores, now_ms);
                if partition.check_leading().is_ok() {
                    self.tasks.look_again();
                }
                settled.into_iter().for_each(|settled| self.tell_settled(place, settled));
            }
            Next::Beside(foreign) => {
                let cores = self.kernel.links.cores() as CoreIndex;
                let settled = partition.follow_beside(&foreign, &self.kernel.types, cores, now_ms);
                settled.into_iter().for_each(|settled| self.tell_settled(place, settled));
            }
            Next::CaughtUp => {
                let left = partition.caught_up();
                executor::let_go(left);
            }
            Next::Compacted(compacted) => partition.compacted(compacted, now_ms),
            Next::Claimed(claimed) => partition.look_at(claimed),
            Next::Lead => partition.reserve_tokens(),
            Next::Read(number) => self.may_read(place, number),
            Next::Follow { is_replaced } => {
                self.step_down(place, is_replaced);
                if is_replaced {
                    self.abandon_asked(place);
                }
            }
        }
    }

    /// A partition leads no more: whoever waits for something of it is told, and what runs for it
    /// is given up. The tasks go on where it is led now.
    fn step_down(&mut self, place: usize, is_replaced: bool) {
        let partition = &mut self.tasks.partitions[place];
        let index = partition.table.partition();
        let abandoned: Vec<_> = partition.ledger.abandon().collect();
        let watchers = partition.table.take_all_watchers();
        let reads = partition.reads.abandon();
        let left = partition.step_down(is_replaced);
        executor::let_go(left);
        for logged in abandoned {
            self.tell_abandoned(index, logged);
        }
        for Read { asker, correlation, .. } in reads {
            let error = Response::Failed(Error::NotLeader(None));
            self.kernel.answer(asker, correlation, &error);
        }
        for (random, watcher) in watchers {
            self.tell_led_elsewhere(TaskId { partition: index, random }, watcher, 0);
        }
        let of_partition = self.tasks.attempts.values().map(|attempt| attempt.lease);
        let leases: Vec<_> = of_partition.filter(|lease| lease.partition == index).collect();
        for lease in leases {
            if let Some(attempt) = self.take_attempt(lease) {
                self.with_agent(attempt.agent, |agent, context| agent.on_abandoned(lease, context));
            }
        }
    }

    /// Tells who waits for a record that may be committed, or not.
    fn tell_abandoned(&mut self, partition: u16, logged: Logged) {
        let id = |random| TaskId { partition, random };
        match logged {
            // The task's name is of no use to anybody: the submitter does not know it yet.
            Logged::Submitted { submitter, place, .. } => {
                self.refuse(submitter, id(0), place, &uncertain());
            }
            Logged::Existing { id, submitter, place, .. } => {
                self.refuse(submitter, id, place, &uncertain());
            }
            // Nothing came of it, whatever becomes of the other task.
            Logged::Conflict { id, submitter, place } => {
                self.refuse(submitter, id, place, &Error::NotLeader(None));
            }
            Logged::ConflictInBatch { asker, correlation } => {
                let error = Response::Failed(Error::NotLeader(None));
                self.kernel.answer(asker, correlation, &error);
            }
            Logged::Told { random, asker, place } => {
                self.refuse(asker, id(random), place, &uncertain());
            }
            Logged::Requeued { asker, correlation, .. }
            | Logged::Cancelled { asker, correlation, .. } => {
                self.kernel.answer(asker, correlation, &Response::Failed(uncertain()));
            }
            Logged::Ended { .. }
            | Logged::Moved(_)
            | Logged::Walked
            | Logged::Tokens { .. }
            | Logged::Expired { .. }
            | Logged::Noted => {}
        }
    }

    fn tell_led_elsewhere(&mut self, id: TaskId, watcher: Watcher, place: u32) {
        let target = AgentId::from_bits(watcher.target);
        if target != watcher_of(target.core()) {
            return self.refuse(watcher, id, place, &Error::NotLeader(None));
        }
        if let Some(watch) = self.tasks.watches.remove(&(target.core(), watcher.correlation)) {
            self.kernel.wheel.cancel(watch.timer);
        }
        let error = Response::Failed(Error::NotLeader(None));
        self.kernel.answer(target.core(), watcher.correlation, &error);
    }
}

/// What somebody is told whose records are committed by whoever leads next, or by nobody.
pub(super) fn uncertain() -> Error {
    Error::Uncertain(
        "the leader of the task's partition changed meanwhile: it was done or not".into(),
    )
}
