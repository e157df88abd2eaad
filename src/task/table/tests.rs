use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const LIMITS: TableLimits = TableLimits {
    queue_primary: 6,
    queue_overflow: 2,
    retained: 5,
    retained_bytes: 1_000,
    max_payload_bytes: 400,
    max_attempts: 3,
    timeout_ms: 1_000,
};

fn submission(random: u128, payload: &[u8]) -> Submission<'_> {
    Submission {
        random,
        type_index: 0,
        priority: Priority::Normal,
        payload,
        timeout_ms: 0,
        max_attempts: 0,
        reserved: false,
        watcher: None,
    }
}

fn accepted(table: &mut TaskTable, random: u128) -> u32 {
    let key = table.submit(0, submission(random, b"p")).unwrap();
    table.accepted(key);
    key
}

fn view(table: &TaskTable, random: u128) -> Option<TaskView> {
    table.view(random, |type_index| format!("type {type_index}"))
}

#[test]
fn a_task_goes_through_its_life() {
    let mut table = TaskTable::new(3, LIMITS);
    let key = table.submit(0, submission(7, b"payload")).unwrap();
    assert_eq!((view(&table, 7), table.next(0)), (None, None), "not accepted yet");
    table.accepted(key);
    assert_eq!(view(&table, 7).unwrap().status, TaskStatus::Queued);
    assert_eq!(
        (table.next(0), table.next(1), table.payload(key)),
        (Some(key), None, &b"payload"[..])
    );
    let lease = table.start(key, 500);
    assert_eq!((table.next(0), table.attempts(key), table.deadline_ms(key)), (None, 1, 1_500));
    table.complete(lease, b"result").unwrap();
    assert_eq!(view(&table, 7).unwrap().status, TaskStatus::Running, "its end is not committed");
    assert_eq!(
        table.end_of(key),
        (TaskId { shard: 3, random: 7 }, TaskStatus::Done, &b"result"[..])
    );
    table.ended(key);
    let seen = view(&table, 7).unwrap();
    assert_eq!((seen.status, seen.result), (TaskStatus::Done, Some(b"result".to_vec())));
    assert_eq!((seen.agent_type.as_str(), seen.attempts), ("type 0", 1));
    assert_eq!(table.counters(), Counters { accepted: 1, done: 1, ..Counters::default() });
}

#[test]
fn a_late_attempt_changes_nothing() {
    let mut table = TaskTable::new(0, LIMITS);
    let key = accepted(&mut table, 1);
    let first = table.start(key, 0);
    assert_eq!(table.fail(first, "lost", true), Ok(Failed::Again));
    assert_eq!(table.complete(first, b"late"), Err(Stale), "it waits for another attempt");
    let second = table.start(key, 0);
    assert_eq!(table.complete(first, b"late"), Err(Stale));
    assert_eq!(table.fail(first, "late", false), Err(Stale));
    assert_eq!(table.complete(second, b"good"), Ok(()));
    assert_eq!(table.complete(second, b"again"), Err(Stale));
    table.ended(key);
    assert_eq!(table.end_of(key).2, b"good");
    let nowhere = Lease { key: 99, token: 1 };
    assert_eq!(table.complete(nowhere, b""), Err(Stale));
}

#[test]
fn the_last_attempt_or_a_hopeless_one_is_the_end() {
    let mut table = TaskTable::new(0, LIMITS);
    let key = accepted(&mut table, 1);
    for attempt in 1..=3 {
        let lease = table.start(key, 0);
        let failed = table.fail(lease, &format!("error {attempt}"), true);
        assert_eq!(failed, Ok(if attempt < 3 { Failed::Again } else { Failed::Last }));
    }
    table.ended(key);
    let seen = view(&table, 1).unwrap();
    assert_eq!((seen.status, seen.error.as_deref()), (TaskStatus::Dead, Some("error 3")));
    assert_eq!(table.end_of(key).2, b"error 3");

    let key = accepted(&mut table, 2);
    let lease = table.start(key, 0);
    assert_eq!(table.fail(lease, "never", false), Ok(Failed::Last));
}

#[test]
fn the_urgent_first_and_a_retry_last() {
    let mut table = TaskTable::new(0, LIMITS);
    let orders = [Priority::Low, Priority::Normal, Priority::Critical, Priority::Normal];
    let keys = orders.map(|priority| {
        let random = table.unended() as u128;
        let key = table.submit(0, Submission { priority, ..submission(random, b"") }).unwrap();
        table.accepted(key);
        key
    });
    let critical = table.next(0).unwrap();
    assert_eq!(critical, keys[2]);
    table.start(critical, 0);
    let normal = table.next(0).unwrap();
    assert_eq!(normal, keys[1]);
    let lease = table.start(normal, 0);
    table.fail(lease, "", true).unwrap();
    let rest = [(); 3].map(|()| {
        let key = table.next(0).unwrap();
        table.start(key, 0);
        key
    });
    assert_eq!(rest, [keys[3], keys[1], keys[0]]);
}

