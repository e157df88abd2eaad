//! When a load has changed enough to tell all other nodes.
//!
//! Loads change with every task, and each change that is told travels to all nodes. So a load is
//! told when somebody would choose otherwise for it:
//! - at once when the agents or their capacity changed, or when there is work for nobody any more,
//!   for somebody again, or for all of the capacity;
//! - when its tasks are more or fewer by a tenth of what was told, and by a hundredth of the
//!   capacity at least;
//! - any other change after [`REST_MS`], so that what others know is wrong by little and not for
//!   ever.
//!
//! Of a load that was never anything nothing is told.
//!
//! Invariant worth naming: nothing is told within [`PAUSE_MS`] of what was told before.

use super::fact::Load;

/// Shortest time between two loads that are told, milliseconds: a round of gossip.
pub const PAUSE_MS: u64 = 100;
/// How long others may have a load that is a little wrong, milliseconds: as long as answers are
/// cached.
pub const REST_MS: u64 = 5_000;

const _: () = assert!(PAUSE_MS < REST_MS);

/// What was told last of one load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Telling {
    told: Option<(u64, Load)>,
}

impl Telling {
    /// The load, when it is to be told now. Time never goes back.
    pub fn due(&mut self, now_ms: u64, load: Load) -> Option<Load> {
        if let Some((told_ms, told)) = self.told {
            let past_ms = now_ms.saturating_sub(told_ms);
            let is_due = past_ms >= PAUSE_MS && load != told;
            if !is_due || past_ms < REST_MS && !matters(told, load) {
                return None;
            }
        } else if load == Load::default() {
            // As good as told.
            return None;
        }
        self.told = Some((now_ms, load));
        Some(load)
    }
}

/// Whether somebody who knows a load would choose otherwise for the new one.
fn matters(told: Load, load: Load) -> bool {
    // Nothing to do, something, or more than can be worked on at the same time.
    let fill = |load: Load| (load.tasks() > 0, load.tasks() >= u64::from(load.capacity));
    let change = load.tasks().abs_diff(told.tasks());
    load.agents != told.agents
        || load.capacity != told.capacity
        || fill(load) != fill(told)
        || change * 10 >= told.tasks().max(1) && change * 100 >= u64::from(load.capacity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(running: u32, queued: u32) -> Load {
        Load { agents: 10, capacity: 100, running, queued }
    }

    #[test]
    fn a_load_is_told_first_and_then_when_it_changed_by_a_tenth_or_crossed_an_edge() {
        let mut telling = Telling::default();
        assert_eq!(telling.due(7, load(0, 0)), Some(load(0, 0)));
        assert_eq!(telling.due(106, load(50, 0)), None, "too soon");
        assert_eq!(telling.due(107, load(50, 0)), Some(load(50, 0)));
        assert_eq!(telling.due(300, load(50, 0)), None, "the same");
        assert_eq!(telling.due(300, load(46, 0)), None, "less than a tenth");
        assert_eq!(telling.due(300, load(45, 0)), Some(load(45, 0)));
        assert_eq!(telling.due(500, load(41, 0)), None);
        assert_eq!(telling.due(5299, load(41, 0)), None);
        assert_eq!(telling.due(5300, load(41, 0)), Some(load(41, 0)), "for long enough");
        assert_eq!(telling.due(5400, load(96, 0)), Some(load(96, 0)));
        assert_eq!(telling.due(5500, load(96, 4)), Some(load(96, 4)), "all capacity is taken");
        assert_eq!(telling.due(5600, load(100, 1)), None);
        assert_eq!(telling.due(5600, load(0, 0)), Some(load(0, 0)));
        assert_eq!(telling.due(5700, load(1, 0)), Some(load(1, 0)), "no longer idle");
        assert_eq!(telling.due(5800, load(0, 0)), Some(load(0, 0)), "idle");
        let more = Load { agents: 11, ..load(0, 0) };
        assert_eq!(telling.due(5900, more), Some(more));
    }

    #[test]
    fn that_there_is_nothing_is_told_to_those_alone_who_were_told_something() {
        let mut telling = Telling::default();
        assert_eq!(telling.due(0, Load::default()), None);
        assert_eq!(telling.due(50, load(1, 0)), Some(load(1, 0)), "at once");
        assert_eq!(telling.due(150, Load::default()), Some(Load::default()));
        assert_eq!(telling.due(9_000, Load::default()), None);
    }

    #[test]
    fn a_few_tasks_of_a_large_capacity_do_not_matter() {
        let of = |running| Load { agents: 500, capacity: 5_000, running, queued: 0 };
        let mut telling = Telling::default();
        assert_eq!(telling.due(0, of(10)), Some(of(10)));
        assert_eq!(telling.due(1_000, of(59)), None);
        assert_eq!(telling.due(1_000, of(60)), Some(of(60)));
    }

    #[test]
    fn what_swings_all_the_time_is_told_once_in_each_pause() {
        let mut telling = Telling::default();
        let told = (0..10_000).filter_map(|now| telling.due(now, load(now as u32 % 2 * 50, 0)));
        assert!((90..=100).contains(&told.count()));
    }
}
