//! Receives whoever connects, until the handshake tells who it is.
//!
//! Each is told a challenge, over which the proof of its hello must be.
//!
//! A guest that says nothing holds a place for a bounded time. When all places are taken the one
//! that is silent longest has to go: a peer says its hello as soon as it has the challenge, so that
//! it is gone from here before thousands of strangers can push it out.

use super::{
    counters::DoorCounters,
    frame::{self, Decoder, Frame, Kind},
    hello::{Hello, Refusal},
    proof::Challenge,
    seldom::Seldom,
};
use crate::runtime::{nonblocking::Listener, poll::Ready};
use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
};

/// Connections without a handshake.
const GUESTS_MAX: usize = 32;
/// Connections that are accepted at a time; the thread has other things to do.
const ACCEPTED_MAX: usize = 32;
/// How long none is accepted after that failed, as it does without descriptors.
const PAUSE_MS: u64 = 100;

/// A descriptor of the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Listener,
    Guest(u64),
}

/// Somebody who said hello.
#[derive(Debug)]
pub struct Arrival {
    pub stream: TcpStream,
    pub from: SocketAddr,
    pub hello: Hello,
    /// What it was told before.
    pub challenge: Challenge,
    /// With what came behind the hello, if anything did.
    pub decoder: Decoder,
}

#[derive(Debug)]
struct Guest {
    number: u64,
    stream: TcpStream,
    from: SocketAddr,
    challenge: Challenge,
    decoder: Decoder,
    late_ms: u64,
}

/// What became of a guest.
enum Heard {
    Nothing,
    Hello(Hello),
    Gone,
    Refused(Refusal),
}

/// The listener and its guests.
#[derive(Debug)]
pub struct Door {
    listener: Listener,
    handshake_ms: u64,
    /// Those that have said no hello, in the order in which they came.
    guests: VecDeque<Guest>,
    next_number: u64,
    paused_until_ms: u64,
    counters: DoorCounters,
    refusals: [Seldom; Refusal::ALL.len()],
    failures: Seldom,
}

impl Door {
    pub fn new(listener: Listener, handshake_ms: u64) -> Self {
        Self {
            listener,
            handshake_ms,
            guests: VecDeque::new(),
            next_number: 0,
            paused_until_ms: 0,
            counters: DoorCounters::default(),
            refusals: Default::default(),
            failures: Seldom::default(),
        }
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.address()
    }

    pub fn counters(&self) -> &DoorCounters {
        &self.counters
    }

    /// What the door waits for.
    pub fn wanted(&self, now_ms: u64) -> impl Iterator<Item = (Place, BorrowedFd<'_>, Ready)> {
        let listener = (self.paused_until_ms <= now_ms)
            .then(|| (Place::Listener, self.listener.as_fd(), Ready::READABLE));
        let guests = self
            .guests
            .iter()
            .map(|guest| (Place::Guest(guest.number), guest.stream.as_fd(), Ready::READABLE));
        listener.into_iter().chain(guests)
    }

    /// When there is something to do though nothing is ready.
    pub fn next_ms(&self, now_ms: u64) -> Option<u64> {
        let paused = (self.paused_until_ms > now_ms).then_some(self.paused_until_ms);
        let late = self.guests.front().map(|guest| guest.late_ms);
        paused.into_iter().chain(late).min()
    }

    /// Something is ready; who said hello is appended to `arrivals`.
    pub fn receive(&mut self, place: Place, now_ms: u64, arrivals: &mut Vec<Arrival>) {
        match place {
            Place::Listener => self.accept(now_ms, arrivals),
            Place::Guest(number) => {
                let index = self.guests.iter().position(|guest| guest.number == number);
                if let Some(guest) = index.and_then(|index| self.guests.remove(index)) {
                    self.hear(guest, index.unwrap_or(0), now_ms, arrivals);
                }
            }
        }
    }

