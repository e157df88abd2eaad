//! The records of the log, and a table from them.

use super::*;

/// Records of one segment.
const SEGMENT: usize = 8;

/// A record of the log.
#[derive(Clone, Debug)]
pub enum Fact {
    Submitted {
        random: u128,
        type_index: u16,
        priority: Priority,
        submitted_unix_ms: u64,
        due_unix_ms: u64,
        max_attempts: u32,
        attempts: u32,
        key: Option<(Vec<u8>, u64)>,
        payload: Vec<u8>,
    },
    Ended {
        random: u128,
        status: TaskStatus,
        attempts: u32,
        ended_unix_ms: u64,
        body: Vec<u8>,
    },
    Requeued(u128),
    Forgotten(u128),
    Key {
        bytes: Vec<u8>,
        random: u128,
        body_hash: u64,
        expires_unix_ms: u64,
    },
}

pub fn place(record: usize) -> Place {
    Place { generation: (record / SEGMENT) as u64 + 1, offset: record as u32 }
}

/// Since when a task waits, until when, and its attempts, as the log tells it.
pub fn logged(facts: &[Option<Fact>], name: u128) -> (u64, u64, u32) {
    let (mut begun, mut attempts, mut dead) = (None, 0, false);
    for fact in facts.iter().flatten() {
        match *fact {
            Fact::Submitted { random, submitted_unix_ms, due_unix_ms, attempts: now, .. }
                if random == name =>
            {
                begun = begun.or(Some(match due_unix_ms {
                    0 => (submitted_unix_ms, 0),
                    due => (due, due - ORIGIN.zero_unix_ms),
                }));
                attempts = if dead { attempts } else { now.max(attempts) };
            }
            Fact::Ended { random, .. } if random == name => dead = begun.is_some(),
            Fact::Requeued(random) if random == name && dead => {
                begun = begun.map(|(since, _)| (since, 0));
                (attempts, dead) = (0, false);
            }
            _ => {}
        }
    }
    let (since, due_ms) = begun.expect("the log has every task");
    (since, due_ms, attempts)
}

pub fn recorded(fact: &Fact) -> Recorded<'_> {
    let Fact::Submitted { random, key, payload, .. } = fact else { panic!("{fact:?}") };
    let Fact::Submitted { type_index, priority, submitted_unix_ms, due_unix_ms, .. } = fact else {
        unreachable!()
    };
    let Fact::Submitted { max_attempts, attempts, .. } = fact else { unreachable!() };
    Recorded {
        random: *random,
        type_index: *type_index,
        priority: *priority,
        submitted_unix_ms: *submitted_unix_ms,
        due_unix_ms: *due_unix_ms,
        timeout_ms: 0,
        max_attempts: *max_attempts,
        attempts: *attempts,
        key: key.as_ref().map(|(bytes, body_hash)| Key { bytes, body_hash: *body_hash }),
        payload,
    }
}

pub fn replay(table: &mut TaskTable, place: Place, fact: &Fact, now_ms: u64) {
    match fact {
        Fact::Submitted { .. } => table.replay_submitted(place, &recorded(fact), now_ms),
        Fact::Ended { random, status, attempts, ended_unix_ms, body } => {
            table.replay_ended(*random, *status, *attempts, *ended_unix_ms, body);
        }
        Fact::Requeued(random) => table.replay_requeued(*random),
        Fact::Forgotten(random) => table.replay_forgotten(*random),
        Fact::Key { bytes, random, body_hash, expires_unix_ms } => {
            let key = Key { bytes, body_hash: *body_hash };
            table.replay_key(place, key, *random, *expires_unix_ms, now_ms);
        }
    }
}

/// The records that something is appended again as.
pub fn copies(live: &Live<'_>, facts: &[Option<Fact>]) -> Vec<Fact> {
    let (submitted, end, id) = match live {
        Live::Key { key, random, expires_unix_ms } => {
            return vec![Fact::Key {
                bytes: key.bytes.to_vec(),
                random: *random,
                body_hash: key.body_hash,
                expires_unix_ms: *expires_unix_ms,
            }];
        }
        Live::Task { task, end, .. } => {
            let fact = Fact::Submitted {
                random: task.random,
                type_index: task.type_index,
                priority: task.priority,
                submitted_unix_ms: task.submitted_unix_ms,
                due_unix_ms: task.due_unix_ms,
                max_attempts: task.max_attempts,
                attempts: task.attempts,
                key: None,
                payload: task.payload.to_vec(),
            };
            (fact, end, task.random)
        }
        Live::Record { place, attempts: now, end } => {
            let mut fact = facts[place.offset as usize].clone().expect("it is not freed");
            let Fact::Submitted { random, attempts, key, .. } = &mut fact else { panic!() };
            (*attempts, *key) = (*now, None);
            let id = *random;
            (fact, end, id)
        }
    };
    let end = end.map(|end| Fact::Ended {
        random: id,
        status: end.status,
        attempts: end.attempts,
        ended_unix_ms: end.ended_unix_ms,
        body: end.body.into(),
    });
    std::iter::once(submitted).chain(end).collect()
}
