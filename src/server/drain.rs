//! The signal that ends connections gracefully.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Tells the connections of a core to finish what is in flight, take nothing new, and close.
#[derive(Debug, Default)]
pub struct Drain {
    begun: Cell<bool>,
    next_listener: Cell<u64>,
    wakers: RefCell<BTreeMap<u64, Waker>>,
}

impl Drain {
    /// A signal that was not given yet.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// Gives the signal; it cannot be taken back.
    pub fn begin(&self) {
        self.begun.set(true);
        std::mem::take(&mut *self.wakers.borrow_mut()).into_values().for_each(Waker::wake);
    }

    /// Whether the signal was given.
    pub fn has_begun(&self) -> bool {
        self.begun.get()
    }

    /// Ends when the signal is given.
    pub fn begun(self: &Rc<Self>) -> Begun {
        let listener = self.next_listener.get();
        self.next_listener.set(listener + 1);
        Begun { drain: self.clone(), listener }
    }
}

/// The future of [`Drain::begun`].
#[derive(Debug)]
pub struct Begun {
    drain: Rc<Drain>,
    listener: u64,
}

impl Future for Begun {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.drain.has_begun() {
            return Poll::Ready(());
        }
        let mut wakers = self.drain.wakers.borrow_mut();
        wakers.entry(self.listener).or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
        Poll::Pending
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.drain.wakers.borrow_mut().remove(&self.listener);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn every_listener_hears_the_signal_and_leaves_nothing_behind() {
        let drain = Drain::new();
        let (mut early, dropped) = (drain.begun(), drain.begun());
        block_on(async {
            assert!(poll_once(&mut early).await.is_none());
            drop(dropped);
            drain.begin();
            assert!(poll_once(&mut early).await.is_some());
            drain.begun().await;
        });
        assert!(drain.wakers.borrow().is_empty());
    }
}
