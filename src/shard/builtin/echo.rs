//! `echo`: gives back what it is given.

use crate::shard::{
    agent::{Agent, Message, Outcome, Task},
    context::Context,
};

/// Answers a task with its payload and a call with its message.
pub struct Echo;

impl Agent for Echo {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        if let Some(caller) = message.reply_to() {
            context.reply(caller, message.payload());
        }
    }

    fn on_task(&mut self, task: &Task<'_>, result: &mut Vec<u8>, _: &mut Context<'_>) -> Outcome {
        result.extend_from_slice(task.payload);
        Outcome::Done
    }
}
