//! What a core sees of all nodes: a snapshot of the world, and a cache of what was asked of it.
//!
//! Invariants worth naming:
//! - A view answers as its snapshot does, but for answers that are younger than the cache's time to
//!   live and that no change since made wrong.
//! - No question takes a lock or waits.
//!
//! The questions that are kept are those that are asked for every message or task: where an agent
//! is, who has a name, who is the least loaded of a type. All others go to [`View::world`].

use super::{
    TypeIndex,
    board::Snapshot,
    cache::{Cache, Counters, Equivalent},
    text::Text,
    world::{Change, Status, World},
};
use crate::wire::id::{AgentAddress, NodeId};
use foldhash::fast::RandomState;
use std::{
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher},
    sync::Arc,
};

/// Answers that a core keeps.
pub const ANSWERS_MAX: usize = 10_000;
/// How long it keeps one, milliseconds.
pub const ANSWER_TTL_MS: u64 = 5_000;

/// Where an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its place in its node's list of types.
    pub type_index: TypeIndex,
    /// Whether its node is there.
    pub status: Status,
}

/// What was asked.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Agent(AgentAddress),
    Name(&'a str),
    Type(&'a str),
}

/// A question and its hash, which the world's hasher made.
struct Question<'a> {
    hash: u64,
    subject: Subject<'a>,
}

/// What was asked, as it is kept: a short name within, so that a hit follows no pointer.
#[derive(PartialEq, Eq)]
enum KeptSubject {
    Agent(AgentAddress),
    Name(Text),
    Type(Text),
}

/// A question as it is kept.
#[derive(PartialEq, Eq)]
struct KeptQuestion {
    hash: u64,
    subject: KeptSubject,
}

impl Hash for KeptQuestion {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.hash);
    }
}

impl Hash for Question<'_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.hash);
    }
}

impl Equivalent<KeptQuestion> for Question<'_> {
    #[inline]
    fn equivalent(&self, kept: &KeptQuestion) -> bool {
        match (self.subject, &kept.subject) {
            (Subject::Agent(agent), KeptSubject::Agent(kept)) => agent == *kept,
            (Subject::Name(name), KeptSubject::Name(kept)) => kept.as_bytes() == name.as_bytes(),
            (Subject::Type(name), KeptSubject::Type(kept)) => kept.as_bytes() == name.as_bytes(),
            _ => false,
        }
    }
}

impl Question<'_> {
    fn keep(&self) -> KeptQuestion {
        let subject = match self.subject {
            Subject::Agent(agent) => KeptSubject::Agent(agent),
            Subject::Name(name) => KeptSubject::Name(Text::new(name)),
            Subject::Type(name) => KeptSubject::Type(Text::new(name)),
        };
        KeptQuestion { hash: self.hash, subject }
    }
}

/// The question about a name or a type that has this hash: a change tells no more of it.
struct Hashed {
    hash: u64,
    is_type: bool,
}

impl Hash for Hashed {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.hash);
    }
}

impl Equivalent<KeptQuestion> for Hashed {
    fn equivalent(&self, kept: &KeptQuestion) -> bool {
        let is_kind = match kept.subject {
            KeptSubject::Agent(_) => false,
            KeptSubject::Name(_) => !self.is_type,
            KeptSubject::Type(_) => self.is_type,
        };
        is_kind && kept.hash == self.hash
    }
}

/// Takes the hash that a question brings.
#[derive(Default)]
struct Brought(u64);

impl Hasher for Brought {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a question brings its hash as one number");
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// An answer; that there is none is one as well.
#[derive(Clone, Copy)]
enum Answer {
    Agent(Option<Place>),
    Name(Option<AgentAddress>),
    Type(Option<NodeId>),
}

/// What a core sees of all nodes.
pub struct View {
    snapshot: Arc<Snapshot>,
    answers: Cache<KeptQuestion, Answer, BuildHasherDefault<Brought>>,
    /// The world's: all snapshots have the same.
    hasher: RandomState,
}

impl View {
    /// A view of a snapshot, with a cache for so many answers.
    pub fn new(snapshot: Arc<Snapshot>, answers: usize, ttl_ms: u64) -> Self {
        let hasher = snapshot.world().hasher();
        Self { snapshot, answers: Cache::new(answers, ttl_ms), hasher }
    }

