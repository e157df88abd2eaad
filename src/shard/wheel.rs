//! Everything that happens at a time: a hierarchical timing wheel.
//!
//! Eleven levels of 64 slots; a slot of level n is 64^n ms wide, so the levels together reach as
//! far as the clock. A timer is on the level of the highest digit (base 64) in which its deadline
//! differs from now, and moves to lower levels as time comes nearer. Adding and cancelling cost
//! the same however many timers there are.

use crate::task::list::{Link, Linked, List};

/// Bits of one digit.
const DIGIT_BITS: u32 = 6;
/// Slots of one level.
const SLOTS: usize = 1 << DIGIT_BITS;
/// Digits of a `u64`.
const LEVELS: usize = u64::BITS.div_ceil(DIGIT_BITS) as usize;
/// The level of timers that were late when they were added.
const DUE: u8 = LEVELS as u8;

/// A timer, as it is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerKey {
    index: u32,
    generation: u32,
}

struct Node<T> {
    link: Link,
    generation: u32,
    level: u8,
    slot: u8,
    deadline_ms: u64,
    value: Option<T>,
}

impl<T> Linked for Node<T> {
    #[inline]
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }
}

/// Timers and what each stands for.
pub struct Wheel<T> {
    now_ms: u64,
    /// For each level, one bit a slot that holds timers.
    occupied_slots: [u64; LEVELS],
    slots: Box<[[List; SLOTS]; LEVELS]>,
    /// One bit a level that holds timers.
    occupied_levels: u16,
    due: List,
    nodes: Vec<Node<T>>,
    free: Vec<u32>,
}

