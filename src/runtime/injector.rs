//! The door for threads outside the runtime: a bounded queue into one core.

use super::doorbell::Doorbell;
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;

/// Many threads may hold clones; the core that owns it takes the requests out.
pub struct Injector<T> {
    queue: Arc<ArrayQueue<T>>,
    bell: Doorbell,
}

impl<T> Clone for Injector<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), bell: self.bell.clone() }
    }
}

impl<T> Injector<T> {
    /// A queue of at most `capacity` requests into the core that `bell` wakes.
    pub fn new(capacity: usize, bell: Doorbell) -> Self {
        Self { queue: Arc::new(ArrayQueue::new(capacity)), bell }
    }

    /// Hands a request to the core, or gives it back when the queue is full.
    pub fn push(&self, request: T) -> Result<(), T> {
        self.queue.push(request)?;
        self.bell.ring_if_parked();
        Ok(())
    }

    /// Takes the oldest request out.
    #[inline]
    pub fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Whether no request waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
