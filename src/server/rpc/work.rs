//! What a connection starts for the frames it read, and what comes back.

use super::frame;
use crate::{
    node::gateway::{Gateway, Offer, TrunkAnswer},
    server::{
        buffers::Output,
        here,
        memory::{self, MemoryReply, MemoryRequest, Stored},
        reply::Reply,
        request::Request,
        worker::{WorkerRequest, WorkerSession},
    },
    wire::{
        api::{Completion, Error, Failure, TaskSpec},
        id::TaskId,
        memory::MemoryItem,
    },
};
use std::rc::Rc;

/// Something to do; `bytes` is what its frames held in memory.
pub struct Work {
    /// The calls it answers.
    pub kind: Kind,
    /// Bytes of the frames.
    pub bytes: usize,
    /// Whether neighbours that become one are done by this node or not at all.
    pub here: bool,
}

/// One call, or neighbours of one sort that become one.
pub enum Kind {
    /// One call; without a msgid nobody is answered.
    Call {
        /// What the answer repeats.
        msgid: Option<u32>,
        /// What to do.
        request: Request,
    },
    /// Submissions that followed each other: one visit to the task service for all.
    Submissions(Group<TaskSpec>),
    /// Ends of attempts that followed each other.
    Completions(Group<Completion>),
    /// Items to store that followed each other.
    Puts(Group<MemoryItem>),
}

/// Calls of one sort that followed each other on a connection; each gets its own answer.
pub struct Group<T> {
    /// The msgid of each call; none for a notification.
    pub msgids: Vec<Option<u32>>,
    /// What it asks, in the same order.
    pub items: Vec<T>,
    /// What its frames held in memory.
    pub bytes: usize,
}

impl<T> Default for Group<T> {
    fn default() -> Self {
        Self { msgids: Vec::new(), items: Vec::new(), bytes: 0 }
    }
}

/// Calls in one group: more would make the first wait for the last.
const GROUP_MAX: usize = 256;

/// Calls that a group has room for from the start, once it has any.
const GROUP_BEGIN: usize = 32;

impl<T> Group<T> {
    #[inline]
    fn add(&mut self, msgid: Option<u32>, item: T, bytes: usize) {
        if self.items.is_empty() {
            self.msgids.reserve(GROUP_BEGIN);
            self.items.reserve(GROUP_BEGIN);
        }
        self.msgids.push(msgid);
        self.items.push(item);
        self.bytes += bytes;
    }

    /// The work of a group with members, which is empty afterwards.
    fn take(&mut self, kind: impl FnOnce(Self) -> Kind, here: bool) -> Option<Work> {
        if self.items.is_empty() {
            return None;
        }
        let group = std::mem::take(self);
        Some(Work { bytes: group.bytes, kind: kind(group), here })
    }
}

/// Puts the calls of a connection together where they follow each other.
#[derive(Default)]
pub struct Groups {
    submissions: Group<TaskSpec>,
    completions: Group<Completion>,
    puts: Group<MemoryItem>,
    /// Whether they come from another node, which wants them done here or not at all.
    here: bool,
}

impl Groups {
    /// Takes a call in; begins work that must begin before it, or with it.
    #[inline]
    pub fn add(
        &mut self,
        msgid: Option<u32>,
        request: Request,
        bytes: usize,
        mut begin: impl FnMut(Work),
    ) {
        let (request, here) = here::unwrap(request);
        if here != self.here {
            self.take().map(&mut begin);
            self.here = here;
        }
        match request {
            Request::Submit(spec) => {
                if self.submissions.items.is_empty() {
                    self.take().map(&mut begin);
                }
                self.submissions.add(msgid, spec, bytes);
                if self.submissions.items.len() >= GROUP_MAX {
                    self.submissions.take(Kind::Submissions, here).map(begin);
                }
            }
            Request::Worker(WorkerRequest::End(completion)) => {
                if self.completions.items.is_empty() {
                    self.take().map(&mut begin);
                }
                self.completions.add(msgid, completion, bytes);
                if self.completions.items.len() >= GROUP_MAX {
                    self.completions.take(Kind::Completions, here).map(begin);
                }
            }
            Request::Memory(MemoryRequest::Put(item)) => {
                // What has its vector does not wait for the embedder with what has none.
                let is_like =
                    |first: &MemoryItem| first.vector.is_empty() == item.vector.is_empty();
                if !self.puts.items.first().is_some_and(is_like) {
                    self.take().map(&mut begin);
                }
                self.puts.add(msgid, item, bytes);
                if self.puts.items.len() >= GROUP_MAX {
                    self.puts.take(Kind::Puts, here).map(begin);
                }
            }
            request => {
                self.take().map(&mut begin);
                begin(Work { kind: Kind::Call { msgid, request }, bytes, here: false });
            }
        }
    }

