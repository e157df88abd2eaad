//! Clients with full windows: submissions whose only purpose is to be committed.

use crate::{
    bench::work::{LIMIT, REMOTE_TYPE, failed, write_payload},
    client::{ClientError, Receiver, Refusal, Sender, connect},
    wire::msgpack::write,
};
use std::{
    io,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

/// Connections to each node.
const CONNECTIONS: u32 = 2;

/// The pause while leaders change.
const PAUSE_MS: u64 = 10;

/// What operations look like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Operations in one request; a request of one is a `task.submit`.
    pub batch: u32,
    /// Operations under way at the same time, over all connections.
    pub window: u32,
}

/// Has so many operations committed, over several connections to each node; tells how long the
/// slowest of them took. The number is rounded up to whole requests of every connection.
///
/// # Errors
/// When a connection is lost, or an operation is refused for good.
pub fn run(nodes: &[SocketAddr], shape: Shape, operations: u32) -> io::Result<(u32, Duration)> {
    let count = nodes.len() as u32 * CONNECTIONS;
    let requests = operations.div_ceil(count * shape.batch);
    let window = (shape.window / (count * shape.batch)).max(1);
    let pairs = (0..CONNECTIONS).flat_map(|_| nodes).map(|node| connect(*node, LIMIT));
    let pairs = pairs.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let began = Instant::now();
    thread::scope(|scope| {
        let clients = pairs.into_iter().map(|(sender, receiver)| {
            scope.spawn(move || submit_all(sender, receiver, shape, requests, window))
        });
        let clients: Vec<_> = clients.collect();
        let join = |client: thread::ScopedJoinHandle<'_, Result<(), ClientError>>| {
            client.join().expect("clients do not panic")
        };
        clients.into_iter().try_for_each(join)
    })
    .map_err(failed)?;
    Ok((requests * count * shape.batch, began.elapsed()))
}

fn submit_all(
    mut sender: Sender,
    mut receiver: Receiver,
    shape: Shape,
    requests: u32,
    window: u32,
) -> Result<(), ClientError> {
    let (mut next, mut taken, mut under_way) = (0, 0, 0);
    let mut again = Vec::new();
    let (mut resume, mut taken_at) = (Instant::now(), Instant::now());
    while taken < requests {
        let pause = resume.saturating_duration_since(Instant::now());
        while pause.is_zero() && under_way < window {
            let number = match again.pop() {
                Some(number) => number,
                None if next < requests => {
                    next += 1;
                    next - 1
                }
                None => break,
            };
            push(&mut sender, number, shape);
            under_way += 1;
        }
        sender.flush()?;
        if under_way == 0 {
            thread::sleep(pause);
            continue;
        }
        if !receiver.fill(LIMIT)? {
            return Err(ClientError::TimedOut(LIMIT));
        }
        while let Some(answer) = receiver.buffered()? {
            let number = answer.msgid.ok_or(ClientError::Garbled("an answer to nothing"))?;
            under_way -= 1;
            match answer.outcome.map_err(Refusal::of) {
                Ok(_) => (taken, taken_at) = (taken + 1, Instant::now()),
                // It is sent again, a little later: what may have been committed all the same does
                // not count.
                Err(refusal) => {
                    let pause_ms = may_be_repeated(&refusal);
                    match pause_ms.filter(|_| taken_at.elapsed() < LIMIT) {
                        Some(pause_ms) => resume = Instant::now() + Duration::from_millis(pause_ms),
                        None => return Err(refusal.into()),
                    }
                    again.push(number);
                }
            }
        }
    }
    Ok(())
}

/// How long to pause before a submission is sent again that was refused; `None` when it should not be.
/// Leaders change when they are spread over the nodes.
pub fn may_be_repeated(refusal: &Refusal) -> Option<u64> {
    let leaders_change = matches!(&*refusal.code, "not_leader" | "unavailable");
    refusal.retry_after_ms.or(leaders_change.then_some(PAUSE_MS))
}

fn push(sender: &mut Sender, number: u32, Shape { body_bytes, batch, .. }: Shape) {
    let task = |out: &mut Vec<u8>, number| {
        write::map(out, 2);
        write::str(out, "type");
        write::str(out, REMOTE_TYPE);
        write::str(out, "payload");
        write_payload(out, number, body_bytes);
    };
    match batch {
        1 => sender.push(number, "task.submit", |out| task(out, number)),
        _ => sender.push(number, "task.submit_batch", |out| {
            write::map(out, 1);
            write::str(out, "tasks");
            write::array(out, batch as usize);
            (0..batch).for_each(|place| task(out, number.wrapping_mul(batch).wrapping_add(place)));
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fake::Node;

    #[test]
    fn a_run_ends_when_every_operation_of_whole_requests_is_taken() {
        let nodes = [Node::start(), Node::start()];
        let addresses = [nodes[0].address(), nodes[1].address()];
        let shape = Shape { body_bytes: 16, batch: 1, window: 100 };
        let (done, took) = run(&addresses, shape, 1_001).unwrap();
        assert_eq!(done, 1_004, "four connections have the same number of them");
        assert!(!took.is_zero());
    }
}
