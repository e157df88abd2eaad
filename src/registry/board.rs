//! How a world reaches the cores: one thread puts up snapshots, and each core takes the latest when
//! it looks.
//!
//! Invariants worth naming:
//! - Who looks and sees nothing new reads one atomic number; who sees something new takes the lock
//!   only if it is free, and stays with what it has if not. Nobody waits for anybody.
//! - Snapshots are freed by the thread that puts them up, unless a core keeps one for longer than
//!   the next [`RETIRED_MAX`].

use super::{
    view::View,
    world::{Change, World},
};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Snapshots whose changes the latest one tells: a core that looks more seldom forgets all answers.
pub const CHANGES_KEPT: usize = 64;
/// Replaced snapshots that wait until no core has them any more.
pub const RETIRED_MAX: usize = 64;

/// The world at a moment.
pub struct Snapshot {
    number: u64,
    world: World,
    /// What changed up to this snapshot and each of those before it, the oldest first.
    changes: VecDeque<Arc<[Change]>>,
}

impl Snapshot {
    /// Its number; the first one is 0.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The world.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// What changed since another snapshot; `None` when nobody knows any more.
    pub fn changes_since(&self, number: u64) -> Option<impl Iterator<Item = &Change>> {
        let behind = self.number.checked_sub(number)?;
        let skipped = self.changes.len().checked_sub(usize::try_from(behind).ok()?)?;
        Some(self.changes.range(skipped..).flat_map(|changes| changes.iter()))
    }
}

/// Where the latest snapshot is.
pub struct Board {
    number: AtomicU64,
    latest: Mutex<Arc<Snapshot>>,
}

impl Board {
    /// Brings a view up to date, if the latest snapshot can be had at once; true when it was not.
    #[inline]
    pub fn refresh(&self, view: &mut View, now_ms: u64) -> bool {
        if self.number.load(Ordering::Acquire) == view.number() {
            return false;
        }
        // Whoever puts one up holds the lock for some instructions, but it may be interrupted there.
        let latest = match self.latest.try_lock() {
            Ok(latest) => latest.clone(),
            Err(_) => return false,
        };
        if latest.number() == view.number() {
            // It was had just before its number was told.
            return false;
        }
        view.adopt(latest, now_ms);
        true
    }

    /// The latest snapshot, for a core that begins.
    pub fn latest(&self) -> Arc<Snapshot> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The end of a board that puts snapshots up.
pub struct Publisher {
    board: Arc<Board>,
    /// The version of the world that the latest snapshot has.
    version: u64,
    latest: Arc<Snapshot>,
    retired: VecDeque<Arc<Snapshot>>,
}

impl Publisher {
    /// A board with a first snapshot.
    pub fn new(world: &mut World) -> Self {
        world.take_changes();
        let version = world.version();
        let (world, changes) = (world.clone(), VecDeque::new());
        let latest = Arc::new(Snapshot { number: 0, world, changes });
        let board = Board { number: AtomicU64::new(0), latest: Mutex::new(latest.clone()) };
        Self { board: Arc::new(board), version, latest, retired: VecDeque::new() }
    }

    /// The board, for the cores.
    pub fn board(&self) -> Arc<Board> {
        self.board.clone()
    }

    /// Puts up a snapshot of the world, unless nothing changed since the last one.
    pub fn publish(&mut self, world: &mut World) -> bool {
        if world.version() == self.version {
            self.free_retired();
            return false;
        }
        self.version = world.version();
        let mut changes = self.latest.changes.clone();
        if changes.len() == CHANGES_KEPT {
            changes.pop_front();
        }
        changes.push_back(world.take_changes().into());
        let number = self.latest.number + 1;
        let latest = Arc::new(Snapshot { number, world: world.clone(), changes });
        let replaced = std::mem::replace(&mut self.latest, latest.clone());
        *self.board.latest.lock().unwrap_or_else(PoisonError::into_inner) = latest;
        self.board.number.store(number, Ordering::Release);
        if self.retired.len() == RETIRED_MAX {
            self.retired.pop_front();
        }
        self.retired.push_back(replaced);
        self.free_retired();
        true
    }