    /// What has not begun: one of the sorts at most.
    pub fn take(&mut self) -> Option<Work> {
        let submissions = self.submissions.take(Kind::Submissions, self.here);
        let completions = || self.completions.take(Kind::Completions, self.here);
        submissions.or_else(completions).or_else(|| self.puts.take(Kind::Puts, false))
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
    Submissions { msgids: Vec<Option<u32>>, result: Each<TaskId> },
    Completions { msgids: Vec<Option<u32>>, result: Each<()> },
    Puts { msgids: Vec<Option<u32>>, result: Each<Stored> },
}

/// What became of each member of a group, or of all of them.
type Each<T> = Result<Vec<Result<T, Error>>, Error>;

impl Work {
    /// Whether it is an attempt that another node lends, which counts as no call.
    pub fn is_lent_attempt(&self) -> bool {
        matches!(&self.kind, Kind::Call { request, .. } if request.is_lent_attempt())
    }

    /// Calls that it answers.
    pub fn calls(&self) -> usize {
        match &self.kind {
            Kind::Call { .. } => usize::from(!self.is_lent_attempt()),
            Kind::Submissions(group) => group.items.len(),
            Kind::Completions(group) => group.items.len(),
            Kind::Puts(group) => group.items.len(),
        }
    }
}

/// Does the work.
pub async fn run<G: Gateway>(gateway: Rc<G>, session: Rc<WorkerSession>, work: Work) -> Answer {
    let (calls, bytes) = (work.calls(), work.bytes);
    let gateway = if work.here { gateway.here() } else { gateway };
    let outcome = match work.kind {
        Kind::Call { msgid, request } => {
            Outcome::Call { msgid, result: request.run(gateway, &session).await }
        }
        Kind::Submissions(group) => {
            let result = gateway.submit_each(group.items).await;
            Outcome::Submissions { msgids: group.msgids, result }
        }
        Kind::Completions(group) => {
            let result = gateway.end_attempts(group.items).await;
            Outcome::Completions { msgids: group.msgids, result }
        }
        Kind::Puts(group) => {
            let result = memory::put(gateway, group.items).await;
            Outcome::Puts { msgids: group.msgids, result }
        }
    };
    Answer { outcome, calls, bytes }
}

impl Answer {
    /// Bytes of what a lent attempt ended with.
    pub fn result_bytes(&self) -> usize {
        match &self.outcome {
            Outcome::Call { result: Ok(Reply::Ran(Ok(result))), .. } => result.len(),
            Outcome::Call { result: Ok(Reply::Ran(Err(failure))), .. } => failure.error.len(),
            _ => 0,
        }
    }

    /// A lent attempt's result is not kept, for results of so many bytes wait: it counts as failed.
    pub fn give_up_result(&mut self, bytes_max: usize) {
        let error = format!(
            "its result of {} bytes is given up: results of {bytes_max} bytes wait for the node that \
             keeps the task",
            self.result_bytes()
        );
        if let Outcome::Call { result, .. } = &mut self.outcome {
            *result = Ok(Reply::Ran(Err(Failure { error, retry: true })));
        }
    }

    /// What the connection becomes after this answer: a trunk of another node.
    pub fn trunk(&self) -> Option<Offer> {
        match &self.outcome {
            Outcome::Call {
                result: Ok(Reply::Trunk { offer, answer: TrunkAnswer::Heard { words, .. } }),
                ..
            } => words.taken.map(|_| *offer),
            _ => None,
        }
    }

    /// Appends the response of each call.
    pub fn write(self, output: &mut Output) {
        match self.outcome {
            Outcome::Call { msgid: None, .. } => {}
            Outcome::Call {
                msgid: Some(msgid),
                result: Ok(Reply::Memory(MemoryReply::Written(pieces))),
            } => {
                frame::begin_answer(output.end(), msgid);
                pieces.into_iter().for_each(|piece| output.append(piece));
            }
            Outcome::Call { msgid: Some(msgid), result } => {
                frame::answer(output.end(), msgid, &result);
            }
            Outcome::Submissions { msgids, result } => {
                each(output.end(), &msgids, &result, |out, msgid, id| {
                    frame::submitted(out, msgid, *id);
                });
            }
            Outcome::Completions { msgids, result } => {
                each(output.end(), &msgids, &result, |out, msgid, ()| frame::done(out, msgid));
            }
            Outcome::Puts { msgids, result } => {
                each(output.end(), &msgids, &result, |out, msgid, (key, replaced)| {
                    frame::stored(out, msgid, key, *replaced);
                });
            }
        }
    }
}

/// Appends the response of each member of a group that wants one.
fn each<T>(
    out: &mut Vec<u8>,
    msgids: &[Option<u32>],
    result: &Each<T>,
    well: impl Fn(&mut Vec<u8>, u32, &T),
) {
    match result {
        Ok(outcomes) => {
            assert_eq!(msgids.len(), outcomes.len(), "a gateway gives each member an outcome");
            for (msgid, outcome) in msgids.iter().zip(outcomes) {
                match (msgid, outcome) {
                    (None, _) => {}
                    (Some(msgid), Ok(value)) => well(out, *msgid, value),
                    (Some(msgid), Err(error)) => frame::refuse(out, Some(*msgid), error),
                }
            }
        }
        Err(error) => {
            let answered = msgids.iter().flatten();
            answered.for_each(|msgid| frame::refuse(out, Some(*msgid), error));
        }
    }
}
