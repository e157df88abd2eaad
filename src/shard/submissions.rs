//! Takes submissions in: a task is accepted when its record is committed.

use super::{
    core::Shard,
    ledger::Logged,
    news::{refusal, tell},
    partition::Partition,
};
use crate::{
    consensus::Record,
    planted::{self, Bug},
    task::{Fingerprint, Key, Submission, Submitted, Watcher},
    wire::{
        api::{Error, Priority},
        batch::Parcel,
        id::TaskId,
        letter::{self, ArchivedSubmission, LongPayload},
    },
};

impl Shard {
    /// Takes a submission in, or tells why not.
    pub(super) fn accept_submission(&mut self, parcel: Parcel<'_>) {
        let letter = parcel.open::<ArchivedSubmission<'_>>();
        let submitter =
            Watcher { target: parcel.header.source, correlation: parcel.header.correlation };
        let priority = Priority::ALL[letter.priority as usize];
        let type_index = letter.type_index.to_native();
        let (timeout_ms, delay_ms) = (letter.timeout_ms.to_native(), letter.delay_ms.to_native());
        let max_attempts = letter.max_attempts.to_native();
        let (index, place) = (letter.partition.to_native(), letter.place.to_native());
        let long = parcel.attachment.map(LongPayload::of);
        let payload: &[u8] = match long {
            Some(payload) => payload,
            None => &letter.payload,
        };
        let is_asked = self.tasks.of(index).table.is_agreed() && !letter.transient;
        let key = (!letter.key.is_empty()).then(|| {
            let agent_type = &self.kernel.types.get(type_index).name;
            let fingerprint =
                Fingerprint { agent_type, payload, priority, timeout_ms, max_attempts, delay_ms };
            let hash = || {
                let known = letter.body_hash.as_ref().map(|hash| hash.to_native());
                known.unwrap_or_else(|| fingerprint.hash())
            };
            let body_hash = if is_asked { fingerprint.digest() } else { hash() };
            Key { bytes: &letter.key, body_hash }
        });
        let submission = Submission {
            random: letter.random.to_native(),
            type_index,
            priority,
            payload,
            long,
            timeout_ms,
            max_attempts,
            delay_ms,
            key,
            transient: letter.transient,
            reserved: letter.reserved,
            watcher: letter.watched.then_some(submitter),
        };
        if is_asked {
            return self.ask_for(index, place, submitter, &submission);
        }
        let now_ms = self.kernel.now_ms();
        let partition = self.tasks.of(index);
        let submitted = partition
            .has_room_for(submission.transient, submission.reserved)
            .and_then(|()| partition.table.submit(now_ms, submission));
        match submitted {
            Ok(Submitted::New(key)) => {
                let then = Logged::Submitted { key, submitter, place };
                let agent_type = &self.kernel.types.get(type_index).name;
                log_submission(partition, now_ms, agent_type, &submission, then);
            }
            Ok(Submitted::Existing(id)) => {
                let watched = submission.watcher.is_some();
                let then = Logged::Existing { id, submitter, place, watched };
                partition.ledger.after_all(then);
            }
            Err(Error::Conflict(_)) => {
                let id = TaskId { partition: index, random: submission.random };
                partition.ledger.after_all(Logged::Conflict { id, submitter, place });
            }
            Err(error) => {
                let id = TaskId { partition: index, random: submission.random };
                self.refuse(submitter, id, place, &error);
            }
        }
        self.tasks.of(index).end_evicted();
    }

    /// Tells who asked for something that it was refused.
    #[cold]
    pub(super) fn refuse(&mut self, asker: Watcher, id: TaskId, place: u32, error: &Error) {
        let text = error.to_string();
        let (what, retry_after_ms) = refusal(error);
        let news = letter::TaskNews {
            random: id.random,
            partition: id.partition,
            place,
            what,
            attempts: 0,
            retry_after_ms,
            body: text.as_bytes(),
        };
        tell(&mut self.kernel, asker, &news);
    }
}

/// Writes a new task to the log.
#[inline]
fn log_submission(
    partition: &mut Partition,
    now_ms: u64,
    agent_type: &str,
    submission: &Submission<'_>,
    then: Logged,
) {
    let Partition { table, ledger, .. } = partition;
    if submission.transient {
        return ledger.at_once(then);
    }
    let then = if planted::has(Bug::EarlyAcknowledgement) {
        ledger.at_once(then);
        Logged::Noted
    } else {
        then
    };
    let id = TaskId { partition: table.partition(), random: submission.random };
    let record = record_of(submission, id, agent_type, ledger.unix_ms(now_ms), false);
    ledger.append(record, then);
}

/// A submission as it is written down.
#[inline]
pub(super) fn record_of<'a>(
    submission: &Submission<'a>,
    id: TaskId,
    agent_type: &'a str,
    submitted_unix_ms: u64,
    is_asked: bool,
) -> Record<'a> {
    Record::Submitted {
        id,
        is_asked,
        agent_type,
        priority: submission.priority,
        submitted_unix_ms,
        due_unix_ms: match submission.delay_ms {
            0 => 0,
            delay_ms => submitted_unix_ms.saturating_add(delay_ms),
        },
        timeout_ms: submission.timeout_ms,
        max_attempts: submission.max_attempts,
        attempts: 0,
        key: submission.key.map(|key| key.bytes),
        payload: submission.payload,
    }
}
