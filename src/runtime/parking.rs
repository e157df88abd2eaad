//! The handshake between a core that goes to sleep and the cores that have work for it.
//!
//! The invariant: work that was published before [`Parking::bell_needed`] is either seen by the
//! sleeper's last look after [`Parking::prepare`], or the publisher rings. Both sides write, then
//! fence, then read the other's write, so at least one of them sees it (Dekker's argument; checked
//! under loom).

use super::sync::{AtomicBool, Ordering, fence};

/// Whether a core sleeps, or is about to.
#[derive(Debug)]
pub struct Parking {
    parked: AtomicBool,
}

impl Default for Parking {
    fn default() -> Self {
        Self { parked: AtomicBool::new(false) }
    }
}

impl Parking {
    /// The sleeper announces itself; it must look for work once more before it sleeps.
    pub fn prepare(&self) {
        self.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The sleeper is awake, or found work at its last look.
    pub fn awake(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// Called by a publisher after it published: true for the one that must ring the bell.
    #[inline]
    pub fn bell_needed(&self) -> bool {
        fence(Ordering::SeqCst);
        // The plain load keeps the line shared while the sleeper is awake; only the swap of the
        // one that found it asleep takes it.
        self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::AcqRel)
    }
}
