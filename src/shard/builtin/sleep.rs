//! `sleep`: takes its time, for trying out queues, timeouts and shutdown.

use crate::{
    shard::{
        agent::{Agent, Outcome, Task},
        context::Context,
        handle::Lease,
    },
    wire::msgpack::write,
};
use serde::Deserialize;
use std::{collections::HashMap, time::Duration};

/// The longest sleep that a task can ask for, milliseconds.
const MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Ends a task after the milliseconds that its payload names: `{"ms": n}` or a plain number.
#[derive(Default)]
pub struct Sleep {
    asleep: HashMap<u64, (Lease, u64)>,
    next_token: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Payload {
    Plain(u64),
    Map { ms: u64 },
}

impl Agent for Sleep {
    fn on_task(
        &mut self,
        task: &Task<'_>,
        result: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Outcome {
        let ms = match task.decode() {
            Ok(Payload::Plain(ms) | Payload::Map { ms }) if ms <= MS_MAX => ms,
            _ => {
                let error = format!("payload: expected {{\"ms\": n}} with n up to {MS_MAX}");
                return Outcome::Failed { error, retry: false };
            }
        };
        if ms == 0 {
            slept(result, ms);
            return Outcome::Done;
        }
        let token = self.next_token;
        self.next_token += 1;
        self.asleep.insert(token, (task.lease, ms));
        context.set_timer(Duration::from_millis(ms), token);
        Outcome::Later
    }

    fn on_timer(&mut self, token: u64, context: &mut Context<'_>) {
        let Some((lease, ms)) = self.asleep.remove(&token) else { return };
        let mut result = Vec::new();
        slept(&mut result, ms);
        context.finish(lease, Ok(result));
    }

    fn on_abandoned(&mut self, abandoned: Lease, _: &mut Context<'_>) {
        self.asleep.retain(|_, (lease, _)| *lease != abandoned);
    }
}

fn slept(result: &mut Vec<u8>, ms: u64) {
    write::map(result, 1);
    write::str(result, "slept_ms");
    write::uint(result, ms);
}