impl<T> Wheel<T> {
    /// A wheel without timers.
    pub fn new(now_ms: u64) -> Self {
        Self {
            now_ms,
            occupied_slots: [0; LEVELS],
            slots: Box::new([[List::default(); SLOTS]; LEVELS]),
            occupied_levels: 0,
            due: List::default(),
            nodes: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Adds a timer.
    #[inline]
    pub fn insert(&mut self, deadline_ms: u64, value: T) -> TimerKey {
        let index = self.free.pop().unwrap_or(self.nodes.len() as u32);
        if index as usize == self.nodes.len() {
            let (link, value) = (Link::NONE, None);
            self.nodes.push(Node { link, generation: 0, level: DUE, slot: 0, deadline_ms, value });
        }
        let node = &mut self.nodes[index as usize];
        node.deadline_ms = deadline_ms;
        node.value = Some(value);
        let key = TimerKey { index, generation: node.generation };
        self.place(index);
        key
    }

    /// Puts a timer where its deadline belongs.
    #[inline]
    fn place(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        if node.deadline_ms <= self.now_ms {
            node.level = DUE;
            return self.due.push(&mut self.nodes, index);
        }
        let highest_bit = (node.deadline_ms ^ self.now_ms).ilog2();
        let level = highest_bit / DIGIT_BITS;
        let slot = (node.deadline_ms >> (level * DIGIT_BITS)) as usize % SLOTS;
        (node.level, node.slot) = (level as u8, slot as u8);
        let level = level as usize;
        self.slots[level][slot].push(&mut self.nodes, index);
        self.occupied_slots[level] |= 1 << slot;
        self.occupied_levels |= 1 << level;
    }

    /// Takes a timer out of its list.
    #[inline]
    fn unlink(&mut self, index: u32) {
        let Node { level, slot, .. } = self.nodes[index as usize];
        if level == DUE {
            return self.due.remove(&mut self.nodes, index);
        }
        let (level, slot) = (level as usize, slot as usize);
        let list = &mut self.slots[level][slot];
        list.remove(&mut self.nodes, index);
        if list.first().is_none() {
            self.occupied_slots[level] &= !(1 << slot);
            if self.occupied_slots[level] == 0 {
                self.occupied_levels &= !(1 << level);
            }
        }
    }

    /// Takes a timer's value and makes its key worthless.
    #[inline]
    fn retire(&mut self, index: u32) -> Option<T> {
        let node = &mut self.nodes[index as usize];
        node.generation = node.generation.wrapping_add(1);
        self.free.push(index);
        node.value.take()
    }

    /// Cancels a timer; `None` when it has fired or was cancelled before.
    #[inline]
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let node = self.nodes.get(key.index as usize)?;
        if node.generation != key.generation || node.value.is_none() {
            return None;
        }
        self.unlink(key.index);
        self.retire(key.index)
    }

    /// The occupied slot that comes first, and when it begins.
    #[inline]
    fn first_slot(&self) -> Option<(usize, usize, u64)> {
        if self.occupied_levels == 0 {
            return None;
        }
        let level = self.occupied_levels.trailing_zeros();
        // Slots that are past are empty, so the lowest one comes first.
        let slot = self.occupied_slots[level as usize].trailing_zeros();
        let above = (level + 1) * DIGIT_BITS;
        let passed = self.now_ms.checked_shr(above).unwrap_or(0);
        let begin_ms =
            passed.checked_shl(above).unwrap_or(0) | u64::from(slot) << (level * DIGIT_BITS);
        Some((level as usize, slot as usize, begin_ms))
    }

    /// Fires what is due; a clock that goes back fires nothing.
    #[inline]
    pub fn expire(&mut self, now_ms: u64, mut fire: impl FnMut(T)) {
        self.fire_due(&mut fire);
        while let Some((level, slot, begin_ms)) = self.first_slot() {
            if begin_ms > now_ms {
                break;
            }
            self.now_ms = begin_ms;
            while let Some(index) = self.slots[level][slot].first() {
                self.unlink(index);
                self.place(index);
            }
            self.fire_due(&mut fire);
        }
        self.now_ms = self.now_ms.max(now_ms);
    }

    #[inline]
    fn fire_due(&mut self, fire: &mut impl FnMut(T)) {
        while let Some(index) = self.due.first() {
            self.due.remove(&mut self.nodes, index);
            if let Some(value) = self.retire(index) {
                fire(value);
            }
        }
    }

    /// When to look again, milliseconds: never later than the first deadline.
    #[inline]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        match self.due.first() {
            Some(_) => Some(self.now_ms),
            None => self.first_slot().map(|(_, _, begin_ms)| begin_ms),
        }
    }

    /// Timers that wait.
    pub fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Cancel(usize),
        Advance(u64),
    }

    fn duration() -> impl Strategy<Value = u64> {
        prop_oneof![
            0_u64..200,
            0_u64..300_000,
            0_u64..1 << 40,
            any::<u64>().prop_map(|wide| wide >> 1),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => duration().prop_map(Step::Insert),
            1 => any::<usize>().prop_map(Step::Cancel),
            2 => prop_oneof![0_u64..100, 0_u64..100_000, 0_u64..1 << 41].prop_map(Step::Advance),
        ]
    }

    proptest! {
        #[test]
        fn every_timer_fires_once_in_its_time(
            start in 0_u64..1 << 45,
            steps in prop::collection::vec(step(), 0..120),
        ) {
            let mut now = start;
            let mut wheel = Wheel::new(now);
            let mut model: BTreeMap<(u64, usize), TimerKey> = BTreeMap::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(after) => {
                        let deadline = now.saturating_add(after);
                        let key = wheel.insert(deadline, (deadline, number));
                        model.insert((deadline, number), key);
                    }
                    Step::Cancel(pick) if !model.is_empty() => {
                        let (&timer, &key) = model.iter().nth(pick % model.len()).unwrap();
                        model.remove(&timer);
                        prop_assert_eq!(wheel.cancel(key), Some(timer));
                        prop_assert_eq!(wheel.cancel(key), None);
                    }
                    Step::Cancel(_) => {}
                    Step::Advance(by) => {
                        now += by;
                        let mut fired = Vec::new();
                        wheel.expire(now, |timer| fired.push(timer));
                        prop_assert!(fired.is_sorted_by_key(|(deadline, _)| deadline.max(&start)));
                        fired.sort_unstable();
                        let later = model.split_off(&(now + 1, 0));
                        let due: Vec<_> = model.into_keys().collect();
                        prop_assert_eq!(fired, due);
                        model = later;
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let first = model.keys().next().map(|(deadline, _)| *deadline);
                let next = wheel.next_deadline_ms();
                prop_assert_eq!(next.is_some(), first.is_some());
                prop_assert!(next <= first, "{next:?} is after {first:?}");
            }
        }
    }

    #[test]
    fn following_the_advice_reaches_every_deadline_exactly() {
        let mut wheel = Wheel::new(0);
        for deadline in [0, 1, 63, 64, 65, 4_095, 4_096, 300_000, 1 << 30, u64::MAX] {
            wheel.insert(deadline, deadline);
        }
        let mut looks = 0;
        while let Some(next) = wheel.next_deadline_ms() {
            wheel.expire(next, |deadline| assert_eq!(deadline, next));
            looks += 1;
        }
        assert!(looks < 40, "{looks} looks for 10 timers");
    }

    #[test]
    fn a_clock_that_goes_back_fires_nothing() {
        let mut wheel = Wheel::new(1_000);
        wheel.insert(1_001, ());
        wheel.expire(10, |()| panic!("it is not due"));
        assert_eq!(wheel.len(), 1);
    }
}