    /// Frees the snapshots that no core has any more: the last owner frees it, and that is to be
    /// this thread.
    fn free_retired(&mut self) {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        registry::{
            fact::{AgentFact, Capabilities, Fact, Key, Load, TypeFact},
            world::{Limits, Status},
        },
        wire::{
            api::AgentKind,
            id::{AgentId, NodeId},
        },
    };
    use proptest::prelude::*;

    const NAMES: [&str; 3] = ["a", "a name that is longer than twenty-two bytes", "c"];

    fn set(world: &mut World, node: NodeId, fact: &Fact) {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        fact.key().encode(&mut key);
        fact.encode(&mut value).expect("short texts");
        world.set(node, &key, &value).expect("few and short");
    }

    fn agent(slot: u32, name: &str) -> Fact {
        let (name, capabilities) = (Some(name.into()), Capabilities::default());
        Fact::Agent(AgentId::new(0, slot, 0), AgentFact { type_index: 0, name, capabilities })
    }

    fn of_type(name: &str) -> Fact {
        let capabilities = Capabilities::default();
        let name = name.into();
        Fact::Type(0, TypeFact { name, kind: AgentKind::Exec, max: 1, capabilities })
    }

    fn load(running: u32) -> Fact {
        Fact::Load(0, Load { agents: 1, capacity: 10, running, queued: 0 })
    }

    /// A step of a world's life.
    fn step(world: &mut World, node: NodeId, what: u8, number: u32) {
        let name = NAMES[number as usize % NAMES.len()];
        let mut key = Vec::new();
        Key::Agent(AgentId::new(0, number % 4, 0)).encode(&mut key);
        let status = [Status::Alive, Status::Suspect, Status::Dead, Status::Left];
        match what {
            0..6 => set(world, node, &agent(number % 4, name)),
            6..8 => drop(world.remove(node, &key)),
            8..10 => set(world, node, &of_type(name)),
            10..13 => set(world, node, &load(number)),
            13..16 => drop(world.set_status(node, status[number as usize % status.len()])),
            16 => world.reset(node),
            _ => world.forget(node),
        }
    }

    proptest! {
        /// Within the time to live, all that is not in the cache's place is what the world says.
        #[test]
        fn a_view_answers_as_its_snapshot_does_whatever_was_asked_before(
            steps in prop::collection::vec((1..4_u64, 0..18_u8, 0..12_u32, 0..8_u8), 1..200),
        ) {
            let mut world = World::new(2, Limits::default());
            let mut publisher = Publisher::new(&mut world);
            let board = publisher.board();
            let mut view = View::new(board.latest(), 100, 5_000);
            for (now_ms, (node, what, number, publishes)) in (0..).zip(steps) {
                step(&mut world, node, what, number);
                // Now and then several steps make one snapshot, and a core misses one.
                if publishes > 0 {
                    publisher.publish(&mut world);
                }
                if publishes > 1 {
                    board.refresh(&mut view, now_ms);
                    prop_assert_eq!(view.number(), board.latest().number());
                }
                let snapshot = view.snapshot_for_tests();
                for name in NAMES {
                    prop_assert_eq!(view.named(name, now_ms), snapshot.world.named(name));
                    let share = |node| {
                        let loads = snapshot.world.loads(name).filter(|it| it.0 == node);
                        loads.map(|(.., load)| (load.tasks() << 32) / u64::from(load.capacity)).min()
                    };
                    let mut fresh = View::new(snapshot.clone(), 100, 5_000);
                    let first = fresh.least_loaded(name, now_ms, now_ms);
                    let least = snapshot.world.least_loaded(name);
                    prop_assert_eq!(first.map(share), least.map(share), "the least loaded first");
                    if let Some(node) = view.least_loaded(name, now_ms, 7) {
                        prop_assert_eq!(snapshot.world.status(node), Some(Status::Alive));
                    }
                }
            }
        }
    }