#[test]
fn a_cancelled_task_ends_wherever_it_is() {
    let mut table = TaskTable::new(0, LIMITS);
    assert!(matches!(table.cancel(5), Err(Error::NotFound(_))));
    let early = table.submit(0, submission(1, b"")).unwrap();
    assert_eq!(table.cancel(1), Ok(true));
    table.accepted(early);
    assert_eq!(table.next(0), None, "cancelled before it was accepted");
    let queued = accepted(&mut table, 2);
    assert_eq!(table.cancel(2), Ok(true));
    assert_eq!(table.next(0), None);
    let running = accepted(&mut table, 3);
    let lease = table.start(running, 0);
    assert_eq!(table.cancel(3), Ok(true));
    assert_eq!(table.complete(lease, b""), Err(Stale));
    assert_eq!(table.cancel(3), Ok(false), "its end is decided");
    for key in [early, queued, running] {
        table.ended(key);
    }
    let expected = Counters { accepted: 3, cancelled: 3, ..Counters::default() };
    assert_eq!((table.counters(), table.unended()), (expected, 0));
}

#[test]
fn a_full_table_refuses_and_reserved_room_is_kept() {
    let mut table = TaskTable::new(0, LIMITS);
    table.reserve(0, 3).unwrap();
    for random in 0..5 {
        table.submit(0, submission(random, b"")).unwrap();
    }
    assert_eq!(table.submit(0, submission(5, b"")), Err(Error::Backpressure(100)));
    assert_eq!(table.reserve(0, 1), Err(Error::Backpressure(100)));
    assert!(matches!(table.reserve(0, 9), Err(Error::TooLarge(_))), "it will never fit");
    assert_eq!(table.counters().refused, 2);
    let reserved = |random| Submission { reserved: true, ..submission(random, b"") };
    table.submit(0, reserved(6)).unwrap();
    assert!(matches!(table.submit(0, reserved(6)), Err(Error::Conflict(_))));
    assert_eq!(table.free_room(), 1, "the refused one used its room up");
    table.release(1);
    assert_eq!(table.free_room(), 2);
    let long = [0; 401];
    assert!(matches!(table.submit(0, submission(9, &long)), Err(Error::TooLarge(_))));
}

#[test]
fn what_ended_first_is_forgotten_first() {
    let mut table = TaskTable::new(0, LIMITS);
    for random in 0..7 {
        let key = accepted(&mut table, random);
        let lease = table.start(key, 0);
        table.complete(lease, b"short").unwrap();
        table.ended(key);
        table.retain_within_limits();
    }
    let known: Vec<_> = (0..7).filter(|random| view(&table, *random).is_some()).collect();
    assert_eq!(known, [2, 3, 4, 5, 6]);
    let key = accepted(&mut table, 10);
    let lease = table.start(key, 0);
    table.complete(lease, &[0; 1_001]).unwrap();
    table.ended(key);
    table.retain_within_limits();
    assert_eq!(table.keys.len(), 0, "its result alone is beyond the limit of bytes");
}

#[test]
fn everybody_who_watches_is_told_once() {
    let mut table = TaskTable::new(0, LIMITS);
    let watchers = [1, 2, 3].map(|target| Watcher { target, correlation: 9 });
    let first = Submission { watcher: Some(watchers[0]), ..submission(1, b"") };
    let key = table.submit(0, first).unwrap();
    table.accepted(key);
    assert!(table.watch(1, watchers[1]) && table.watch(1, watchers[2]));
    assert!(!table.watch(2, watchers[0]), "no such task");
    assert!(table.unwatch(1, watchers[1]));
    assert!(!table.unwatch(1, watchers[1]));
    let lease = table.start(key, 0);
    table.complete(lease, b"").unwrap();
    table.ended(key);
    let told: Vec<_> = table.take_watchers(key).collect();
    assert_eq!(told, [watchers[0], watchers[2]]);
    assert_eq!(table.take_watchers(key).count(), 0);
    assert!(!table.watch(1, watchers[0]), "it has ended");
}

#[derive(Clone, Debug)]
enum Step {
    Submit {
        reserved: bool,
        priority: usize,
        type_index: TypeIndex,
    },
    Reserve(usize),
    Release,
    Commit,
    Start(TypeIndex),
    Complete(usize),
    Fail(usize, bool),
    Cancel(usize),
    /// Ends an attempt that is over.
    Late(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), 0_usize..4, 0_u16..3).prop_map(|(reserved, priority, type_index)| {
            Step::Submit { reserved, priority, type_index }
        }),
        1 => (1_usize..4).prop_map(Step::Reserve),
        1 => Just(Step::Release),
        4 => Just(Step::Commit),
        4 => (0_u16..3).prop_map(Step::Start),
        2 => any::<usize>().prop_map(Step::Complete),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(pick, retry)| Step::Fail(pick, retry)),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<usize>().prop_map(Step::Late),
    ]
}

/// What the log has not committed yet.
enum Logged {
    Submitted(u32),
    Ended(u32),
}

