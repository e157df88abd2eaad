//! The nodes that this node watches: it asks each of them in every round, or in every other one where nothing
//! happens and the node answers, and judges their silence.
//!
//! A node watches those that lie before it on the ring, so that each node is watched by a few others
//! however many there are, and its death is noticed in the same time. The ones that died are passed
//! over: whoever lies before them is watched instead.
//!
//! Invariants worth naming
//! - Only an answer to a question of a few rounds counts as heard, and each question counts once: what
//!   somebody recorded and sends again keeps nobody alive.
//! - Time in which this node itself did not run is nobody's silence.
//! - A node that refuted what this node accused it of, and does not answer this node all the same, is
//!   watched with more patience, so that one bad path costs few accusations; an answer ends that. Of
//!   one that answers again the silence is remembered as one of its usual ones. None of those is longer
//!   than `silence_max`: with the time to refute and a round or two to tell of it, a death is known
//!   everywhere within two seconds whatever stalls were before.

use super::{NodeId, Settings, phi::Detector};
use std::time::Duration;

/// Rounds for which a question may be answered.
const ROUNDS_OPEN: u64 = 16;
/// Those of the last rounds whose answers are missed.
const LATELY: u16 = 0b1_1111;
/// Most questions to a silent node in one round.
const COPIES_MAX: u32 = 3;
/// Most times as patient as with a node that never refuted.
const PATIENCE_MAX: u32 = 16;

/// One watched node.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Which.
    pub node: NodeId,
    detector: Detector,
    /// It was asked in the last round.
    was_asked: bool,
    /// A bit a round, the newest lowest: asked and not answered.
    open: u16,
    patience: u32,
}

/// All that are watched.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    watched: Vec<Watched>,
}

impl Watch {
    /// Watches these, and keeps what it knows of those that it watched before.
    pub fn turn_to(&mut self, nodes: &[NodeId], now: Duration) {
        if self.watched.iter().map(|watched| &watched.node).eq(nodes) {
            return;
        }
        let mut before = std::mem::take(&mut self.watched);
        self.watched.extend(nodes.iter().map(|&node| {
            let known = before.iter().position(|watched| watched.node == node);
            known.map(|place| before.swap_remove(place)).unwrap_or_else(|| Watched {
                node,
                detector: Detector::new(now),
                was_asked: false,
                open: 0,
                patience: 1,
            })
        }));
    }

    /// Begins a round and gives whom to ask, with how many copies: one, and more to a silent node. In a round
    /// that is seldom those are left out that answered the question of the last round.
    pub fn questions(&mut self, is_seldom: bool) -> impl Iterator<Item = (NodeId, u32)> {
        self.watched.iter_mut().filter_map(move |watched| {
            let answers = watched.was_asked && watched.open & LATELY == 0;
            watched.was_asked = !(is_seldom && answers);
            watched.open = watched.open << 1 | u16::from(watched.was_asked);
            if !watched.was_asked {
                return None;
            }
            // The question of this round and of the last one may still be under way.
            let missed = (watched.open & LATELY).count_ones().saturating_sub(2);
            Some((watched.node, (1 + missed).min(COPIES_MAX)))
        })
    }

    /// Notes an answer to the question of so many rounds ago; false when that was not asked or is
    /// answered.
    pub fn hear(&mut self, node: NodeId, rounds_ago: u64, now: Duration) -> Option<bool> {
        let watched = self.watched.iter_mut().find(|watched| watched.node == node)?;
        let bit = (rounds_ago < ROUNDS_OPEN).then(|| 1_u16 << rounds_ago)?;
        if watched.open & bit == 0 {
            return Some(false);
        }
        // Whoever answers this question need not answer older ones.
        watched.open &= bit - 1;
        watched.detector.hear(now);
        watched.patience = 1;
        Some(true)
    }

