//! Which of a type's agents should get the next task.
//!
//! Each agent has a score of how busy it is: 0.7 times the part of its places that are taken plus
//! 0.3 times its recent latency, one second and more counting as 1. The least score wins; among
//! equals the one that has waited longest for a task. A tournament tree over the agents keeps the
//! winner at its root: a change costs one path upwards, a question one path downwards.

/// Weight of the places that are taken.
const WEIGHT_TASKS: f32 = 0.7;
/// Weight of the latency.
const WEIGHT_LATENCY: f32 = 0.3;
/// Latency that counts as 1, milliseconds.
const LATENCY_CEILING_MS: f32 = 1_000.0;
/// Part of a new latency in the average.
const LATENCY_STEP: f32 = 0.2;
/// Where the score stands in a key; below is when the agent last got a task.
const SCORE_SHIFT: u32 = 44;
/// Steps from the best to the worst score.
const SCORE_STEPS: f32 = ((1 << 19) - 1) as f32;
/// The key of an agent that takes no task.
const CLOSED: u64 = u64::MAX;
/// No agent.
const NOWHERE: u32 = u32::MAX;

struct Load {
    slot: u32,
    tasks: u32,
    max_tasks: u32,
    /// What each task adds to the score, in its steps.
    task_steps: f32,
    latency_ms: f32,
    /// What the latency adds to the score, in its steps.
    latency_steps: f32,
    ready: bool,
    /// Tells which of two agents waits longer.
    turn: u64,
}

impl Load {
    #[inline]
    fn key(&self) -> u64 {
        if !self.ready || self.tasks >= self.max_tasks {
            return CLOSED;
        }
        let score = self.tasks as f32 * self.task_steps + self.latency_steps;
        (score as u64) << SCORE_SHIFT | self.turn
    }

    /// Takes a latency into the average.
    #[inline]
    fn took(&mut self, latency_ms: u64) {
        self.latency_ms += LATENCY_STEP * (latency_ms as f32 - self.latency_ms);
        let share = (self.latency_ms * (1.0 / LATENCY_CEILING_MS)).min(1.0);
        self.latency_steps = SCORE_STEPS * WEIGHT_LATENCY * share;
    }
}

/// The loads of one type's agents on one core. Slots that it does not know are ignored.
#[derive(Default)]
pub struct LoadIndex {
    loads: Vec<Load>,
    /// For each slot, its place in `loads`.
    places: Vec<u32>,
    /// A heap-ordered tournament of keys: 1 is the root, the last half the leaves.
    tree: Vec<u64>,
    turns: u64,
    /// Tasks that all of them may work on at the same time.
    capacity: u32,
}

impl LoadIndex {
    fn place(&self, slot: u32) -> Option<usize> {
        let place = self.places.get(slot as usize).copied();
        place.filter(|place| *place != NOWHERE).map(|place| place as usize)
    }

    fn leaves(&self) -> usize {
        self.tree.len() / 2
    }

    /// Brings the path above an agent up to date.
    #[inline]
    fn update(&mut self, place: usize) {
        let key = self.loads.get(place).map_or(CLOSED, Load::key);
        let mut node = self.leaves() + place;
        self.tree[node] = key;
        while node > 1 {
            let winner = self.tree[node].min(self.tree[node ^ 1]);
            node /= 2;
            if std::mem::replace(&mut self.tree[node], winner) == winner {
                break;
            }
        }
    }

    /// Adds an agent that is ready and may run `max_tasks` at the same time.
    pub fn insert(&mut self, slot: u32, max_tasks: u32) {
        if self.place(slot).is_some() {
            return;
        }
        let place = self.loads.len();
        if slot as usize >= self.places.len() {
            self.places.resize(slot as usize + 1, NOWHERE);
        }
        self.places[slot as usize] = place as u32;
        let turn = self.next_turn();
        let load = Load {
            slot,
            tasks: 0,
            max_tasks,
            task_steps: SCORE_STEPS * WEIGHT_TASKS / max_tasks as f32,
            latency_ms: 0.0,
            latency_steps: 0.0,
            ready: true,
            turn,
        };
        self.capacity = self.capacity.saturating_add(max_tasks);
        self.loads.push(load);
        if place < self.leaves() {
            return self.update(place);
        }
        self.tree = vec![CLOSED; 2 * self.loads.len().next_power_of_two()];
        for place in 0..self.loads.len() {
            self.update(place);
        }
    }

    fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    /// Removes an agent.
    pub fn remove(&mut self, slot: u32) {
        let Some(place) = self.place(slot) else { return };
        self.places[slot as usize] = NOWHERE;
        let removed = self.loads.swap_remove(place);
        self.capacity = self.capacity.saturating_sub(removed.max_tasks);
        if let Some(moved) = self.loads.get(place) {
            self.places[moved.slot as usize] = place as u32;
            self.update(place);
        }
        self.update(self.loads.len());
    }

