//! Large results of one connection, few at a time.
//!
//! What a request asks for tells nothing of how much its answer will hold, and a thousand requests
//! may wait on one connection. Each brings a small result along; for a larger one it takes a turn
//! first, and keeps it until its answer is among the bytes that wait for the client.

use super::Limits;
use futures_channel::oneshot::{self, Sender};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

/// What bounds the results of a connection that are on their way to it.
#[derive(Debug)]
pub struct LargeResults {
    /// The longest result that needs no turn, bytes.
    small_bytes: usize,
    turns: Rc<Turns>,
}

impl LargeResults {
    /// Lets small results take as much as `write_buffer_bytes` together, and large ones too.
    pub fn new(limits: &Limits) -> Self {
        let large = limits.write_buffer_bytes / limits.max_payload_bytes.max(1);
        Self {
            small_bytes: limits.write_buffer_bytes / limits.max_in_flight.max(1),
            turns: Turns::new(large.max(1)),
        }
    }

    /// The longest result that needs no turn, bytes.
    pub fn small_bytes(&self) -> usize {
        self.small_bytes
    }

    /// Waits for a turn to read a large one.
    pub async fn turn(&self) -> Turn {
        Turns::take(self.turns.clone()).await
    }
}

/// For a door with one request at a time: every result comes at once.
impl Default for LargeResults {
    fn default() -> Self {
        Self { small_bytes: usize::MAX, turns: Turns::new(1) }
    }
}

#[derive(Debug)]
struct Turns {
    free: Cell<usize>,
    /// Whoever came first is first.
    waiting: RefCell<VecDeque<Sender<Turn>>>,
}

impl Turns {
    fn new(count: usize) -> Rc<Self> {
        Rc::new(Self { free: Cell::new(count), waiting: RefCell::default() })
    }

    async fn take(this: Rc<Self>) -> Turn {
        if let Some(left) = this.free.get().checked_sub(1) {
            this.free.set(left);
            return Turn(this);
        }
        let (sender, turn) = oneshot::channel();
        this.waiting.borrow_mut().push_back(sender);
        turn.await.expect("who waits is told or gone")
    }
}

/// The right to hold one large result; dropping it gives it to who waits.
#[derive(Debug)]
pub struct Turn(Rc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        loop {
            let Some(next) = self.0.waiting.borrow_mut().pop_front() else { break };
            if next.is_canceled() {
                continue;
            }
            // One that goes away with its turn gives it back likewise.
            drop(next.send(Self(self.0.clone())));
            return;
        }
        self.0.free.set(self.0.free.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};
    use std::pin::pin;

    #[test]
    fn turns_go_round_in_order_and_none_is_lost() {
        let turns = Turns::new(2);
        let take = || Turns::take(turns.clone());
        block_on(async {
            let (first, second) = (take().await, take().await);
            let mut gone = Box::pin(take());
            let (mut third, mut fourth) = (pin!(take()), pin!(take()));
            assert!(poll_once(&mut gone).await.is_none());
            assert!(poll_once(&mut third).await.is_none());
            assert!(poll_once(&mut fourth).await.is_none());
            drop(gone);
            drop(first);
            assert!(poll_once(&mut fourth).await.is_none(), "the third was first");
            let third = poll_once(&mut third).await.expect("it is its turn");
            // Given to one that goes away before it looks.
            let mut late = Box::pin(take());
            assert!(poll_once(&mut late).await.is_none());
            drop(second);
            drop(third);
            drop(late);
            drop(poll_once(&mut fourth).await.expect("it is its turn"));
            assert_eq!((turns.free.get(), turns.waiting.borrow().len()), (2, 0));
        });
    }
}
