//! A node that lies, for tests: it is there only in builds with the features `byzantine` and
//! `planted-bugs`, and lies only when its environment asks for it, or the simulator does. It keeps a log
//! as any other; what it says of that is another matter.

use super::rules::Rules;
use crate::{
    consensus::{
        pbft::{
            Batch, Company, Keys, Letter, Message, Outputs, Request,
            batch::link,
            keys::{Digest, Signature, Statement},
            message::{PrePrepare, Vote},
        },
        record::Record,
    },
    wire::{
        api::{Priority, TaskStatus},
        id::{PartitionIndex, TOKENS_END, TaskId},
        names::Named,
    },
};
use bytes::Bytes;
use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
    env,
    sync::Arc,
};

/// What of the environment says how it lies: some of [`Lie::NAMES`], with commas between them.
const VARIABLE: &str = "COREFLOW_LIES";
/// Of so many blocks that it proposes one is a lie.
const LIE_EVERY: u64 = 8;
/// Numbers above this are those of requests that it makes up.
const ASKED_BEFORE: u64 = 1 << 40;
/// It makes up a request with each so many messages, of so many tasks.
const FLOOD_EVERY: u64 = 64;
const FLOOD_TASKS: u32 = 500;
/// Copies in each lie of them, of tasks of each other node; and in the simulator.
const COPIES: u32 = 250;
const COPIES_SIMULATED: u32 = 4;
/// Bytes that it adds to each block which it proposes, where it fills the logs; and where those are as
/// short as in the simulator.
const PADDING_BYTES: usize = 256 * 1024;
const PADDING_BYTES_SIMULATED: usize = 16 * 1024;
/// Tasks that others asked for, of which it knows what they are; of each partition.
const HEARD_MAX: usize = 64;
/// Entries that it remembers to have ordered twice.
const TWICE_MAX: usize = 4096;

/// How a node lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// As a primary it orders different entries at one index, and votes for both.
    Equivocate,
    /// It votes for what nobody has ordered.
    Vote,
    /// It says things in the name of others, and with signatures that are none.
    Forge,
    /// It keeps things from others.
    Withhold,
    /// It takes no notice of what others ask for.
    Starve,
    /// It says that it has accepted tasks which other nodes hand on, and forgets them.
    Acknowledge,
    /// As a primary it says that nothing of the log is needed.
    Compact,
    /// As a primary it reserves all fencing tokens that there are.
    Tokens,
    /// It asks for what others ask for, in their tasks' names, and orders that before.
    Names,
    /// It asks for very many tasks that nobody does.
    Flood,
    /// As a primary it orders copies of tasks that never were, under requests that others once made.
    Copies,
    /// As a primary it never says that anything of the log is not needed, and fills it.
    Hoard,
    /// As a primary it orders copies of tasks which others asked for that say something else.
    Contents,
}

impl Lie {
    const NAMES: [(&str, Self); 13] = [
        ("equivocate", Self::Equivocate),
        ("vote", Self::Vote),
        ("forge", Self::Forge),
        ("withhold", Self::Withhold),
        ("starve", Self::Starve),
        ("acknowledge", Self::Acknowledge),
        ("compact", Self::Compact),
        ("tokens", Self::Tokens),
        ("names", Self::Names),
        ("flood", Self::Flood),
        ("copies", Self::Copies),
        ("hoard", Self::Hoard),
        ("contents", Self::Contents),
    ];
}

thread_local! {
    /// How replicas lie that this thread makes, where it says so.
    static PLANTED: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Lets the replicas lie that this thread makes from now on: as the environment would say, or as that
/// says.
pub fn plant(lies: Option<&'static str>) {
    PLANTED.set(lies);
}

/// The lies that this thread or the environment asks for.
///
/// # Panics
/// When that asks for something unknown.
fn lies_of_environment() -> Vec<Lie> {
    let planted = PLANTED.get().map(str::to_owned);
    let asked = planted.unwrap_or_else(|| env::var(VARIABLE).unwrap_or_default());
    let lie = |name: &str| {
        let known = Lie::NAMES.iter().find(|(known, _)| *known == name);
        known.unwrap_or_else(|| panic!("{VARIABLE}: {name:?} is no lie that is known")).1
    };
    asked.split(',').filter(|name| !name.is_empty()).map(lie).collect()
}

/// Whether this node says that it has accepted tasks which other nodes hand on, and forgets them.
pub fn acknowledges() -> bool {
    lies_of_environment().contains(&Lie::Acknowledge)
}

/// A task that nobody does.
fn parcel(id: TaskId, is_asked: bool) -> Record<'static> {
    Record::Submitted {
        id,
        is_asked,
        agent_type: "parcel",
        priority: Priority::Normal,
        submitted_unix_ms: 1,
        due_unix_ms: 0,
        timeout_ms: 0,
        max_attempts: 0,
        attempts: 0,
        key: None,
        payload: &[0xc0],
    }
}

