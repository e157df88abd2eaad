//! Entries that raft wants to send and that are on the disk only.

use bytes::Bytes;
use raft::GetEntriesContext;

/// Runs of entries that are wanted at a time; more followers than that find a quorum without
/// their being served from the disk all at once.
const WANTED_MAX: usize = 8;
/// Reasons to want one run: raft has two for each follower.
const CONTEXTS_MAX: usize = 16;

#[derive(Debug)]
struct Wanted {
    id: u64,
    first: u64,
    /// The tick at which it was wanted first.
    since: u64,
    is_asked: bool,
    /// Who is told when they are there. What a context holds is private to raft, so equal ones
    /// are told by how they print.
    contexts: Vec<(String, GetEntriesContext)>,
    data: Vec<Bytes>,
}

/// What is wanted, asked for and answered.
#[derive(Debug, Default)]
pub(super) struct Fetching {
    wanted: Vec<Wanted>,
    last_id: u64,
    /// The last tick.
    pub now: u64,
}

impl Fetching {
    /// Notes that entries from an index on are wanted. When there is no room, raft asks again
    /// after the follower's next heartbeat.
    pub fn want(&mut self, first: u64, context: GetEntriesContext) {
        let name = format!("{context:?}");
        if let Some(wanted) = self.wanted.iter_mut().find(|wanted| wanted.first == first) {
            let is_known = wanted.contexts.iter().any(|(known, _)| *known == name);
            if !is_known && wanted.contexts.len() < CONTEXTS_MAX {
                wanted.contexts.push((name, context));
            }
        } else if self.wanted.len() < WANTED_MAX {
            self.last_id += 1;
            let (id, contexts) = (self.last_id, vec![(name, context)]);
            let since = self.now;
            let (is_asked, data) = (false, Vec::new());
            self.wanted.push(Wanted { id, first, since, is_asked, contexts, data });
        }
    }

    /// Decides by a run's first index, and since when it is wanted, whether it is asked for now:
    /// `None` gives it up.
    pub fn ask(&mut self, mut decide: impl FnMut(u64, u64) -> Option<bool>) -> Vec<(u64, u64)> {
        let mut asked = Vec::new();
        self.wanted.retain_mut(|wanted| {
            if wanted.is_asked {
                return true;
            }
            let Some(now) = decide(wanted.first, wanted.since) else { return false };
            if now {
                wanted.is_asked = true;
                asked.push((wanted.id, wanted.first));
            }
            true
        });
        asked
    }

    /// The first indexes of runs that were not asked for yet, and since when they are wanted.
    pub fn unasked(&self) -> impl Iterator<Item = (u64, u64)> {
        let unasked = self.wanted.iter().filter(|wanted| !wanted.is_asked);
        unasked.map(|wanted| (wanted.first, wanted.since))
    }

    /// The first index of a run that was asked for.
    pub fn first(&self, id: u64) -> Option<u64> {
        self.wanted.iter().find(|wanted| wanted.id == id).map(|wanted| wanted.first)
    }

    /// Takes an answer; who is to be told of it. [`Fetching::done`] frees it.
    pub fn answer(&mut self, id: u64, data: Vec<Bytes>) -> Vec<GetEntriesContext> {
        let Some(wanted) = self.wanted.iter_mut().find(|wanted| wanted.id == id) else {
            return Vec::new();
        };
        wanted.data = data;
        wanted.contexts.drain(..).map(|(_, context)| context).collect()
    }

    /// A run was answered and used, or cannot be.
    pub fn done(&mut self, id: u64) {
        self.wanted.retain(|wanted| wanted.id != id);
    }

    /// The data of an entry that was just answered.
    pub fn data(&self, index: u64) -> Option<Bytes> {
        self.wanted.iter().find_map(|wanted| {
            wanted.data.get(usize::try_from(index.checked_sub(wanted.first)?).ok()?).cloned()
        })
    }

    /// Entries were cut off: this replica does not lead any more, and answers may be of a term
    /// that is gone.
    pub fn forget_all(&mut self) {
        self.wanted.clear();
    }

    /// Entries before an index are not held any more.
    pub fn forget_before(&mut self, before: u64) {
        self.wanted.retain(|wanted| wanted.first >= before);
    }
}
