//! Which node is lent the next task of a type that has no agent here.
//!
//! What nodes tell of their loads is a tenth of a second old, and others lend by the same word. So the
//! loads only say who has the least to do; how much may be under way to a node follows from what the
//! node itself answers: a *window*, as TCP has one. It grows with every attempt that the node ends, after
//! the first refusal with every window of them, and is halved when the node takes none; not below what
//! its agents can hold, when it says that it has enough to do.
//!
//! Invariants worth naming:
//! - A node is lent nothing while as much is under way to it as its window, and no window is larger
//!   than [`WINDOW_MAX`].
//! - A node that took nothing is left alone for a pause, which doubles up to [`PAUSE_MAX_MS`] while it
//!   goes on so. What it refuses meanwhile was sent before: it counts once.
//! - A node that says nothing costs an attempt, though gossip has it alive: it is lent nothing more until
//!   it answers or has been away. It is asked whether it answers, after [`SILENCE_MS`] and then ever more
//!   seldom, down to every [`SILENCE_MAX_MS`].
//! - Equals are chosen by lot, so that cores which know the same do not all choose the same node.

use crate::{registry::fact::Load, wire::id::NodeId};

/// The most attempts of a type that a core has under way to one node.
pub const WINDOW_MAX: u32 = 256;
/// The window of a node that was lent nothing yet, if its agents take so many.
const WINDOW_FIRST: u32 = 32;
/// The pause after a node took nothing, the first time, milliseconds.
const PAUSE_MS: u64 = 10;
/// And at most.
const PAUSE_MAX_MS: u64 = 1_000;
/// The pause after a node said nothing, the first time, milliseconds.
const SILENCE_MS: u64 = 1_000;
/// And at most: as long may pass until one that speaks again is lent something.
const SILENCE_MAX_MS: u64 = 32_000;
/// When to look again though nobody is known who could be lent something, milliseconds: a round of
/// gossip.
const LOOK_MS: u64 = 100;

/// What is known of a node that has agents of the type, or had some.
#[derive(Clone, Debug)]
struct Borrower {
    node: NodeId,
    /// What it told last; no capacity when it has no agents any more.
    load: Load,
    /// What it was lent since it told that.
    since_told: u32,
    under_way: u32,
    window: u32,
    /// Whether it has refused something.
    has_refused: bool,
    /// Attempts that it ended since its window changed.
    ended: u32,
    /// It is left alone before this time, milliseconds.
    closed_until_ms: u64,
    pause_ms: u64,
    /// The pause after it says nothing the next time.
    silence_ms: u64,
    /// It said nothing, and is lent nothing for that.
    is_silent: bool,
    /// It is being asked whether it answers.
    is_probed: bool,
    /// It was lent something since.
    is_asked: bool,
}

impl Borrower {
    /// What its agents have to do, as far as is known.
    fn tasks(&self) -> u64 {
        self.load.tasks() + u64::from(self.since_told)
    }

    /// It says nothing, and is asked again after a pause.
    fn stays_silent(&mut self, now_ms: u64) {
        self.closed_until_ms = self.closed_until_ms.max(now_ms + self.silence_ms);
        self.silence_ms = (2 * self.silence_ms).min(SILENCE_MAX_MS);
    }

    /// It answers: its silence is over.
    fn speaks(&mut self) {
        self.silence_ms = SILENCE_MS;
        if std::mem::take(&mut self.is_silent) {
            self.closed_until_ms = 0;
        }
    }
}

/// The nodes that may be lent tasks of one type.
#[derive(Clone, Debug, Default)]
pub struct Lender {
    borrowers: Vec<Borrower>,
    /// The number of the news that it knows.
    news: Option<u64>,
}

impl Lender {
    /// Whether news of that number are new to it.
    pub fn knows(&self, news: u64) -> bool {
        self.news == Some(news)
    }

    /// Takes in what the nodes that are there tell of their loads, as of the news of a number.
    pub fn learn(&mut self, news: u64, loads: impl Iterator<Item = (NodeId, Load)>) {
        self.news = Some(news);
        let mut known = std::mem::take(&mut self.borrowers);
        for (node, load) in loads.filter(|(_, load)| load.capacity > 0) {
            let place = known.iter().position(|it| it.node == node);
            let mut borrower = place.map(|place| known.swap_remove(place)).unwrap_or(Borrower {
                node,
                load: Load::default(),
                since_told: 0,
                under_way: 0,
                window: load.capacity.clamp(1, WINDOW_FIRST),
                has_refused: false,
                ended: 0,
                closed_until_ms: 0,
                pause_ms: PAUSE_MS,
                silence_ms: SILENCE_MS,
                is_silent: false,
                is_probed: false,
                is_asked: false,
            });
            if borrower.load != load {
                borrower.load = load;
                borrower.since_told = 0;
            }
            self.borrowers.push(borrower);
        }
        // What is under way to a node that tells nothing any more comes back all the same.
        for mut gone in known.into_iter().filter(|it| it.under_way > 0) {
            gone.load.capacity = 0;
            self.borrowers.push(gone);
        }
    }