/// Turns what a node says into lies.
pub struct Liar {
    lies: Vec<Lie>,
    company: Company,
    /// Messages that it has looked at.
    count: u64,
    /// Blocks that it has proposed.
    proposed: u64,
    /// How often each lie was told.
    told: [u64; Lie::NAMES.len()],
    rules: Rules,
    /// The number of the last request that it made up.
    asked: u64,
    /// The first request of each other node that it saw, by partition and node.
    seen: BTreeMap<(PartitionIndex, u64), u64>,
    /// The last tasks that others asked for, each a record, by partition.
    heard: BTreeMap<PartitionIndex, VecDeque<Bytes>>,
    padding_bytes: usize,
    copies: u32,
    /// The other chains of entries that it has ordered twice, by partition, view and index.
    twice: BTreeMap<(PartitionIndex, u64, u64), Digest>,
}

impl Liar {
    /// One that lies as the environment says.
    ///
    /// # Panics
    /// When that asks for something unknown.
    pub fn of_environment(company: &Company) -> Self {
        let lies = lies_of_environment();
        if !lies.is_empty() {
            tracing::warn!(?lies, "this node lies to the others, as {VARIABLE} asks for");
        }
        let (padding_bytes, copies) = match PLANTED.get() {
            Some(_) => (PADDING_BYTES_SIMULATED, COPIES_SIMULATED),
            None => (PADDING_BYTES, COPIES),
        };
        Self {
            lies,
            company: company.clone(),
            rules: Rules::new(company),
            asked: ASKED_BEFORE,
            seen: BTreeMap::new(),
            heard: BTreeMap::new(),
            padding_bytes,
            copies,
            count: 0,
            proposed: 0,
            told: Default::default(),
            twice: BTreeMap::new(),
        }
    }

    fn tells(&self, lie: Lie) -> bool {
        self.lies.contains(&lie)
    }

    /// Notes that a lie was told; whoever tests looks for it in the log of messages.
    fn note(&mut self, lie: Lie) {
        let told = &mut self.told[lie as usize];
        *told += 1;
        if told.is_power_of_two() {
            tracing::warn!(lie = Lie::NAMES[lie as usize].0, times = *told, "this node has lied");
        }
    }

    /// Whether it takes no notice of a message.
    pub fn ignores(&mut self, message: &Message) -> bool {
        let ignores = self.tells(Lie::Starve) && matches!(message, Message::Request(_));
        if ignores {
            self.note(Lie::Starve);
        }
        ignores
    }

    /// What it asks for when another node asks for something: the same, in its own name.
    pub fn steal(&mut self, partition: PartitionIndex, message: &Message) -> Option<Message> {
        let Message::Request(request) = message else { return None };
        let me = self.company.node;
        self.seen.entry((partition, request.client)).or_insert(request.timestamp);
        if self.tells(Lie::Contents) {
            self.remember(partition, &request.operation);
        }
        if !self.tells(Lie::Names) || request.client == me {
            return None;
        }
        self.note(Lie::Names);
        self.asked += 1;
        let operation = request.operation.clone();
        Some(Message::Request(Request::new(&self.keys(partition), me, self.asked, operation)))
    }

    fn remember(&mut self, partition: PartitionIndex, operation: &Bytes) {
        let heard = self.heard.entry(partition).or_default();
        let mut at = 0;
        while let Ok((_, length)) = Record::decode(&operation[at..]) {
            heard.push_back(operation.slice(at..at + length));
            at += length;
        }
        heard.drain(..heard.len().saturating_sub(HEARD_MAX));
    }

    /// A block with a copy of a task that has another one's payload, or another priority, or other limits.
    fn with_other_contents(&mut self, partition: PartitionIndex, data: Bytes) -> Bytes {
        let heard = self.heard.get_mut(&partition);
        let Some((one, other)) = heard.and_then(|heard| Some((heard.pop_back()?, heard.back()?)))
        else {
            return data;
        };
        let (Ok((mut copy, _)), Ok((another, _))) = (Record::decode(&one), Record::decode(other))
        else {
            return data;
        };
        let told = self.told[Lie::Contents as usize];
        if let (
            Record::Submitted { is_asked, key, payload, priority, timeout_ms, .. },
            Record::Submitted { payload: others, .. },
        ) = (&mut copy, another)
        {
            (*is_asked, *key) = (false, None);
            match told % 4 {
                2 => {
                    *priority =
                        if *priority == Priority::Low { Priority::High } else { Priority::Low }
                }
                3 => *timeout_ms += 1,
                _ => *payload = others,
            }
        }
        let mut data = data.to_vec();
        copy.encode(&mut data);
        self.note(Lie::Contents);
        data.into()
    }

