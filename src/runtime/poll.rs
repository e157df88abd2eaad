//! Waiting for many descriptors at once, for a thread without an executor.
//!
//! Readiness is asked for anew each time, so nothing has to be registered, and nothing that was
//! left unread is forgotten. A node has few links, which makes this cheap.

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
};
use std::{io, os::fd::BorrowedFd, time::Duration};

/// What is waited for on a descriptor, or what it is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// A read returns at once.
    pub readable: bool,
    /// A write returns at once.
    pub writable: bool,
}

impl Ready {
    /// Something to read.
    pub const READABLE: Self = Self { readable: true, writable: false };
    /// Room to write.
    pub const WRITABLE: Self = Self { readable: false, writable: true };

    fn flags(self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.readable);
        flags.set(PollFlags::OUT, self.writable);
        flags
    }

    /// A descriptor that failed is ready for everything: the next call on it tells the error.
    fn from_flags(flags: PollFlags) -> Self {
        let failed = flags.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
        Self {
            readable: failed || flags.contains(PollFlags::IN),
            writable: failed || flags.contains(PollFlags::OUT),
        }
    }

    /// Whether it is ready for anything.
    pub fn any(self) -> bool {
        self.readable || self.writable
    }
}

/// Sleeps until a descriptor is ready for what is wanted of it, for at most `limit`. The answers
/// are in the order of the questions; a signal ends the sleep with none ready.
///
/// # Errors
/// The kernel has no memory for the call.
pub fn poll(wanted: &[(BorrowedFd<'_>, Ready)], limit: Option<Duration>) -> io::Result<Vec<Ready>> {
    let entry = |(fd, ready): &(_, Ready)| PollFd::from_borrowed_fd(*fd, ready.flags());
    let mut entries: Vec<_> = wanted.iter().map(entry).collect();
    // A limit that the kernel's time cannot hold is none.
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match rustix::event::poll(&mut entries, limit.as_ref()) {
        Ok(_) => Ok(entries.iter().map(|entry| Ready::from_flags(entry.revents())).collect()),
        Err(Errno::INTR) => Ok(vec![Ready::default(); wanted.len()]),
        Err(error) => Err(error.into()),
    }
}