    fn accept(&mut self, now_ms: u64, arrivals: &mut Vec<Arrival>) {
        for _ in 0..ACCEPTED_MAX {
            let (stream, from) = match self.listener.accept() {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return,
                Err(error) => return self.pause(&error, now_ms),
            };
            self.counters.accepted += 1;
            let challenge = match challenge(&stream) {
                Ok(challenge) => challenge,
                Err(error) => return self.pause(&error, now_ms),
            };
            self.next_number += 1;
            let guest = Guest {
                number: self.next_number,
                stream,
                from,
                challenge,
                decoder: Decoder::of_hello(),
                late_ms: now_ms + self.handshake_ms,
            };
            self.hear(guest, self.guests.len(), now_ms, arrivals);
            if self.guests.len() > GUESTS_MAX
                && let Some(Guest { stream, from, .. }) = self.guests.pop_front()
            {
                self.refuse(stream, from, Refusal::Crowded, now_ms);
            }
        }
    }

    /// Accepts nobody for a while.
    fn pause(&mut self, error: &io::Error, now_ms: u64) {
        self.counters.failed += 1;
        self.paused_until_ms = now_ms + PAUSE_MS;
        if let Some(unsaid) = self.failures.say(now_ms) {
            tracing::warn!(%error, unsaid, "no connection of a node can be accepted");
        }
    }

    /// Hears what a guest says; one that has to say more stays at its place.
    fn hear(&mut self, mut guest: Guest, index: usize, now_ms: u64, arrivals: &mut Vec<Arrival>) {
        match guest.hear() {
            Heard::Nothing => self.guests.insert(index, guest),
            Heard::Gone => self.counters.gone += 1,
            Heard::Refused(why) => self.refuse(guest.stream, guest.from, why, now_ms),
            Heard::Hello(hello) => {
                let Guest { stream, from, challenge, decoder, .. } = guest;
                arrivals.push(Arrival { stream, from, hello, challenge, decoder });
            }
        }
    }

    /// Sends away who was silent for too long.
    pub fn turn(&mut self, now_ms: u64) {
        while self.guests.front().is_some_and(|guest| guest.late_ms <= now_ms)
            && let Some(guest) = self.guests.pop_front()
        {
            self.refuse(guest.stream, guest.from, Refusal::Late, now_ms);
        }
    }

    /// Tells somebody why, if that can be done at once, and closes the connection.
    pub fn refuse(&mut self, mut stream: TcpStream, from: SocketAddr, why: Refusal, now_ms: u64) {
        self.counters.refused[why.index()] += 1;
        let mut frame = Vec::new();
        frame::write_small(&mut frame, Kind::Refusal, &[why as u8]);
        // The first bytes of a connection find room in the kernel, or it is gone.
        let _ = stream.write(&frame);
        if let Some(unsaid) = self.refusals[why.index()].say(now_ms) {
            tracing::warn!(%from, unsaid, "a connection was refused: {why}");
        }
    }
}

/// Tells whoever connected a challenge. The first bytes of a connection find room in the kernel, or
/// it is gone.
fn challenge(mut stream: &TcpStream) -> io::Result<Challenge> {
    let challenge = Challenge::random()?;
    let mut frame = Vec::new();
    frame::write_small(&mut frame, Kind::Challenge, &challenge.0);
    let _ = stream.write(&frame);
    Ok(challenge)
}

impl Guest {
    fn hear(&mut self) -> Heard {
        loop {
            match self.stream.read(self.decoder.space()) {
                Ok(0) => return Heard::Gone,
                Ok(bytes) => self.decoder.filled(bytes),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Heard::Nothing,
                    io::ErrorKind::Interrupted => continue,
                    _ => return Heard::Gone,
                },
            }
            match self.decoder.next_frame() {
                Ok(None) => {}
                Ok(Some(Frame::Hello(hello))) => return Heard::Hello(hello),
                Ok(Some(_)) => return Heard::Refused(Refusal::NoHello),
                Err(error) => return Heard::Refused(error.into()),
            }
        }
    }
}
