//! How other threads wake a parked core: an eventfd behind the parking handshake.

use super::{fs::Pipe, parking::Parking, sys};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

/// A core's doorbell, held by everyone who may have work for it.
#[derive(Clone, Debug)]
pub struct Doorbell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parking: Parking,
    event: File,
}

impl Doorbell {
    /// A bell for one core.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Inner { parking: Parking::default(), event: sys::eventfd()?.into() })))
    }

    /// The sleeper's and the publishers' handshake.
    pub fn parking(&self) -> &Parking {
        &self.0.parking
    }

    /// Wakes the core if it sleeps; call it after publishing.
    #[inline]
    pub fn ring_if_parked(&self) {
        if self.0.parking.bell_needed() {
            self.ring();
        }
    }

    /// Wakes the core whether it sleeps or not.
    #[cold]
    pub fn ring(&self) {
        // The only failure of this write is a counter at its limit, which also wakes the core.
        let _ = (&self.0.event).write_all(&1u64.to_ne_bytes());
    }

    /// Sleeps until the bell rings, for at most `limit`: how a thread without an executor parks. It
    /// belongs between [`Parking::prepare`] with a last look and [`Parking::awake`].
    ///
    /// # Errors
    /// The kernel refuses to wait, which it does not do to a descriptor that is open.
    pub fn wait(&self, limit: Option<Duration>) -> io::Result<()> {
        if sys::wait_readable(&self.0.event, limit)? { self.take_rings() } else { Ok(()) }
    }

    /// Takes every ring so far, after its descriptor was found readable; otherwise it waits for one.
    ///
    /// # Errors
    /// The kernel refuses to read, which it does not do to a descriptor that is open.
    pub fn take_rings(&self) -> io::Result<()> {
        (&self.0.event).read_exact(&mut [0; size_of::<u64>()])
    }

    /// Runs on the bell's own core for the core's whole life: calls `woken` after each ring, until
    /// it returns false.
    pub async fn listen(self, mut woken: impl FnMut() -> bool) -> io::Result<()> {
        let pipe = Pipe::new(OwnedFd::from(self.0.event.try_clone()?));
        loop {
            pipe.read(size_of::<u64>()).await?;
            if !woken() {
                return Ok(());
            }
        }
    }
}

impl AsFd for Doorbell {
    /// For a thread that waits for other descriptors too.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