proptest! {
    /// Whatever happens in whatever order: a task ends once, counts agree, limits hold, a stale
    /// lease changes nothing, and queues are in order.
    #[test]
    fn every_accepted_task_ends_once(steps in prop::collection::vec(step(), 0..250)) {
        let mut table = TaskTable::new(0, LIMITS);
        let room = LIMITS.queue_primary + LIMITS.queue_overflow;
        let mut log = std::collections::VecDeque::new();
        let mut queued: Vec<(usize, TypeIndex, u128)> = Vec::new();
        let mut about: HashMap<u128, (usize, TypeIndex)> = HashMap::new();
        let mut running: Vec<(Lease, u128)> = Vec::new();
        let mut over: Vec<Lease> = Vec::new();
        let (mut reserved_room, mut submitted, mut ends) = (0, 0_u128, 0);
        for step in steps {
            match step {
                Step::Submit { reserved, priority, type_index } => {
                    let reserved = reserved && reserved_room > 0;
                    reserved_room -= usize::from(reserved);
                    submitted += 1;
                    let priority_of = Priority::ALL[priority];
                    let submission = Submission {
                        type_index,
                        priority: priority_of,
                        reserved,
                        ..submission(submitted, b"x")
                    };
                    match table.submit(0, submission) {
                        Ok(key) => {
                            about.insert(submitted, (priority, type_index));
                            log.push_back(Logged::Submitted(key));
                        }
                        Err(error) => {
                            prop_assert!(matches!(error, Error::Backpressure(_)));
                            prop_assert!(!reserved, "there was room for it");
                        }
                    }
                }
                Step::Reserve(count) => {
                    reserved_room += if table.reserve(0, count).is_ok() { count } else { 0 };
                }
                Step::Release if reserved_room > 0 => {
                    table.release(1);
                    reserved_room -= 1;
                }
                Step::Release => {}
                Step::Commit => match log.pop_front() {
                    Some(Logged::Submitted(key)) => {
                        let random = table.id(key).random;
                        table.accepted(key);
                        if let Some((priority, type_index)) = about.get(&random) {
                            queued.push((*priority, *type_index, random));
                        }
                    }
                    Some(Logged::Ended(key)) => {
                        table.ended(key);
                        table.retain_within_limits();
                        ends += 1;
                    }
                    None => {}
                },
                Step::Start(type_index) => {
                    let of_type = queued.iter().enumerate().filter(|(_, task)| task.1 == type_index);
                    let best = of_type.max_by_key(|(place, task)| (task.0, std::cmp::Reverse(*place)));
                    let best = best.map(|(place, _)| place);
                    let key = table.next(type_index);
                    let expected = best.map(|place| queued.remove(place).2);
                    prop_assert_eq!(key.map(|key| table.id(key).random), expected);
                    if let Some(key) = key {
                        running.push((table.start(key, 0), table.id(key).random));
                    }
                }
                Step::Complete(pick) if !running.is_empty() => {
                    let (lease, random) = running.swap_remove(pick % running.len());
                    prop_assert_eq!(table.complete(lease, b"r"), Ok(()));
                    about.remove(&random);
                    log.push_back(Logged::Ended(lease.key));
                    over.push(lease);
                }
                Step::Fail(pick, retry) if !running.is_empty() => {
                    let (lease, random) = running.swap_remove(pick % running.len());
                    over.push(lease);
                    match table.fail(lease, "e", retry) {
                        Ok(Failed::Again) => {
                            let (priority, type_index) = about[&random];
                            queued.push((priority, type_index, random));
                        }
                        Ok(Failed::Last) => {
                            about.remove(&random);
                            log.push_back(Logged::Ended(lease.key));
                        }
                        Err(Stale) => prop_assert!(false, "the lease was current"),
                    }
                }
                Step::Cancel(pick) if !about.is_empty() => {
                    let mut names: Vec<_> = about.keys().copied().collect();
                    names.sort_unstable();
                    let random = names[pick % names.len()];
                    let key = table.key(random).unwrap();
                    prop_assert_eq!(table.cancel(random), Ok(true));
                    about.remove(&random);
                    queued.retain(|task| task.2 != random);
                    if let Some(place) = running.iter().position(|there| there.1 == random) {
                        over.push(running.swap_remove(place).0);
                    }
                    log.push_back(Logged::Ended(key));
                }
                Step::Late(pick) if !over.is_empty() => {
                    let lease = over[pick % over.len()];
                    prop_assert_eq!(table.complete(lease, b"late"), Err(Stale));
                    prop_assert_eq!(table.fail(lease, "late", true), Err(Stale));
                }
                _ => {}
            }
            let counters = table.counters();
            prop_assert_eq!(counters.queued as usize, queued.len());
            prop_assert_eq!(counters.running as usize, running.len());
            prop_assert_eq!(counters.done + counters.dead + counters.cancelled, ends);
            prop_assert_eq!(table.free_room(), room.saturating_sub(
                reserved_room + queued.len() + table.accepting
            ));
            prop_assert!(table.ended.len() <= LIMITS.retained);
            let pending_ends = log.iter().filter(|logged| matches!(logged, Logged::Ended(_)));
            prop_assert_eq!(table.unended(), about.len() + pending_ends.count());
        }
    }
}