    /// Very many tasks, rightly named and signed.
    fn flood(&mut self, partition: PartitionIndex) -> Message {
        self.note(Lie::Flood);
        self.asked += 1;
        let me = self.company.node;
        let naming = self.rules.naming(me, self.asked).expect("it is a node");
        let mut operation = Vec::new();
        for place in 0..FLOOD_TASKS {
            let (asker, request) = (naming.asker, self.asked);
            let random = naming.names.name(Named { asker, partition, request, place });
            parcel(TaskId { partition, random }, true).encode(&mut operation);
        }
        Message::Request(Request::new(&self.keys(partition), me, self.asked, operation.into()))
    }

    /// What it proposes in the place of a block, behind that many entries.
    pub fn propose(&mut self, partition: PartitionIndex, data: Bytes, committed: u64) -> Bytes {
        self.proposed += 1;
        let lie = match self.proposed % LIE_EVERY {
            2 if self.tells(Lie::Compact) => Lie::Compact,
            6 if self.tells(Lie::Tokens) => Lie::Tokens,
            4 if self.tells(Lie::Copies) => return self.with_copies(partition, data),
            0 if self.tells(Lie::Contents) => return self.with_other_contents(partition, data),
            _ if self.tells(Lie::Hoard) => return self.hoarded(partition, data),
            _ => return data,
        };
        self.note(lie);
        let record = match lie {
            Lie::Compact => Record::Compacted { partition, index: committed },
            _ => Record::Tokens { partition, below: TOKENS_END - 1 },
        };
        let mut data = Vec::new();
        record.encode(&mut data);
        data.into()
    }

    /// A block that frees nothing, and is long.
    fn hoarded(&mut self, partition: PartitionIndex, data: Bytes) -> Bytes {
        let mut data = data.to_vec();
        if matches!(Record::decode(&data), Ok((Record::Compacted { .. }, _))) {
            self.note(Lie::Hoard);
            // Nothing of what its shard may be told again when it leads.
            data.clear();
            Record::Compacted { partition, index: 0 }.encode(&mut data);
            return data.into();
        }
        // The end of a task that nobody knows.
        let (id, attempts, ended_unix_ms) = (TaskId { partition, random: 1 }, 1, 1);
        let (status, body) = (TaskStatus::Done, &[0xc0; PADDING_BYTES][..self.padding_bytes]);
        Record::Ended { id, status, attempts, ended_unix_ms, body }.encode(&mut data);
        data.into()
    }

    /// A block with copies of tasks in it that are in no request of those that they name.
    fn with_copies(&mut self, partition: PartitionIndex, data: Bytes) -> Bytes {
        let seen = self.seen.range((partition, 0)..=(partition, u64::MAX));
        let seen: Vec<_> = seen.map(|((_, node), request)| (*node, *request)).collect();
        let others = self.others();
        if others.len() > seen.len() {
            return data;
        }
        self.note(Lie::Copies);
        // Places that no request has.
        let first = u32::MAX / 2 + self.told[Lie::Copies as usize] as u32 * self.copies;
        let mut data = data.to_vec();
        for (node, request) in seen {
            let naming = self.rules.naming(node, request).expect("it is a node");
            for place in first..first + self.copies {
                let named = Named { asker: naming.asker, partition, request, place };
                let id = TaskId { partition, random: naming.names.name(named) };
                parcel(id, false).encode(&mut data);
            }
        }
        data.into()
    }

    fn keys(&self, partition: PartitionIndex) -> Keys {
        self.company.keys(partition)
    }

    /// Lies in the place of what was to be said.
    pub fn lie(&mut self, outputs: &mut Outputs) {
        if self.lies.is_empty() {
            return;
        }
        for (partition, letter) in std::mem::take(&mut outputs.messages) {
            self.count += 1;
            let mut letters = Vec::new();
            if self.tells(Lie::Forge) && self.count.is_multiple_of(16) {
                letters.extend(self.forged(partition, &letter));
                self.note(Lie::Forge);
            }
            if self.tells(Lie::Flood) && self.count.is_multiple_of(FLOOD_EVERY) {
                let message = self.flood(partition);
                letters.push(Letter { to: self.others(), message });
            }
            self.turn(partition, letter, &mut letters);
            if self.tells(Lie::Withhold) && self.count.is_multiple_of(3) {
                let kept = (self.count / 3) as usize;
                self.note(Lie::Withhold);
                for letter in &mut letters {
                    let at = kept % letter.to.len().max(1);
                    letter.to.truncate(at);
                }
            }
            outputs.messages.extend(letters.into_iter().map(|letter| (partition, letter)));
        }
    }