    /// Says how many tasks an agent may work on at the same time.
    pub fn set_max_tasks(&mut self, slot: u32, max_tasks: u32) {
        if let Some(place) = self.place(slot) {
            let load = &mut self.loads[place];
            let before = std::mem::replace(&mut load.max_tasks, max_tasks);
            load.task_steps = SCORE_STEPS * WEIGHT_TASKS / max_tasks as f32;
            self.capacity = self.capacity.saturating_sub(before).saturating_add(max_tasks);
            self.update(place);
        }
    }

    /// Tasks that all agents may work on at the same time.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Says whether an agent takes tasks at all.
    pub fn set_ready(&mut self, slot: u32, ready: bool) {
        if let Some(place) = self.place(slot) {
            self.loads[place].ready = ready;
            self.update(place);
        }
    }

    /// The agent for the next task; `None` when all are full, or not ready.
    #[inline]
    pub fn least_loaded(&self) -> Option<u32> {
        let winner = *self.tree.get(1)?;
        if winner == CLOSED {
            return None;
        }
        let mut node = 1;
        while node < self.leaves() {
            node *= 2;
            node += usize::from(self.tree[node] != winner);
        }
        Some(self.loads[node - self.leaves()].slot)
    }

    /// An agent got a task.
    #[inline]
    pub fn begin(&mut self, slot: u32) {
        if let Some(place) = self.place(slot) {
            let turn = self.next_turn();
            let load = &mut self.loads[place];
            load.tasks += 1;
            load.turn = turn;
            self.update(place);
        }
    }

    /// An agent is done with a task that took it so long.
    #[inline]
    pub fn end(&mut self, slot: u32, latency_ms: u64) {
        if let Some(place) = self.place(slot) {
            let load = &mut self.loads[place];
            load.tasks = load.tasks.saturating_sub(1);
            load.took(latency_ms);
            self.update(place);
        }
    }

    /// Agents, the tasks that they may work on at the same time, and those that they work on.
    pub fn totals(&self) -> (u32, u32, u32) {
        let add = |(agents, capacity, running): (u32, u32, u32), load: &Load| {
            (
                agents + 1,
                capacity.saturating_add(load.max_tasks),
                running.saturating_add(load.tasks),
            )
        };
        self.loads.iter().fold((0, 0, 0), add)
    }

    /// Tasks that an agent works on.
    pub fn tasks(&self, slot: u32) -> u32 {
        self.place(slot).map_or(0, |place| self.loads[place].tasks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32, u32),
        Remove(u32),
        Ready(u32, bool),
        Assign,
        End(u32, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let slot = 0_u32..24;
        prop_oneof![
            (slot.clone(), 1_u32..5).prop_map(|(slot, max)| Step::Insert(slot, max)),
            slot.clone().prop_map(Step::Remove),
            (slot.clone(), any::<bool>()).prop_map(|(slot, ready)| Step::Ready(slot, ready)),
            Just(Step::Assign),
            Just(Step::Assign),
            (slot, 0_u64..3_000).prop_map(|(slot, took)| Step::End(slot, took)),
        ]
    }

    proptest! {
        #[test]
        fn the_winner_is_the_one_that_a_look_at_all_would_find(
            steps in prop::collection::vec(step(), 0..300),
        ) {
            let mut index = LoadIndex::default();
            for step in steps {
                match step {
                    Step::Insert(slot, max) => index.insert(slot, max),
                    Step::Remove(slot) => index.remove(slot),
                    Step::Ready(slot, ready) => index.set_ready(slot, ready),
                    Step::Assign => {
                        if let Some(slot) = index.least_loaded() {
                            index.begin(slot);
                        }
                    }
                    Step::End(slot, took) => index.end(slot, took),
                }
                let best = index.loads.iter().min_by_key(|load| load.key());
                let best = best.filter(|load| load.key() != CLOSED).map(|load| load.slot);
                prop_assert_eq!(index.least_loaded(), best);
                for load in &index.loads {
                    prop_assert!(load.tasks <= load.max_tasks);
                }
                prop_assert_eq!(index.capacity(), index.totals().1);
            }
        }
    }

    #[test]
    fn equals_take_turns() {
        let mut index = LoadIndex::default();
        (0..7).for_each(|slot| index.insert(slot, 1));
        let mut got = [0; 7];
        for _ in 0..700 {
            let slot = index.least_loaded().unwrap();
            index.begin(slot);
            index.end(slot, 0);
            got[slot as usize] += 1;
        }
        assert_eq!(got, [100; 7]);
    }

    #[test]
    fn the_slow_and_the_busy_get_less() {
        let mut index = LoadIndex::default();
        index.insert(0, 10);
        index.insert(1, 10);
        index.begin(0);
        index.end(0, 900);
        assert_eq!(index.least_loaded(), Some(1), "0 was slow");
        index.begin(1);
        assert_eq!(index.least_loaded(), Some(0), "1 is busy: 0.07 against 0.054");
        index.set_ready(0, false);
        assert_eq!(index.least_loaded(), Some(1));
        (0..9).for_each(|_| index.begin(1));
        assert_eq!((index.least_loaded(), index.tasks(1)), (None, 10), "1 is full");
    }
}