    /// The node that gets the next task, which counts as under way to it from now on; `lot` decides
    /// between equals. `None` when none takes any now.
    pub fn choose(&mut self, now_ms: u64, lot: u64) -> Option<NodeId> {
        self.choose_of(now_ms, lot, |_| true)
    }

    /// The same among the nodes whose agents are known to have places that are free.
    pub fn choose_free(&mut self, now_ms: u64, lot: u64) -> Option<NodeId> {
        self.choose_of(now_ms, lot, |it| it.tasks() < u64::from(it.load.capacity))
    }

    fn choose_of(
        &mut self,
        now_ms: u64,
        lot: u64,
        may: impl Fn(&Borrower) -> bool,
    ) -> Option<NodeId> {
        let is_open = |it: &&mut Borrower| {
            let is_open = it.under_way < it.window && now_ms >= it.closed_until_ms;
            it.load.capacity > 0 && is_open && !it.is_silent && may(it)
        };
        let tasks = |it: &Borrower| u128::from(it.tasks());
        let capacity = |it: &Borrower| u128::from(it.load.capacity);
        let turn = lot as usize % self.borrowers.len().max(1);
        let (head, tail) = self.borrowers.split_at_mut(turn);
        // One share is less than another when its product with the other's capacity is; of equals the
        // first counts, and each call begins at another place.
        let best = tail.iter_mut().chain(head).filter(is_open).min_by(|one, other| {
            (tasks(one) * capacity(other)).cmp(&(tasks(other) * capacity(one)))
        })?;
        best.under_way += 1;
        best.since_told += 1;
        best.is_asked = true;
        Some(best.node)
    }

    /// An attempt is under way to a node no more.
    pub fn came_back(&mut self, node: NodeId) {
        if let Some(borrower) = self.borrower(node) {
            assert!(borrower.under_way > 0, "no more comes back than was lent");
            borrower.under_way -= 1;
        }
    }

    /// A node ended an attempt.
    pub fn served(&mut self, node: NodeId) {
        if let Some(borrower) = self.borrower(node) {
            borrower.pause_ms = PAUSE_MS;
            borrower.speaks();
            borrower.ended += 1;
            if !borrower.has_refused || borrower.ended >= borrower.window {
                borrower.window = (borrower.window + 1).min(WINDOW_MAX);
                borrower.ended = 0;
            }
        }
    }

    /// A node did not begin an attempt.
    pub fn refused(&mut self, node: NodeId, now_ms: u64) {
        self.close(node, now_ms, 0);
    }

    /// A node said nothing of an attempt: nobody knows whether it began.
    pub fn was_silent(&mut self, node: NodeId, now_ms: u64) {
        let Some(borrower) = self.borrower(node) else { return };
        // What was sent before it was closed tells nothing new.
        if !std::mem::take(&mut borrower.is_asked) {
            return;
        }
        self.close(node, now_ms, 0);
        if let Some(borrower) = self.borrower(node) {
            borrower.is_silent = true;
            borrower.stays_silent(now_ms);
        }
    }

    /// A silent node of which it is time to find out whether it answers; it counts as asked until
    /// [`Lender::was_probed`].
    pub fn to_probe(&mut self, now_ms: u64) -> Option<NodeId> {
        let is_due =
            |it: &&mut Borrower| it.is_silent && !it.is_probed && now_ms >= it.closed_until_ms;
        let borrower = self.borrowers.iter_mut().find(is_due)?;
        borrower.is_probed = true;
        Some(borrower.node)
    }

    /// Whether a node that was asked has answered.
    pub fn was_probed(&mut self, node: NodeId, answers: bool, now_ms: u64) {
        let Some(borrower) = self.borrower(node) else { return };
        borrower.is_probed = false;
        match answers {
            true => borrower.speaks(),
            false => borrower.stays_silent(now_ms),
        }
    }