    fn turn(&mut self, partition: PartitionIndex, letter: Letter, out: &mut Vec<Letter>) {
        let Letter { to, message } = letter;
        match message {
            Message::PrePrepare(order)
                if self.tells(Lie::Equivocate) && order.seq.is_multiple_of(2) =>
            {
                let other = self.other(partition, &order);
                self.note(Lie::Equivocate);
                let (first, second) = to.split_at(to.len() / 2);
                let letters = [(first, order), (second, other)];
                out.extend(letters.map(|(to, order)| Letter {
                    to: to.to_vec(),
                    message: Message::PrePrepare(order),
                }));
            }
            Message::Prepare(vote) => {
                self.votes(partition, vote, &to, &Message::Prepare, out);
            }
            Message::Commit(vote, committed) => {
                self.votes(partition, vote, &to, &|vote| Message::Commit(vote, committed), out);
            }
            message => out.push(Letter { to, message }),
        }
    }

    /// Another entry than the one that is ordered, rightly signed.
    fn other(&mut self, partition: PartitionIndex, order: &PrePrepare) -> PrePrepare {
        let PrePrepare { view, seq, parent, batch, .. } = order;
        let mut data = batch.data().to_vec();
        Record::Tokens { partition, below: 1 }.encode(&mut data);
        let batch = Batch::own(batch.origin(), self.company.node, data.into());
        let chain = link(parent, *seq, batch.digest());
        self.twice.insert((partition, *view, *seq), chain);
        if self.twice.len() > TWICE_MAX {
            self.twice.pop_first();
        }
        let statement = Statement::PrePrepare { view: *view, seq: *seq, chain: &chain };
        let signature = self.keys(partition).sign(statement);
        PrePrepare { view: *view, seq: *seq, parent: *parent, signature, batch }
    }

    /// A vote, and one for another entry where there are two, or one for none.
    fn votes(
        &mut self,
        partition: PartitionIndex,
        vote: Vote,
        to: &[u64],
        message: &dyn Fn(Vote) -> Message,
        out: &mut Vec<Letter>,
    ) {
        let Vote { view, seq, .. } = vote;
        let mut other = self.twice.get(&(partition, view, seq)).copied();
        if self.tells(Lie::Vote) && self.count.is_multiple_of(4) {
            other = Some([self.count as u8; 32]);
            self.note(Lie::Vote);
        }
        let mut say = |vote| out.push(Letter { to: to.to_vec(), message: message(vote) });
        if let Some(chain) = other {
            let keys = self.keys(partition);
            let commit = matches!(message(vote), Message::Commit(..));
            let signature = keys.sign(match commit {
                true => Statement::Commit { view, seq, chain: &chain },
                false => Statement::Prepare { view, seq, chain: &chain },
            });
            say(Vote { view, seq, chain, signature });
        }
        say(vote);
    }

    fn others(&self) -> Vec<u64> {
        self.company.nodes.iter().copied().filter(|node| *node != self.company.node).collect()
    }

    /// What others never said.
    fn forged(&self, partition: PartitionIndex, letter: &Letter) -> Vec<Letter> {
        let others = self.company.nodes.iter().filter(|node| **node != self.company.node);
        let other = *others.clone().next().expect("there are four nodes");
        let to: Vec<_> = others.copied().collect();
        let tell = |message| Letter { to: to.clone(), message };
        let mut operation = Vec::new();
        Record::Tokens { partition, below: u64::MAX }.encode(&mut operation);
        let operation = Bytes::from(operation);
        let keys = self.keys(partition);
        // Its own signature under a request of another node.
        let mut request = Request::new(&keys, self.company.node, self.count, operation);
        request.client = other;
        let mut forged = vec![tell(Message::Request(request))];
        match &letter.message {
            // Somebody else's change of the view, and one that proves nothing.
            Message::ViewChange(change) => {
                let mut change = (**change).clone();
                change.replica = other;
                change.sign(&keys);
                forged.push(tell(Message::ViewChange(Arc::new(change))));
            }
            Message::NewView(view) => {
                let mut view = (**view).clone();
                view.changes.truncate(1);
                view.sign(&keys);
                forged.push(tell(Message::NewView(Arc::new(view))));
            }
            Message::Commit(vote, _) => {
                let vote = Vote { seq: vote.seq + 1, ..*vote };
                forged.push(tell(Message::Commit(vote, u64::MAX)));
                let vote = Vote { signature: Signature::NONE, ..vote };
                forged.push(tell(Message::Prepare(vote)));
            }
            Message::Checkpoint(checkpoint) => {
                let mut checkpoint = *checkpoint;
                checkpoint.chain = [1; 32];
                let (seq, chain, table) = (checkpoint.seq, &checkpoint.chain, &checkpoint.table);
                checkpoint.signature = keys.sign(Statement::Checkpoint { seq, chain, table });
                forged.push(tell(Message::Checkpoint(checkpoint)));
            }
            _ => {}
        }
        forged
    }
}
