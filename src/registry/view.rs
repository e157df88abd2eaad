//! What a core sees of all nodes: a snapshot of the world, and a cache of what was asked of it.
//!
//! Invariants worth naming:
//! - A view answers as its snapshot does, but for answers that are younger than the cache's time to
//!   live and that no change since made wrong.
//! - No question takes a lock or waits.
//! - Of nodes that are chosen for their loads none is chosen by what was known before it was gone.
//!
//! The questions that are kept are those that are asked for every message or task: who has a name, who is the
//! least loaded of a type. All others go to [`View::world`]; where an agent is, its address says.

use super::{
    board::Snapshot,
    cache::{Cache, Counters, Equivalent},
    fact::Load,
    spread::Spread,
    text::Text,
    world::{Change, Status, World},
};
use crate::wire::id::{AgentAddress, NodeId};
use foldhash::fast::RandomState;
use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher},
    sync::Arc,
};

/// Answers that a core keeps.
pub const ANSWERS_MAX: usize = 10_000;
/// How long it keeps one, milliseconds.
pub const ANSWER_TTL_MS: u64 = 5_000;
/// Types, and things that agents can do, for which a core knows whom it sends to next.
const CHOSEN_MAX: usize = 1_024;
/// How long it goes by the loads that it knows, milliseconds: a round of gossip.
const READ_MS: u64 = 100;

/// Who has a name: the question and its hash, which the world's hasher made.
struct Question<'a> {
    hash: u64,
    name: &'a str,
}

/// The same as it is kept: a short name within, so that a hit follows no pointer.
#[derive(PartialEq, Eq)]
struct KeptQuestion {
    hash: u64,
    name: Text,
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
        kept.name.as_bytes() == self.name.as_bytes()
    }
}

/// The question about a name that has this hash: a change tells no more of it.
struct HashedName(u64);

impl Hash for HashedName {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.0);
    }
}

impl Equivalent<KeptQuestion> for HashedName {
    fn equivalent(&self, kept: &KeptQuestion) -> bool {
        kept.hash == self.0
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

/// The nodes among which what is sent to agents of a type is spread, or to agents that can do something.
struct Chosen {
    spread: Spread,
    /// When it was read off the world, milliseconds.
    read_ms: u64,
    /// The snapshot that it was read off.
    number: u64,
}

/// What a core sees of all nodes.
pub struct View {
    snapshot: Arc<Snapshot>,
    /// Who has a name; that nobody has it is an answer as well.
    answers: Cache<KeptQuestion, Option<AgentAddress>, BuildHasherDefault<Brought>>,
    /// By the name of the type.
    of_type: HashMap<Box<str>, Chosen, RandomState>,
    /// By what the agents can do.
    capable: HashMap<Box<str>, Chosen, RandomState>,
    /// The world's: all snapshots have the same.
    hasher: RandomState,
}

impl View {
    /// A view of a snapshot, with a cache for so many answers.
    pub fn new(snapshot: Arc<Snapshot>, answers: usize, ttl_ms: u64) -> Self {
        let hasher = snapshot.world().hasher();
        let (of_type, capable) = (HashMap::default(), HashMap::default());
        Self { snapshot, answers: Cache::new(answers, ttl_ms), of_type, capable, hasher }
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
            None => self.forget(Change::All, now_ms),
        }
        self.snapshot = snapshot;
    }

    fn forget(&mut self, change: Change, now_ms: u64) {
        match change {
            Change::All => {
                self.answers.clear(now_ms);
                self.of_type.clear();
                self.capable.clear();
            }
            Change::Gone(node) => {
                self.answers
                    .invalidate_where(|_, answer| answer.is_some_and(|agent| agent.node == node));
                self.of_type.clear();
                self.capable.clear();
            }
            Change::Name(hash) => drop(self.answers.invalidate(&HashedName(hash))),
            // Whom something is sent to next is read again a little later.
            Change::Type(_) => {}
        }
    }

    /// Who has a name: as [`World::named`] says.
    #[inline]
    pub fn named(&mut self, name: &str, now_ms: u64) -> Option<AgentAddress> {
        let question = Question { hash: self.hasher.hash_one(name), name };
        if let Some(answer) = self.answers.get(&question, now_ms) {
            return *answer;
        }
        let answer = self.snapshot.world().named(name);
        let kept = KeptQuestion { hash: question.hash, name: Text::new(name) };
        self.answers.insert(kept, answer, now_ms);
        answer
    }

    /// The least loaded living node of a type, by its load and by what was chosen since that was told;
    /// `lot` decides between equals.
    #[inline]
    pub fn least_loaded(&mut self, agent_type: &str, now_ms: u64, lot: u64) -> Option<NodeId> {
        let world = self.snapshot.world();
        choose(&mut self.of_type, agent_type, (self.snapshot.number(), now_ms), || {
            Spread::of(living(world.loads(agent_type)), lot)
        })
    }

    /// The same among all types that can do something.
    #[inline]
    pub fn least_loaded_capable(&mut self, what: &str, now_ms: u64, lot: u64) -> Option<NodeId> {
        let world = self.snapshot.world();
        choose(&mut self.capable, what, (self.snapshot.number(), now_ms), || {
            Spread::of(living(world.loads_of_capable(what)), lot)
        })
    }
}

/// The node that is chosen next, read off the world again when that has news and some time has passed.
#[inline]
fn choose(
    all: &mut HashMap<Box<str>, Chosen, RandomState>,
    name: &str,
    (number, now_ms): (u64, u64),
    read: impl Fn() -> Spread,
) -> Option<NodeId> {
    if let Some(chosen) = all.get_mut(name) {
        if chosen.number != number && now_ms >= chosen.read_ms + READ_MS {
            *chosen = Chosen { spread: read(), read_ms: now_ms, number };
        }
        return chosen.spread.next();
    }
    if all.len() >= CHOSEN_MAX {
        all.clear();
    }
    let mut chosen = Chosen { spread: read(), read_ms: now_ms, number };
    let next = chosen.spread.next();
    all.insert(name.into(), chosen);
    next
}

/// The loads of nodes that are alive.
fn living(
    loads: impl Iterator<Item = (NodeId, Status, Load)>,
) -> impl Iterator<Item = (NodeId, Load)> {
    let living = loads.filter(|(_, status, _)| *status == Status::Alive);
    living.map(|(node, _, load)| (node, load))
}