    /// A node did not begin an attempt because it has enough to do.
    pub fn was_full(&mut self, node: NodeId, now_ms: u64) {
        if let Some(borrower) = self.borrower(node) {
            borrower.speaks();
        }
        self.close(node, now_ms, WINDOW_MAX);
    }

    /// Leaves a node alone for a pause. Of what its agents can hold, so many may be under way as before.
    fn close(&mut self, node: NodeId, now_ms: u64, most: u32) {
        let Some(borrower) = self.borrower(node) else { return };
        if now_ms < borrower.closed_until_ms {
            return;
        }
        // Tasks that take long fill its agents for long: half of them would leave places empty.
        let held = borrower.load.capacity.min(borrower.under_way.saturating_sub(1)).min(most);
        borrower.window = (borrower.under_way / 2).max(held).max(1);
        (borrower.has_refused, borrower.ended) = (true, 0);
        borrower.closed_until_ms = now_ms + borrower.pause_ms;
        borrower.pause_ms = (2 * borrower.pause_ms).min(PAUSE_MAX_MS);
    }

    /// When it is worth to ask again who gets a task, milliseconds: always later than now.
    pub fn next_look_ms(&self, now_ms: u64) -> u64 {
        let opens = self.borrowers.iter().map(|it| it.closed_until_ms);
        let opens = opens.filter(|opens_ms| *opens_ms > now_ms);
        opens.min().unwrap_or(u64::MAX).min(now_ms + LOOK_MS)
    }