    /// Whose silence is an accusation.
    pub fn silent(&self, settings: &Settings, now: Duration) -> impl Iterator<Item = NodeId> {
        let is_silent =
            move |watched: &&Watched| watched.detector.accuses(settings, now, watched.patience);
        self.watched.iter().filter(is_silent).map(|watched| watched.node)
    }

    /// Has more patience with a node that turned out to live.
    pub fn excuse(&mut self, node: NodeId) {
        if let Some(watched) = self.watched.iter_mut().find(|watched| watched.node == node) {
            watched.patience = (watched.patience * 2).min(PATIENCE_MAX);
        }
    }

    /// Looks at a node that lives as if it had just answered.
    pub fn begin_again(&mut self, node: NodeId, settings: &Settings, now: Duration) {
        if let Some(watched) = self.watched.iter_mut().find(|watched| watched.node == node) {
            watched.detector.excuse(settings, now);
        }
    }

    /// Takes time out of all silences in which this node did not run.
    pub fn forgive(&mut self, time: Duration) {
        self.watched.iter_mut().for_each(|watched| watched.detector.forgive(time));
    }

    /// Who is watched.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.watched.iter().map(|watched| watched.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_once_and_in_time() {
        let mut watch = Watch::default();
        watch.turn_to(&[7], Duration::ZERO);
        let ask = |watch: &mut Watch| watch.questions(false).collect::<Vec<_>>();
        assert_eq!(ask(&mut watch), [(7, 1)]);
        assert_eq!(watch.hear(7, 0, Duration::ZERO), Some(true));
        assert_eq!(watch.hear(7, 0, Duration::ZERO), Some(false), "answered already");
        assert_eq!(watch.hear(8, 0, Duration::ZERO), None, "not watched");
        let copies: Vec<_> = (0..5).map(|_| ask(&mut watch)[0].1).collect();
        assert_eq!(copies, [1, 1, 2, 3, 3], "a silent node is asked more often");
        assert_eq!(watch.hear(7, 3, Duration::ZERO), Some(true));
        assert_eq!(watch.hear(7, 4, Duration::ZERO), Some(false), "older than what was answered");
        assert_eq!(watch.hear(7, 1, Duration::ZERO), Some(true));
        for _ in 0..ROUNDS_OPEN {
            ask(&mut watch);
        }
        assert_eq!(watch.hear(7, ROUNDS_OPEN, Duration::ZERO), None, "too old");
    }

    #[test]
    fn where_nothing_happens_who_answers_is_asked_in_every_other_round_and_who_does_not_in_each() {
        let mut watch = Watch::default();
        watch.turn_to(&[7, 8], Duration::ZERO);
        let mut asked = Vec::new();
        for round in 0..8 {
            let questions: Vec<_> = watch.questions(true).collect();
            asked.push(questions.iter().map(|(node, copies)| (*node, *copies)).collect::<Vec<_>>());
            if questions.iter().any(|(node, _)| *node == 7) {
                assert_eq!(watch.hear(7, 0, Duration::ZERO), Some(true));
            }
            if round == 5 {
                assert_eq!(watch.hear(8, 1, Duration::ZERO), Some(true), "late");
                assert_eq!(watch.hear(8, 0, Duration::ZERO), Some(true));
            }
        }
        let of = |node| -> Vec<u32> {
            let copies = |round: &Vec<(NodeId, u32)>| {
                round.iter().find(|(of, _)| *of == node).map_or(0, |(_, copies)| *copies)
            };
            asked.iter().map(copies).collect()
        };
        assert_eq!(of(7), [1, 0, 1, 0, 1, 0, 1, 0]);
        assert_eq!(of(8), [1, 1, 2, 3, 3, 3, 0, 1]);
        // Something happens: all are asked.
        assert_eq!(watch.questions(false).count(), 2);
        for _ in 0..ROUNDS_OPEN {
            watch.questions(false).for_each(drop);
        }
        assert_eq!(watch.hear(7, ROUNDS_OPEN, Duration::ZERO), None, "too old");
    }
}
