//! An open loop: submissions leave at a fixed rate whatever becomes of those before, and a latency
//! counts from the time at which its submission should have left.

use super::{
    cluster::load::may_be_repeated,
    work::{LIMIT, push_submit},
};
use crate::{
    client::{ClientError, Receiver, Refusal, Sender, connect},
    metrics::Latency,
};
use std::{
    net::SocketAddr,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// How long the pacer sleeps when nothing is due: short beside the latencies that are measured.
const NAP: Duration = Duration::from_micros(50);

/// Submissions that are sent again because nobody led their partition, at most.
const RESENT_MAX: u64 = 1_000_000;

/// How submissions leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Submissions in a second.
    pub rate: f64,
    /// Bytes of a payload.
    pub body_bytes: usize,
}

/// Submits tasks at the fixed rate and records how long each waited for its acknowledgement.
///
/// # Errors
/// When the connection is lost, or a submission is refused for good.
pub(super) fn run(
    address: SocketAddr,
    tasks: u32,
    pace: Pace,
    acks: &mut Latency,
) -> Result<(), ClientError> {
    let (sender, receiver) = connect(address, LIMIT)?;
    let (again, refused) = mpsc::channel();
    let began = Instant::now();
    thread::scope(|scope| {
        let sending = scope.spawn(move || submit_on_time(sender, tasks, pace, began, &refused));
        let received = record_acks(receiver, tasks, pace, began, &again, acks);
        drop(again);
        sending.join().expect("the pacer does not panic").and(received)
    })
}

impl Pace {
    /// When a submission should leave, after the begin.
    fn due(self, number: u32) -> Duration {
        Duration::from_secs_f64(f64::from(number) / self.rate)
    }
}

/// Submits on time, and what was refused once more, until nothing can be refused any more.
fn submit_on_time(
    mut sender: Sender,
    tasks: u32,
    pace: Pace,
    began: Instant,
    refused: &mpsc::Receiver<u32>,
) -> Result<(), ClientError> {
    let mut next = 0;
    loop {
        match refused.try_recv() {
            Ok(number) => push_submit(&mut sender, number, pace.body_bytes, None),
            Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
            Err(mpsc::TryRecvError::Empty) => {}
        }
        let now = began.elapsed();
        while next < tasks && pace.due(next) <= now {
            push_submit(&mut sender, next, pace.body_bytes, None);
            next += 1;
        }
        match sender.waiting_bytes() {
            0 => thread::sleep(NAP),
            _ => sender.flush()?,
        }
    }
}

fn record_acks(
    mut receiver: Receiver,
    tasks: u32,
    pace: Pace,
    began: Instant,
    again: &mpsc::Sender<u32>,
    acks: &mut Latency,
) -> Result<(), ClientError> {
    let (mut answered, mut resent) = (0, 0);
    while answered < tasks {
        if !receiver.fill(LIMIT)? {
            return Err(ClientError::TimedOut(LIMIT));
        }
        let now = began.elapsed();
        while let Some(answer) = receiver.buffered()? {
            let number = answer.msgid.ok_or(ClientError::Garbled("an answer to nothing"))?;
            match answer.outcome.map_err(Refusal::of) {
                Ok(_) => {
                    acks.record(now.saturating_sub(pace.due(number)).as_nanos() as u64);
                    answered += 1;
                }
                // It goes on counting from the time at which it should have left. Leaders change when
                // they are spread over the nodes, but not for ever.
                Err(refusal) if may_be_repeated(&refusal).is_some() && resent < RESENT_MAX => {
                    resent += u64::from(refusal.retry_after_ms.is_none());
                    // Who sends it ends only after all answers came.
                    let _ = again.send(number);
                }
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }
    Ok(())
}
