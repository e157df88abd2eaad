//! What a connection starts for the frames it read, and what comes back.

use super::frame;
use crate::{
    node::gateway::Gateway,
    server::{reply::Reply, request::Request},
    wire::{
        api::{Error, TaskSpec},
        id::TaskId,
    },
};
use std::rc::Rc;

/// Something to do; `bytes` is what its frames held in memory.
pub struct Work {
    /// The calls it answers.
    pub kind: Kind,
    /// Bytes of the frames.
    pub bytes: usize,
}

/// One call, or neighbouring submissions that become one.
pub enum Kind {
    /// One call; without a msgid nobody is answered.
    Call {
        /// What the answer repeats.
        msgid: Option<u32>,
        /// What to do.
        request: Request,
    },
    /// Submissions of tasks of one type, which the node takes or refuses together.
    Submissions(Group),
}

/// Submissions that followed each other on a connection: one visit to the task service for all.
///
/// Only tasks of one type are grouped, and each was checked by itself before: what the node can
/// still object to holds for every member, so each gets an answer that is true for it.
#[derive(Default)]
pub struct Group {
    /// The msgid of each submission; none for a notification.
    pub msgids: Vec<Option<u32>>,
    /// Its task, in the same order.
    pub specs: Vec<TaskSpec>,
}

/// Submissions in one group: more would make the first wait for the last.
const GROUP_MAX: usize = 100;

impl Group {
    /// Whether `spec` can join.
    pub fn takes(&self, spec: &TaskSpec) -> bool {
        self.specs.len() < GROUP_MAX
            && self.specs.first().is_none_or(|first| first.agent_type == spec.agent_type)
    }
}

/// What a [`Work`] came to.
pub struct Answer {
    outcome: Outcome,
    /// Calls that are no longer in flight.
    pub calls: usize,
    /// Bytes that are no longer held.
    pub bytes: usize,
}

enum Outcome {
    Call { msgid: Option<u32>, result: Result<Reply, Error> },
    Submissions { msgids: Vec<Option<u32>>, result: Result<Vec<TaskId>, Error> },
}

impl Work {
    /// Calls that it answers.
    pub fn calls(&self) -> usize {
        match &self.kind {
            Kind::Call { .. } => 1,
            Kind::Submissions(group) => group.specs.len(),
        }
    }
}

/// Does the work.
pub async fn run<G: Gateway>(gateway: Rc<G>, work: Work) -> Answer {
    let (calls, bytes) = (work.calls(), work.bytes);
    let outcome = match work.kind {
        Kind::Call { msgid, request } => {
            Outcome::Call { msgid, result: request.run(gateway).await }
        }
        Kind::Submissions(group) => {
            let result = gateway.submit(group.specs).await;
            Outcome::Submissions { msgids: group.msgids, result }
        }
    };
    Answer { outcome, calls, bytes }
}

impl Answer {
    /// Appends the response of each call.
    pub fn write(&self, out: &mut Vec<u8>) {
        match &self.outcome {
            Outcome::Call { msgid: None, .. } => {}
            Outcome::Call { msgid: Some(msgid), result } => frame::answer(out, *msgid, result),
            Outcome::Submissions { msgids, result: Ok(ids) } => {
                assert_eq!(msgids.len(), ids.len(), "a gateway gives each task an id");
                for (msgid, id) in msgids.iter().zip(ids) {
                    if let Some(msgid) = msgid {
                        frame::submitted(out, *msgid, *id);
                    }
                }
            }
            Outcome::Submissions { msgids, result: Err(error) } => {
                let answered = msgids.iter().flatten();
                answered.for_each(|msgid| frame::refuse(out, Some(*msgid), error));
            }
        }
    }
}