    fn borrower(&mut self, node: NodeId) -> Option<&mut Borrower> {
        self.borrowers.iter_mut().find(|it| it.node == node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn load(capacity: u32, running: u32, queued: u32) -> Load {
        Load { agents: capacity, capacity, running, queued }
    }

    fn knowing(loads: &[(NodeId, Load)]) -> Lender {
        let mut lender = Lender::default();
        lender.learn(1, loads.iter().copied());
        lender
    }

    #[test]
    fn the_least_loaded_for_what_it_can_hold_gets_the_next() {
        // Of 100 places 50 are taken, of 10 places 4.
        let mut lender = knowing(&[(2, load(100, 50, 0)), (3, load(10, 3, 1))]);
        assert_eq!(lender.choose(0, 0), Some(3));
        // What was lent since counts: 5 of 10 are as many as 50 of 100, 6 are more.
        let chosen: Vec<_> = (0..6).filter_map(|_| lender.choose(0, 0)).collect();
        assert_eq!(chosen.iter().filter(|node| **node == 2).count(), 5);
        // The next word of its load has it all.
        lender.learn(2, [(2, load(100, 99, 0)), (3, load(10, 4, 0))].into_iter());
        assert_eq!(lender.choose(0, 0), Some(3));
    }

    #[test]
    fn equals_are_chosen_by_lot() {
        let mut chosen = BTreeMap::new();
        for lot in 0..30 {
            let mut lender = knowing(&[2, 3, 4].map(|node| (node, load(8, 0, 0))));
            *chosen.entry(lender.choose(0, lot).unwrap()).or_insert(0) += 1;
        }
        assert_eq!(chosen, BTreeMap::from([(2, 10), (3, 10), (4, 10)]));
    }

    #[test]
    fn a_window_grows_with_what_is_served_and_is_halved_once_a_burst() {
        let mut lender = knowing(&[(2, load(4, 0, 0))]);
        let fill = |lender: &mut Lender, now_ms| {
            std::iter::from_fn(|| lender.choose(now_ms, 0)).count() as u32
        };
        assert_eq!(fill(&mut lender, 0), 4);
        for _ in 0..4 {
            lender.served(2);
            lender.came_back(2);
        }
        assert_eq!(fill(&mut lender, 0), 8);
        // All of them are refused: that is one refusal.
        for _ in 0..8 {
            lender.refused(2, 100);
            lender.came_back(2);
        }
        assert_eq!((fill(&mut lender, 109), lender.next_look_ms(109)), (0, 110));
        assert_eq!(fill(&mut lender, 110), 4);
        // And so on: the pause doubles.
        lender.refused(2, 120);
        assert_eq!(lender.next_look_ms(120), 140);
        lender.refused(2, 140);
        assert_eq!(lender.next_look_ms(140), 180);
        (0..20).for_each(|turn| lender.refused(2, 10_000 * (turn + 1)));
        assert_eq!(lender.borrower(2).unwrap().pause_ms, PAUSE_MAX_MS);
        lender.served(2);
        assert_eq!(lender.borrower(2).unwrap().pause_ms, PAUSE_MS);
        // From now on it grows by one a window.
        let window = lender.borrower(2).unwrap().window;
        (0..window).for_each(|_| lender.served(2));
        assert_eq!(lender.borrower(2).unwrap().window, window + 1);
        (0..WINDOW_MAX * WINDOW_MAX).for_each(|_| lender.served(2));
        assert_eq!(lender.borrower(2).unwrap().window, WINDOW_MAX);
    }

    #[test]
    fn a_node_whose_agents_are_full_of_long_tasks_keeps_them_full() {
        let mut lender = knowing(&[(2, load(8, 0, 0))]);
        // One more than it can hold is refused, again and again, while nothing ends.
        let mut now_ms = 0;
        lender.borrower(2).unwrap().window = 9;
        let mut under_way = 0;
        for _ in 0..20 {
            under_way += std::iter::from_fn(|| lender.choose(now_ms, 0)).count();
            for _ in 8..under_way {
                lender.was_full(2, now_ms);
                lender.came_back(2);
            }
            under_way = under_way.min(8);
            assert_eq!(lender.borrower(2).unwrap().window, 8, "none of its places is left empty");
            now_ms += 2 * PAUSE_MAX_MS;
        }
        // One that others fill as well has fewer for this core.
        lender.came_back(2);
        lender.came_back(2);
        assert_eq!(lender.choose(now_ms, 0), Some(2));
        lender.was_full(2, now_ms);
        assert_eq!(lender.borrower(2).unwrap().window, 6);
        // Whoever does not answer is not believed to hold anything.
        lender.refused(2, now_ms + 2 * PAUSE_MAX_MS);
        assert_eq!(lender.borrower(2).unwrap().window, 3);
    }

    #[test]
    fn a_node_that_says_nothing_is_lent_nothing_until_it_answers_when_it_is_asked() {
        let mut lender = knowing(&[(2, load(32, 0, 0))]);
        let attempt_ms = 4_000;
        // Many attempts of one burst end without a word, one after the other: that is one silence.
        let lent = std::iter::from_fn(|| lender.choose(0, 0)).count() as u64;
        assert_eq!(lent, 32);
        for number in 0..lent {
            lender.was_silent(2, attempt_ms + number * 20);
            lender.came_back(2);
        }
        assert_eq!(lender.borrower(2).unwrap().closed_until_ms, attempt_ms + SILENCE_MS);
        // Then no attempt is lost any more: it is asked, in ten minutes fewer than twenty-five times.
        let (mut now_ms, mut probes) = (attempt_ms, 0);
        while now_ms < 600_000 {
            assert_eq!(lender.choose(now_ms, 0), None, "it is lent nothing");
            if let Some(node) = lender.to_probe(now_ms) {
                assert_eq!((node, lender.to_probe(now_ms)), (2, None), "once at a time");
                now_ms += 1_000;
                lender.was_probed(2, false, now_ms);
                probes += 1;
                let opens_ms = lender.borrower(2).unwrap().closed_until_ms;
                assert!((now_ms + SILENCE_MS..=now_ms + SILENCE_MAX_MS).contains(&opens_ms));
            }
            now_ms += LOOK_MS;
        }
        assert!((15..25).contains(&probes), "{probes} probes");
        // Its answer ends the silence at once, with half of the window that it had.
        now_ms += SILENCE_MAX_MS;
        assert_eq!(lender.to_probe(now_ms), Some(2));
        lender.was_probed(2, true, now_ms);
        assert_eq!(std::iter::from_fn(|| lender.choose(now_ms, 0)).count(), 16);
        // A late answer to an attempt does as well.
        lender.was_silent(2, now_ms);
        assert_eq!(lender.choose(now_ms + 1, 0), None);
        lender.served(2);
        (0..16).for_each(|_| lender.came_back(2));
        assert_eq!(lender.choose(now_ms + 1, 0), Some(2));
        lender.was_silent(2, now_ms + 1);
        assert_eq!(lender.borrower(2).unwrap().closed_until_ms, now_ms + 1 + SILENCE_MS);
        // Who has been away is another node.
        lender.came_back(2);
        lender.learn(2, std::iter::empty());
        lender.learn(3, [(2, load(32, 0, 0))].into_iter());
        assert_eq!(lender.choose(now_ms + 2, 0), Some(2));
    }

    #[test]
    fn beside_agents_of_ones_own_only_free_places_of_others_are_taken() {
        let mut lender = knowing(&[(2, load(4, 3, 1)), (3, load(4, 2, 0)), (4, load(0, 0, 0))]);
        let chosen: Vec<_> = std::iter::from_fn(|| lender.choose_free(0, 0)).collect();
        assert_eq!(chosen, [3, 3], "two places are free, and all others are taken");
        assert!(lender.choose(0, 0).is_some());
    }

    #[test]
    fn who_has_no_agents_is_lent_nothing_and_what_is_under_way_comes_back() {
        let mut lender = knowing(&[(2, load(4, 0, 0)), (3, load(0, 0, 9))]);
        assert_eq!(lender.choose(0, 1), Some(2));
        assert!(lender.knows(1) && !lender.knows(2));
        lender.learn(2, std::iter::empty());
        assert_eq!(lender.choose(0, 0), None);
        assert_eq!(lender.next_look_ms(5), 5 + LOOK_MS);
        lender.came_back(2);
        lender.came_back(7);
        lender.learn(3, std::iter::empty());
        assert!(lender.borrowers.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Learn(Vec<(NodeId, u32, u32)>),
        Choose(u64, bool),
        /// How the attempt in some place ended: served, refused, full, without a word.
        End(usize, u8),
        Wait(u64),
        /// Whoever may be asked is, and answers or not.
        Probe(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        let nodes = prop::collection::btree_map(2_u64..6, (0_u32..300, 0_u32..300), 0..4);
        let nodes = nodes.prop_map(|map| map.into_iter().map(|(n, (c, r))| (n, c, r)).collect());
        prop_oneof![
            1 => nodes.prop_map(Step::Learn),
            6 => (any::<u64>(), any::<bool>()).prop_map(|(lot, free)| Step::Choose(lot, free)),
            4 => (any::<usize>(), 0..4_u8).prop_map(|(at, how)| Step::End(at, how)),
            1 => (0_u64..2_000).prop_map(Step::Wait),
            1 => any::<bool>().prop_map(Step::Probe),
        ]
    }

    proptest! {
        #[test]
        fn what_is_under_way_is_counted_and_bounded(
            steps in prop::collection::vec(step(), 0..400),
        ) {
            let (mut lender, mut now_ms, mut news) = (Lender::default(), 0, 0);
            let mut lent: Vec<NodeId> = Vec::new();
            let mut present: Vec<NodeId> = Vec::new();
            for step in steps {
                match step {
                    Step::Learn(nodes) => {
                        news += 1;
                        let loads = nodes.iter().map(|(node, capacity, running)| {
                            (*node, load(*capacity, *running, 0))
                        });
                        lender.learn(news, loads);
                        let with = nodes.iter().filter(|(_, capacity, _)| *capacity > 0);
                        present = with.map(|(node, ..)| *node).collect();
                    }
                    Step::Choose(lot, free) => {
                        let chosen = match free {
                            true => lender.choose_free(now_ms, lot),
                            false => lender.choose(now_ms, lot),
                        };
                        if let Some(node) = chosen {
                            let load = lender.borrower(node).unwrap().load;
                            prop_assert!(!free || load.tasks() < u64::from(load.capacity));
                            prop_assert!(present.contains(&node));
                            let borrower = lender.borrower(node).unwrap();
                            prop_assert!(now_ms >= borrower.closed_until_ms && !borrower.is_silent);
                            lent.push(node);
                        }
                    }
                    Step::End(at, how) if !lent.is_empty() => {
                        let node = lent.swap_remove(at % lent.len());
                        match how {
                            0 => lender.served(node),
                            1 => lender.refused(node, now_ms),
                            2 => lender.was_silent(node, now_ms),
                            _ => lender.was_full(node, now_ms),
                        }
                        lender.came_back(node);
                    }
                    Step::End(..) => {}
                    Step::Wait(ms) => now_ms += ms,
                    Step::Probe(answers) => {
                        while let Some(node) = lender.to_probe(now_ms) {
                            lender.was_probed(node, answers, now_ms);
                            let is_silent = lender.borrower(node).unwrap().is_silent;
                            prop_assert_eq!(is_silent, !answers);
                        }
                    }
                }
                prop_assert!(lender.next_look_ms(now_ms) > now_ms);
                for it in &lender.borrowers {
                    let count = lent.iter().filter(|node| **node == it.node).count();
                    prop_assert_eq!(it.under_way as usize, count);
                    prop_assert!((1..=WINDOW_MAX).contains(&it.window));
                }
                for node in &lent {
                    prop_assert!(lender.borrowers.iter().any(|it| it.node == *node));
                }
            }
        }
    }
}
