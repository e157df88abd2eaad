//! What the measured clients say to a node: submissions, and a remote worker's side of a task.
//!
//! A task's payload carries its number, so that whoever runs it knows which one of the ledger it
//! is without asking the node.

use crate::{
    client::{Answer, ClientError, Params, Receiver, Refusal, Sender, View, connect},
    wire::msgpack::{Reader, Value, write},
};
use std::{io, net::SocketAddr, time::Duration};

/// The agent type whose tasks remote workers take.
pub(super) const REMOTE_TYPE: &str = "work";
/// How long a connection, a write or an answer may take before something is wrong.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// Tasks that one fetch takes at most.
const FETCH_TASKS: u64 = 250;
/// How long a fetch waits for a task.
const FETCH_WAIT_MS: u64 = 200;
/// Fetches under way: while one batch is worked on, the next one is on its way.
const FETCHES: u32 = 2;
/// Tasks that the worker may hold at the same time.
const CAPACITY: u64 = 1000;
/// The bit that tells the msgid of a fetch from that of a completion, which is the task's number.
const FETCH_BIT: u32 = 1 << 31;
/// The msgid of the registration: nothing else is under way then.
const REGISTER: u32 = 0;

/// A benchmark ends with whatever its connection met.
pub(super) fn failed(error: ClientError) -> io::Error {
    io::Error::other(error)
}

/// The payload of a task: its number, then words that depend on it, as MessagePack bytes.
#[inline]
pub(super) fn write_payload(out: &mut Vec<u8>, number: u32, bytes: usize) {
    let mut words = [0_u8; 256];
    for (index, word) in (0_u64..).zip(words[..bytes].chunks_exact_mut(8)) {
        let value = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_mul(index);
        word.copy_from_slice(&(value ^ u64::from(number)).to_le_bytes());
    }
    write::bin(out, &words[..bytes]);
}

/// The number in a payload, when every word of it is right.
#[inline]
pub(super) fn number_in(payload: View<'_>) -> Option<u32> {
    let mut reader = Reader::new(payload.bytes());
    let Value::Bin(len) = reader.head().ok()? else { return None };
    let bytes = reader.body(len).ok()?;
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    let number = u32::try_from(word(bytes.first_chunk::<8>()?)).ok()?;
    let product = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let right = (0_u64..)
        .zip(bytes.chunks_exact(8))
        .all(|(index, bytes)| word(bytes) == product.wrapping_mul(index) ^ u64::from(number));
    right.then_some(number)
}

/// Encodes a submission whose msgid is the task's number.
#[inline]
pub(super) fn push_submit(sender: &mut Sender, number: u32, bytes: usize, key: Option<&str>) {
    sender.push(number, "task.submit", |out| {
        write::map(out, if key.is_some() { 3 } else { 2 });
        write::str(out, "type");
        write::str(out, REMOTE_TYPE);
        write::str(out, "payload");
        write_payload(out, number, bytes);
        if let Some(key) = key {
            write::str(out, "key");
            write::str(out, key);
        }
    });
}

/// A task that a worker was given, borrowed from the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leased<'a> {
    /// Its id, as MessagePack text.
    pub id: View<'a>,
    /// The right to end this attempt, as it came.
    pub lease: View<'a>,
    /// What its payload says it is.
    pub number: u32,
}

impl<'a> Leased<'a> {
    #[inline]
    fn of(task: View<'a>) -> Option<Self> {
        let (mut id, mut lease, mut number) = (None, None, None);
        for (name, value) in task.fields() {
            match name {
                "id" => id = Some(value),
                "lease" => lease = Some(value),
                "payload" => number = number_in(value),
                _ => {}
            }
        }
        Some(Self { id: id?, lease: lease?, number: number? })
    }
}

/// What a worker hears.
#[derive(Debug)]
pub(super) enum News<'a> {
    /// It was given a task, and has already said that the task is done.
    Ran(Leased<'a>),
    /// The node took the end of the task of that number.
    Ended(u32),
    /// The node did not take an end: another attempt has the task.
    Stale,
    /// A fetch came back with nothing.
    Idle,
}

/// A remote worker: it runs every task at once, on one connection.
pub(super) struct Worker {
    sender: Sender,
    receiver: Receiver,
    /// Tasks of fetches that are to be worked on, so that a buffer serves for all.
    fetches: u32,
}

impl Worker {
    /// Connects, registers and asks for tasks.
    pub(super) fn connect(address: SocketAddr) -> Result<Self, ClientError> {
        let (sender, receiver) = connect(address, LIMIT)?;
        let mut worker = Self { sender, receiver, fetches: 0 };
        worker.sender.push(REGISTER, "worker.register", |out| {
            let types = |out: &mut Vec<u8>| {
                write::array(out, 1);
                write::str(out, REMOTE_TYPE);
            };
            let capacity = Some(CAPACITY);
            Params::new().with("types", types).uint_if("capacity", capacity).write(out);
        });
        worker.sender.flush()?;
        // Requests of one connection run side by side: a fetch that overtakes is refused.
        worker.registered()?;
        for _ in 0..FETCHES {
            worker.fetch();
        }
        worker.sender.flush()?;
        Ok(worker)
    }

