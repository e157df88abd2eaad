//! News of tasks: what became of submissions, of tasks, and of attempts that workers end.

use super::{
    agent::{TaskEvent, TaskNews},
    calls::CallKey,
    core::Shard,
    kernel::{Kernel, Waiter, door_of},
};
use crate::{
    task::Watcher,
    wire::{
        api::{Error, TaskStatus},
        batch::{Header, Kind, Parcel, Value},
        id::{AgentId, TaskId},
        letter::{self, ArchivedTaskNews, NewsKind},
    },
};

/// Puts news of a task on their way to who waits for them.
pub(super) fn tell(kernel: &mut Kernel, waiting: Watcher, news: &letter::TaskNews<'_>) {
    let header = Header {
        target: waiting.target,
        source: door_of(kernel.index).to_bits(),
        correlation: waiting.correlation,
        kind: Kind::TaskEvent,
    };
    let core = AgentId::from_bits(waiting.target).core();
    kernel.push_owed(core, header, Value(news));
}

/// What to tell of a refusal, and its text.
pub(super) fn refusal(error: &Error) -> (NewsKind, u64) {
    match error {
        Error::Backpressure(retry_after_ms) => (NewsKind::Backpressure, *retry_after_ms),
        Error::TooLarge(_) => (NewsKind::TooLarge, 0),
        Error::Conflict(_) => (NewsKind::Conflict, 0),
        Error::StaleLease(_) => (NewsKind::Stale, 0),
        Error::NotLeader(_) => (NewsKind::NotLeader, 0),
        Error::Uncertain(_) => (NewsKind::Uncertain, 0),
        _ => (NewsKind::Invalid, 0),
    }
}

/// The error that a refusal tells of; `None` when the news are none.
fn refused(what: NewsKind, letter: &ArchivedTaskNews<'_>) -> Option<Error> {
    let text = || String::from_utf8_lossy(&letter.body).into_owned();
    match what {
        NewsKind::Backpressure => Some(Error::Backpressure(letter.retry_after_ms.to_native())),
        NewsKind::TooLarge => Some(Error::TooLarge(text())),
        NewsKind::Conflict => Some(Error::Conflict(text())),
        NewsKind::Stale => Some(Error::StaleLease(text())),
        NewsKind::Invalid => Some(Error::Invalid(text())),
        NewsKind::NotLeader => Some(Error::NotLeader(None)),
        NewsKind::Uncertain => Some(Error::Uncertain(text())),
        NewsKind::Accepted
        | NewsKind::Ended
        | NewsKind::Done
        | NewsKind::Dead
        | NewsKind::Cancelled => None,
    }
}

impl Shard {
    /// Tells a submitter what became of its task, or a worker what became of an attempt's end.
    pub(super) fn deliver_news(&mut self, parcel: Parcel<'_>) {
        let letter = parcel.open::<ArchivedTaskNews<'_>>();
        let what = NewsKind::from(letter.what);
        let (partition, random) = (letter.partition.to_native(), letter.random.to_native());
        let id = TaskId { partition, random };
        let target = AgentId::from_bits(parcel.header.target);
        if Self::is_door(target) {
            return self.news_for_door(parcel.header.correlation, what, id, letter);
        }
        let error;
        let event = match (what.ended(), refused(what, letter)) {
            (Some(status), _) => {
                let attempts = letter.attempts.to_native();
                TaskEvent::Ended { status, attempts, body: &letter.body }
            }
            (None, Some(refused)) => {
                error = refused;
                TaskEvent::Refused(&error)
            }
            (None, None) => unreachable!("an agent hears of refusals and ends alone"),
        };
        // What it was called when it was submitted, when that is not its name.
        let submitted_as = match parcel.header.correlation {
            0 => id,
            bits => TaskId { partition, random: bits.into() },
        };
        let news = TaskNews { id: submitted_as, known_as: id, event };
        self.with_agent(target, |agent, context| agent.on_task_news(&news, context));
    }

    fn news_for_door(
        &mut self,
        correlation: u64,
        what: NewsKind,
        id: TaskId,
        letter: &ArchivedTaskNews<'_>,
    ) {
        let key = CallKey::from_bits(correlation);
        let over = match self.kernel.calls.get_mut(key) {
            Some(Waiter::DoorEach { remaining, outcomes, .. }) => {
                outcomes[letter.place.to_native() as usize] =
                    refused(what, letter).map_or(Ok(id), Err);
                *remaining -= 1;
                *remaining == 0
            }
            Some(Waiter::DoorExecute { .. }) => what != NewsKind::Accepted,
            _ => false,
        };
        if !over {
            return;
        }
        self.woke_futures = true;
        // A door that went away no longer wants to know; the task goes on.
        match self.kernel.close_call(key) {
            Some(Waiter::DoorEach { outcomes, answer, .. }) => drop(answer.send(Ok(outcomes))),
            Some(Waiter::DoorExecute { mut view, answer }) => {
                let ended = match (what.ended(), refused(what, letter)) {
                    (Some(status), _) => {
                        view.id = id;
                        view.status = status;
                        view.attempts = letter.attempts.to_native();
                        match status {
                            TaskStatus::Done => view.result = Some(letter.body.to_vec()),
                            _ => view.error = Some(String::from_utf8_lossy(&letter.body).into()),
                        }
                        Ok(*view)
                    }
                    (None, Some(error)) => Err(error),
                    (None, None) => unreachable!("accepted is not the end"),
                };
                drop(answer.send(ended));
            }
            _ => unreachable!("it was looked at just now"),
        }
    }
}
