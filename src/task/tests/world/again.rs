//! What is needed of old segments is appended again; a new process begins with what the log has.

use super::{
    facts::{copies, logged, replay},
    *,
};

impl World {
    /// Appends again what is needed of old segments, and frees those.
    pub fn move_forward(&mut self, part: usize, free: bool) {
        self.commit_all();
        let newest = place(self.committed).generation;
        let generation = newest * part as u64 / 4;
        let mut cursor = Some(Cursor::default());
        let mut walk = Vec::new();
        while let Some(at) = cursor {
            cursor = self.table.live_before(generation, at, 3, |moving, live| {
                walk.push((moving, copies(&live, &self.facts)));
            });
        }
        for (moving, copies) in walk {
            for fact in copies {
                let event = match fact {
                    Fact::Ended { random, status: TaskStatus::Dead, .. } => Event::Died(random),
                    Fact::Ended { .. } => Event::Kept,
                    _ => Event::Moved(moving),
                };
                self.append(fact, event);
            }
        }
        self.commit_all();
        assert!(self.table.is_clear_before(generation));
        for (record, fact) in self.facts.iter_mut().enumerate() {
            if free && place(record).generation < generation {
                *fact = None;
            }
        }
    }

    /// The process dies, and a new one begins with what the log has.
    pub fn restart(&mut self) {
        self.facts.truncate(self.committed);
        self.pending.clear();
        self.wanted.clear();
        self.reserved = 0;
        let remembered = self.remembered();
        self.table = TaskTable::new(origin(self.table.next_token + 1_000), self.limits);
        for (record, fact) in self.facts.iter().enumerate() {
            if let Some(fact) = fact {
                replay(&mut self.table, place(record), fact, self.now_ms);
            }
        }
        self.table.replay_over(self.now_ms);
        // Of those that ended at the same time, others may be remembered.
        let first = self.remembered().into_iter().map(|(_, ended_ms)| ended_ms).min();
        for (random, ended_ms) in remembered {
            let is_known = self.table.key(random).is_some();
            assert!(is_known || Some(ended_ms) <= first, "{random} ended at {ended_ms}, {first:?}");
        }
        self.restart_model();
    }

    /// Tasks that ended, by the log, and are remembered: their names, and when they ended.
    pub(super) fn remembered(&self) -> Vec<(u128, u64)> {
        let entries = self.table.ended.iter().map(|key| &self.table.entries[*key as usize]);
        let logged = entries.filter(|entry| entry.place().is_some());
        logged.map(|entry| (entry.random, entry.when_ms)).collect()
    }

    fn restart_model(&mut self) {
        self.queues.clear();
        let mut again = Vec::new();
        for (random, task) in &mut self.tasks {
            if let Stage::Running(lease) = task.stage {
                self.over.push(lease);
            }
            let is_logged = task.record != usize::MAX;
            match task.stage {
                _ if task.death.is_some() => {
                    (task.stage, task.ends) = (Stage::Letter, 1);
                }
                Stage::Ended(_) => {}
                _ if task.transient || !is_logged => {
                    // It was never acknowledged, or promised to memory alone.
                    task.stage = Stage::Ended(TaskStatus::Cancelled);
                    (task.transient, task.ends) = (true, 1);
                }
                _ => {
                    let (since, due_ms, attempts) = logged(&self.facts, *random);
                    task.attempts = attempts;
                    again.push((since, task.record, *random, due_ms));
                }
            }
        }
        again.sort_unstable();
        for (_, _, random, due_ms) in again {
            self.waits_again(random, due_ms);
        }
        let letters = self.tasks.iter().filter(|(_, task)| task.death.is_some());
        let mut letters: Vec<_> =
            letters.map(|(random, task)| (task.died_ms, task.death, *random)).collect();
        letters.sort_unstable();
        self.letters = letters.into_iter().map(|letter| letter.2).collect();
        // What is forgotten was not, as far as the log knew.
        while self.letters.len() > self.limits.dead_max {
            self.purged();
        }
        assert_eq!(self.table.next_purged(), None);
        self.keys.retain(|_, key| key.is_logged);
    }
}