    fn registered(&mut self) -> Result<(), ClientError> {
        loop {
            if let Some(answer) = self.receiver.buffered()? {
                return answer.outcome.map(drop).map_err(|error| Refusal::of(error).into());
            }
            if !self.receiver.fill(LIMIT)? {
                return Err(ClientError::TimedOut(LIMIT));
            }
        }
    }

    fn fetch(&mut self) {
        self.fetches = (self.fetches + 1) % (FETCH_BIT - 1);
        push_fetch(&mut self.sender, FETCH_BIT | self.fetches);
    }

    /// Reads once for at most `limit`, ends every task that came, and tells `hear` of everything.
    ///
    /// # Errors
    /// When the connection is lost, or the node refuses what a worker may ask.
    pub(super) fn turn(
        &mut self,
        limit: Duration,
        mut hear: impl FnMut(News<'_>),
    ) -> Result<(), ClientError> {
        self.receiver.fill(limit)?;
        let mut fetches = 0;
        while let Some(Answer { msgid, outcome }) = self.receiver.buffered()? {
            match (msgid, outcome) {
                (Some(msgid), Ok(answer)) if msgid & FETCH_BIT != 0 => {
                    fetches += 1;
                    let mut idle = true;
                    for task in answer.get("tasks").into_iter().flat_map(View::items) {
                        let leased = Leased::of(task)
                            .ok_or(ClientError::Garbled("a task lacks id, lease or payload"))?;
                        idle = false;
                        hear(News::Ran(leased));
                        push_complete(&mut self.sender, &leased);
                    }
                    if idle {
                        hear(News::Idle);
                    }
                }
                (Some(number), Ok(_)) => hear(News::Ended(number)),
                (msgid, Err(error)) => match (msgid, Refusal::of(error)) {
                    (Some(number), refusal)
                        if number & FETCH_BIT == 0 && refusal.code == "stale_lease" =>
                    {
                        hear(News::Stale);
                    }
                    (_, refusal) => return Err(refusal.into()),
                },
                (None, Ok(_)) => return Err(ClientError::Garbled("an answer to nothing")),
            }
        }
        for _ in 0..fetches {
            self.fetch();
        }
        self.sender.flush()
    }
}

fn push_fetch(sender: &mut Sender, msgid: u32) {
    sender.push(msgid, "worker.fetch", |out| {
        write::map(out, 2);
        write::str(out, "max");
        write::uint(out, FETCH_TASKS);
        write::str(out, "wait_ms");
        write::uint(out, FETCH_WAIT_MS);
    });
}

#[inline]
fn push_complete(sender: &mut Sender, task: &Leased<'_>) {
    sender.push(task.number, "worker.complete", |out| {
        write::map(out, 3);
        write::str(out, "id");
        write::raw(out, task.id.bytes());
        write::str(out, "lease");
        write::raw(out, task.lease.bytes());
        write::str(out, "result");
        write::uint(out, task.number.into());
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fake::Node;
    use std::collections::BTreeSet;

    #[test]
    fn a_payload_tells_its_number_and_damage_shows() {
        for (number, bytes) in [(0, 32), (7, 256), (u32::MAX, 8)] {
            let mut payload = Vec::new();
            write_payload(&mut payload, number, bytes);
            assert_eq!(number_in(View::new(&payload)), Some(number));
            if let [.., last] = &mut payload[..] {
                *last ^= 1;
            }
            assert_eq!(number_in(View::new(&payload)), None);
        }
        assert_eq!(number_in(View::new(&[0xc4, 1, 0])), None);
    }

    #[test]
    fn a_worker_ends_what_it_is_given_and_hears_of_stale_leases() {
        let node = Node::start();
        let (mut sender, mut receiver) = connect(node.address(), LIMIT).unwrap();
        (0..300).for_each(|number| push_submit(&mut sender, number, 256, None));
        sender.flush().unwrap();
        let mut accepted = 0;
        while accepted < 300 {
            assert!(receiver.fill(LIMIT).unwrap());
            while let Some(answer) = receiver.buffered().unwrap() {
                answer.outcome.unwrap();
                accepted += 1;
            }
        }
        node.make_stale(5);
        let mut worker = Worker::connect(node.address()).unwrap();
        let (mut ran, mut ended, mut stale) = (BTreeSet::new(), BTreeSet::new(), 0);
        while ended.len() + stale < 300 {
            let hear = |news: News<'_>| match news {
                News::Ran(leased) => drop(ran.insert(leased.number)),
                News::Ended(number) => assert!(ended.insert(number), "{number} ended twice"),
                News::Stale => stale += 1,
                News::Idle => {}
            };
            worker.turn(LIMIT, hear).unwrap();
        }
        assert_eq!((ran.len(), ended.len(), ended.contains(&5)), (300, 299, false));
    }
}