    /// The world as this core knows it, for questions that are asked seldom.
    pub fn world(&self) -> &World {
        self.snapshot.world()
    }

    /// The snapshot itself.
    #[cfg(test)]
    pub(super) fn snapshot_for_tests(&self) -> Arc<Snapshot> {
        self.snapshot.clone()
    }

    /// Which snapshot it sees.
    pub fn number(&self) -> u64 {
        self.snapshot.number()
    }

    /// What its cache did.
    pub fn counters(&self) -> Counters {
        self.answers.counters()
    }

    /// Takes a newer snapshot, and forgets the answers that are wrong by what changed between.
    pub fn adopt(&mut self, snapshot: Arc<Snapshot>, now_ms: u64) {
        match snapshot.changes_since(self.number()) {
            Some(changes) => changes.for_each(|change| self.forget(*change, now_ms)),
            None => self.answers.clear(now_ms),
        }
        self.snapshot = snapshot;
    }

    fn forget(&mut self, change: Change, now_ms: u64) {
        match change {
            Change::All => self.answers.clear(now_ms),
            Change::Gone(node) => self.answers.invalidate_where(|question, answer| {
                let KeptSubject::Agent(agent) = question.subject else {
                    return match answer {
                        Answer::Name(Some(agent)) => agent.node == node,
                        Answer::Type(Some(chosen)) => *chosen == node,
                        _ => false,
                    };
                };
                agent.node == node
            }),
            Change::Agent(agent) => {
                let hash = self.hasher.hash_one(agent);
                self.answers.invalidate(&Question { hash, subject: Subject::Agent(agent) });
            }
            Change::Name(hash) => drop(self.answers.invalidate(&Hashed { hash, is_type: false })),
            Change::Type(hash) => drop(self.answers.invalidate(&Hashed { hash, is_type: true })),
        }
    }

    /// Where an agent is: as [`World::agent`] says.
    #[inline]
    pub fn agent(&mut self, agent: AgentAddress, now_ms: u64) -> Option<Place> {
        let node = if agent.node == 0 { self.world().me() } else { agent.node };
        let agent = AgentAddress { node, ..agent };
        let question =
            Question { hash: self.hasher.hash_one(agent), subject: Subject::Agent(agent) };
        let find = |world: &World| {
            let seen = world.agent(agent);
            Answer::Agent(seen.map(|it| Place { type_index: it.type_index, status: it.status }))
        };
        match self.answer(&question, now_ms, find) {
            Answer::Agent(place) => place,
            _ => unreachable!("an answer is of its question's kind"),
        }
    }

    /// Who has a name: as [`World::named`] says.
    #[inline]
    pub fn named(&mut self, name: &str, now_ms: u64) -> Option<AgentAddress> {
        let question = Question { hash: self.hasher.hash_one(name), subject: Subject::Name(name) };
        match self.answer(&question, now_ms, |world| Answer::Name(world.named(name))) {
            Answer::Name(agent) => agent,
            _ => unreachable!("an answer is of its question's kind"),
        }
    }

    /// The least loaded node of a type: as [`World::least_loaded`] says.
    #[inline]
    pub fn least_loaded(&mut self, agent_type: &str, now_ms: u64) -> Option<NodeId> {
        let hash = self.hasher.hash_one(agent_type);
        let question = Question { hash, subject: Subject::Type(agent_type) };
        match self.answer(&question, now_ms, |world| Answer::Type(world.least_loaded(agent_type))) {
            Answer::Type(node) => node,
            _ => unreachable!("an answer is of its question's kind"),
        }
    }

    #[inline]
    fn answer(
        &mut self,
        question: &Question<'_>,
        now_ms: u64,
        find: impl FnOnce(&World) -> Answer,
    ) -> Answer {
        if let Some(answer) = self.answers.get(question, now_ms) {
            return *answer;
        }
        let answer = find(self.snapshot.world());
        self.answers.insert(question.keep(), answer, now_ms);
        answer
    }
}