    #[test]
    fn a_change_of_one_name_leaves_the_answers_of_all_others() {
        let mut world = World::new(1, Limits::default());
        for slot in 0..100 {
            set(&mut world, 1, &agent(slot, &format!("clerk {slot}")));
        }
        let mut publisher = Publisher::new(&mut world);
        let board = publisher.board();
        let mut view = View::new(board.latest(), 1_000, 5_000);
        let ask_all = |view: &mut View| {
            let before = view.counters().misses;
            for slot in 0..100 {
                view.named(&format!("clerk {slot}"), 1);
            }
            view.counters().misses - before
        };
        assert_eq!(ask_all(&mut view), 100);
        assert!(!publisher.publish(&mut world), "nothing changed");
        assert!(!board.refresh(&mut view, 1));
        set(&mut world, 1, &agent(7, "cook"));
        assert!(publisher.publish(&mut world) && board.refresh(&mut view, 1));
        assert_eq!(ask_all(&mut view), 1);
        for running in 0..CHANGES_KEPT as u32 {
            set(&mut world, 1, &load(running));
            assert!(publisher.publish(&mut world));
        }
        assert!(board.refresh(&mut view, 1));
        assert_eq!(ask_all(&mut view), 0, "the changes of so many snapshots are known");
        for running in 0..=CHANGES_KEPT as u32 {
            set(&mut world, 1, &load(running));
            publisher.publish(&mut world);
        }
        board.refresh(&mut view, 1);
        assert_eq!(ask_all(&mut view), 100, "of one more they are not");
    }

    #[test]
    fn cores_follow_a_thread_that_puts_up_snapshots_and_answer_from_none_but_theirs() {
        const SNAPSHOTS: u32 = 2_000;
        let mut world = World::new(1, Limits::default());
        set(&mut world, 1, &of_type("a"));
        let mut publisher = Publisher::new(&mut world);
        let board = publisher.board();
        let publishing = std::thread::spawn(move || {
            for number in 1..=SNAPSHOTS {
                set(&mut world, 1, &agent(0, &format!("clerk {number}")));
                publisher.publish(&mut world);
            }
            publisher
        });
        let core = || {
            let mut view = View::new(board.latest(), 100, u64::MAX);
            // Its thread ends: the loop does, too.
            while view.number() < u64::from(SNAPSHOTS) {
                let before = view.number();
                let is_newer = board.refresh(&mut view, 1);
                assert_eq!(is_newer, view.number() > before);
                let number = view.number();
                assert_eq!(view.named(&format!("clerk {number}"), 2).is_some(), number > 0);
                assert_eq!(view.named(&format!("clerk {}", number + 1), 2), None);
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(core);
            scope.spawn(core);
        });
        let mut publisher = publishing.join().expect("it puts up snapshots");
        publisher.free_retired();
        assert_eq!(publisher.retired.len(), 0, "no core has an old one");
    }

    #[test]
    fn a_snapshot_is_freed_where_it_was_made() {
        let mut world = World::new(1, Limits::default());
        let mut publisher = Publisher::new(&mut world);
        let board = publisher.board();
        let mut view = View::new(board.latest(), 10, 5_000);
        for running in 0..3 {
            set(&mut world, 1, &load(running));
            assert!(publisher.publish(&mut world));
        }
        assert_eq!(publisher.retired.len(), 1, "the view has the first one");
        board.refresh(&mut view, 0);
        assert!(!publisher.publish(&mut world));
        assert_eq!(publisher.retired.len(), 0);
        assert_eq!(Arc::strong_count(&publisher.latest), 3, "publisher, board and view");
    }
}
