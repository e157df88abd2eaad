//! What clients make of the answers to what they asked.

use super::{Asked, Clients, Ending, Held, Pending, Seated, Wait};
use crate::{
    node::Node,
    oracle::{End, FRESH_US, Number},
    trace::note,
};
use coreflow::{
    shard::doors::Outcomes,
    wire::{api::Error, id::TaskId, letter::Response},
};
use futures_channel::oneshot::channel;

impl Clients {
    /// Takes the answers that came.
    pub fn hear(&mut self, nodes: &mut [Node], now_us: u64) {
        let mut at = 0;
        while at < self.pending.len() {
            enum Came {
                Outcomes(Outcomes),
                Response(Result<Response, Error>),
                Nothing,
            }
            let came = match &mut self.pending[at].wait {
                Wait::Outcomes(wait) => wait.try_recv().map(|came| came.map(Came::Outcomes)),
                Wait::Response(wait) => wait.try_recv().map(|came| came.map(Came::Response)),
            };
            let came = match came {
                Ok(None) => {
                    at += 1;
                    continue;
                }
                Ok(Some(came)) => came,
                // Its node ended.
                Err(_) => Came::Nothing,
            };
            let Pending { node, began_us, asked, .. } = self.pending.remove(at);
            match came {
                Came::Outcomes(outcomes) => {
                    let outcomes = outcomes.expect("members are answered one by one");
                    self.settled(began_us, asked, outcomes, now_us);
                }
                Came::Response(response) => {
                    self.answered(nodes, node, began_us, asked, response, now_us);
                }
                Came::Nothing => self.uncertain += 1,
            }
        }
    }

    fn settled(
        &mut self,
        began_us: u64,
        asked: Asked,
        outcomes: Vec<Result<TaskId, Error>>,
        now_us: u64,
    ) {
        match asked {
            Asked::Submit(numbers) => {
                for (number, outcome) in numbers.into_iter().zip(outcomes) {
                    note!(self.trace, "client: task {number} {outcome:?}");
                    match outcome {
                        Ok(id) => {
                            self.acknowledged += 1;
                            self.late += usize::from(self.is_over());
                            self.oracle.accepted(number, id, now_us);
                        }
                        Err(Error::Uncertain(_)) => {
                            self.uncertain += 1;
                        }
                        Err(Error::Conflict(_)) => self.oracle.conflicts(number, now_us),
                        // Another one may have more luck.
                        Err(_) => {
                            self.refused += 1;
                            self.submitted -= 1;
                        }
                    }
                }
            }
            Asked::Conflict => {
                let is_taken = outcomes.iter().any(Result::is_ok);
                let is_late = now_us > began_us + FRESH_US;
                assert!(!is_taken || is_late, "a key stands for two tasks: {outcomes:?}");
            }
            Asked::End(endings) => {
                for ((number, ending), outcome) in endings.into_iter().zip(outcomes) {
                    note!(self.trace, "client: end of {number} {outcome:?}");
                    self.end_settled(number, ending, outcome, now_us);
                }
            }
            _ => unreachable!("nothing else has members"),
        }
    }

    fn end_settled(
        &mut self,
        number: Number,
        ending: Ending,
        outcome: Result<TaskId, Error>,
        now_us: u64,
    ) {
        match (outcome, ending) {
            (Ok(_), Ending::Done(result)) => {
                self.oracle.ends += 1;
                self.oracle.ended(number, End::Done(result), now_us);
            }
            (Ok(_), Ending::Dead) => {
                self.oracle.ends += 1;
                // The answer may come after it was queued again and has ended otherwise.
                if !self.oracle.tasks[number].may_be_requeued {
                    self.oracle.ended(number, End::Dead, now_us);
                }
            }
            (Ok(_), Ending::Retry) => {}
            (Err(Error::Uncertain(_)), _) => self.uncertain += 1,
            // It was refused: nothing was changed.
            (Err(_), Ending::Done(refused)) => {
                self.refused += 1;
                self.oracle.tasks[number].results.retain(|result| *result != refused);
            }
            (Err(_), _) => self.refused += 1,
        }
    }

    fn answered(
        &mut self,
        nodes: &mut [Node],
        node: usize,
        began_us: u64,
        asked: Asked,
        response: Result<Response, Error>,
        now_us: u64,
    ) {
        note!(self.trace, "client: {} answers {response:?}", node + 1);
        match (asked, response) {
            (Asked::Reserve(batch, placed), Ok(Response::Done)) => {
                let (numbers, specs): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
                let Some(shard) = nodes[node].shard_at(now_us) else { return };
                let (answer, wait) = channel();
                if shard.submit_reserved(&specs, &placed, answer).is_ok() {
                    self.wait(node, now_us, Asked::Submit(numbers), Wait::Outcomes(wait));
                }
            }
            (Asked::Seat, Ok(Response::Seated(worker))) => {
                let boots = nodes[node].boots;
                self.seats[node] = Seated { boots, worker: Some(worker), fetching: false };
            }
            (Asked::Fetch, response) => {
                self.seats[node].fetching = false;
                let Ok(Response::Leased(leased)) = response else { return };
                for (task, payload) in leased.iter() {
                    let number = self.oracle.leased(task.id, task.lease, payload, now_us);
                    let (boots, task) = (nodes[node].boots, *task);
                    self.held.push(Held { node, boots, number, task });
                }
            }
            (Asked::Read(number), Ok(Response::Task(view))) => {
                self.oracle.read(number, began_us, Some(&view), now_us);
            }
            (Asked::Read(number), Err(Error::NotFound(_))) => {
                self.oracle.read(number, began_us, None, now_us);
            }
            (Asked::List(partition), Ok(Response::Tasks(tasks, None))) => {
                for id in self.oracle.must_be_listed(partition, began_us) {
                    let is_there = tasks.iter().any(|view| view.id == id);
                    assert!(is_there || tasks.len() >= 1_000, "a list lacks the task {id}");
                }
                for view in tasks {
                    if let Some(number) = self.oracle.number(view.id)
                        && !view.status.is_ended()
                    {
                        self.oracle.read(number, began_us, Some(&view), now_us);
                    }
                }
            }
            _ => {}
        }
    }
}
