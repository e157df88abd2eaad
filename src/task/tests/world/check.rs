//! What must be true after every step.

use super::*;

impl World {
    pub fn check(&self) {
        let counters = self.table.counters();
        let count = |is_it: fn(&Stage) -> bool| self.count(is_it) as u64;
        assert_eq!(counters.queued, count(|stage| matches!(stage, Stage::Queued)));
        assert_eq!(counters.delayed, count(|stage| matches!(stage, Stage::Delayed(..))));
        assert_eq!(counters.running, count(|stage| matches!(stage, Stage::Running(_))));
        assert_eq!(counters.dead_letters, self.letters.len() as u64);
        let over = |stage: &Stage| matches!(stage, Stage::Ended(_) | Stage::Letter);
        assert_eq!(self.table.unended() as u64, self.tasks.len() as u64 - count(over));
        assert_eq!(self.table.free_room(), self.free_room());
        for (random, task) in &self.tasks {
            let seen = view(&self.table, *random);
            let status = match task.stage {
                Stage::Accepting => None,
                Stage::Queued => Some(TaskStatus::Queued),
                Stage::Delayed(..) => Some(TaskStatus::Delayed),
                Stage::Running(_) | Stage::Ending(_) => Some(TaskStatus::Running),
                Stage::Letter | Stage::Reviving => Some(TaskStatus::Dead),
                Stage::Ended(status) => {
                    let Some(seen) = &seen else { continue };
                    assert!(task.transient || seen.status == status, "{random}: {seen:?}");
                    continue;
                }
            };
            assert_eq!(seen.as_ref().map(|seen| seen.status), status, "{random}");
            let is_live = matches!(task.stage, Stage::Queued | Stage::Delayed(..));
            if let Some(seen) = seen.filter(|_| is_live) {
                assert_eq!(seen.attempts, task.attempts, "{random}");
            }
        }
        for (name, key) in &self.keys {
            if key.expires_ms > self.now_ms {
                let slot = self.table.keys.find(name, self.now_ms).expect("a key is there");
                assert_eq!(self.table.keys.get(slot).random(), key.random);
            }
        }
        self.check_needed();
    }

    /// The records that are needed are those of the tasks that are there.
    fn check_needed(&self) {
        let (mut needed, mut cursor) = (Vec::new(), Some(Cursor::default()));
        while let Some(at) = cursor {
            cursor = self.table.live_before(u64::MAX, at, usize::MAX, |moving, _| {
                if let Moving::Task(random) = moving {
                    needed.push(random);
                }
            });
        }
        needed.sort_unstable();
        let is_needed = |task: &Model| {
            let is_there = matches!(
                task.stage,
                Stage::Queued | Stage::Delayed(..) | Stage::Running(_) | Stage::Letter
            );
            is_there && !task.transient
        };
        let tasks = self.tasks.iter().filter(|(_, task)| is_needed(task));
        let mut expected: Vec<_> = tasks.map(|(random, _)| *random).collect();
        expected.extend(self.remembered().into_iter().map(|(random, _)| random));
        expected.sort_unstable();
        assert_eq!(needed, expected);
    }
}
