//! What millions of waiting tasks cost: memory while they wait, and time when they are read back
//! from a log.
//!
//! `cargo run --release --example cold_tasks [TASKS]`

use coreflow::{
    config::DropPolicy,
    metrics::process::resident_bytes,
    task::{Origin, Place, Recorded, RetryPolicy, Submission, Submitted, TableLimits, TaskTable},
    wire::api::{Priority, TaskStatus},
};
use std::{error::Error, time::Instant};

/// Shards that share the tasks.
const SHARDS: u16 = 2;
const TASKS: u32 = 5_000_000;
const PAYLOAD: [u8; 256] = [7; 256];
const MIB: f64 = 1_048_576.0;

fn table(partition: u16) -> TaskTable {
    let limits = TableLimits {
        queue_primary: 1_000,
        queue_overflow: 10_000_000,
        queue_bytes: 6 << 20,
        hot_least: TableLimits::HOT_LEAST,
        retained: 100_000,
        retained_bytes: 64 << 20,
        max_payload_bytes: 1 << 20,
        max_attempts: 3,
        timeout_ms: 60_000,
        ageing_ms: 10_000,
        retry: RetryPolicy { base_ms: 100, max_ms: 30_000 },
        key_ttl_ms: 86_400_000,
        keys_max: 1_000_000,
        dead_max: 100_000,
        drop_policy: DropPolicy::Reject,
    };
    TaskTable::new(
        Origin { partition, first_token: 1, durable: true, zero_unix_ms: 0, among: None },
        limits,
    )
}

/// A name as random as those of a node, the same in every run.
fn name(number: u32) -> u128 {
    u128::from(number + 1).wrapping_mul(0xd6e8_feb8_6659_fd93_c2b2_ae3d_27d4_eb4f)
}

fn place(number: u32) -> Place {
    Place { generation: 1 + u64::from(number >> 18), offset: number << 8 }
}

fn main() -> Result<(), Box<dyn Error>> {
    let tasks = match std::env::args().nth(1) {
        Some(count) => count.parse()?,
        None => TASKS,
    };
    let before = resident_bytes();
    let begun = Instant::now();
    let mut tables: Vec<TaskTable> = (0..SHARDS).map(table).collect();
    let mut slowest_us = 0;
    for number in 0..tasks {
        let table = &mut tables[(number % u32::from(SHARDS)) as usize];
        let now_ms = u64::from(number / 500);
        let submission = Submission {
            random: name(number),
            type_index: (number % 3) as u16,
            priority: Priority::ALL[(number % 4) as usize],
            payload: &PAYLOAD,
            long: None,
            timeout_ms: 0,
            max_attempts: 0,
            delay_ms: 0,
            key: None,
            transient: false,
            reserved: false,
            watcher: None,
        };
        let step = Instant::now();
        let Submitted::New(key) = table.submit(now_ms, submission)? else {
            return Err("it has no key".into());
        };
        table.accepted(key, now_ms, Some(place(number)));
        slowest_us = slowest_us.max(step.elapsed().as_micros());
    }
    let cold: u64 = tables.iter().map(|table| table.counters().cold).sum();
    println!(
        "{tasks} tasks wait, {cold} of them cold: {:.1} MiB resident more; {:.2} M/s, the slowest \
         took {slowest_us} us",
        (resident_bytes() - before) as f64 / MIB,
        f64::from(tasks) / begun.elapsed().as_secs_f64() / 1e6,
    );
    drop(tables);
    replay(tasks, false);
    replay(tasks, true);
    Ok(())
}

/// Reads a log of that many submissions, with or without their ends.
fn replay(tasks: u32, ended: bool) {
    let begun = Instant::now();
    let mut tables: Vec<TaskTable> = (0..SHARDS).map(table).collect();
    for number in 0..tasks {
        let table = &mut tables[(number % u32::from(SHARDS)) as usize];
        let task = Recorded {
            random: name(number),
            type_index: (number % 3) as u16,
            priority: Priority::ALL[(number % 4) as usize],
            submitted_unix_ms: u64::from(number / 500),
            due_unix_ms: 0,
            timeout_ms: 0,
            max_attempts: 0,
            attempts: 0,
            key: None,
            payload: &PAYLOAD,
        };
        table.replay_submitted(place(number), &task, 0);
        // A thousand tasks are under way at a time.
        if ended && let Some(number) = number.checked_sub(1_000) {
            let table = &mut tables[(number % u32::from(SHARDS)) as usize];
            table.replay_ended(name(number), TaskStatus::Done, 1, 0, b"done");
        }
    }
    let read = begun.elapsed();
    tables.iter_mut().for_each(|table| table.replay_over(0));
    let records = f64::from(tasks) * if ended { 2.0 } else { 1.0 };
    let unended: usize = tables.iter().map(TaskTable::unended).sum();
    println!(
        "{records} records are read in {:.2} s and in order after {:.2} s, {:.2} M/s; {unended} \
         tasks are unended",
        read.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        records / begun.elapsed().as_secs_f64() / 1e6,
    );
}
