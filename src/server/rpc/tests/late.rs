//! A connection for which there is little time or none, polled by hand.

use super::{
    super::{
        connection::Connection,
        work::{self, Answer, Work},
    },
    *,
};
use crate::{
    node::gateway::Gateway,
    server::{Engine, Limits, auth::Gate, testing::be_late, worker::WorkerSession},
};
use async_io::Async;
use std::{
    cell::Cell,
    future::poll_fn,
    io::Write,
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

/// A connection that may have many calls under way, and its client.
fn connect<E: Engine, M: Fn(Work) -> F, F: Future<Output = Answer>>(
    engine: E,
    start: M,
) -> (Connection<Async<TcpStream>, E, M, F>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let stream = Async::new(listener.accept().unwrap().0).unwrap();
    let limits = Limits { max_in_flight: 1000, ..LIMITS };
    let gate = Gate::new(None, TestNode::default().known());
    (Connection::new(stream, limits, engine, gate, start), client)
}

fn ask(client: &mut TcpStream, calls: usize) {
    for call in 0..calls {
        client.write_all(&request(call as u32, "node.stats", "")).unwrap();
    }
}

fn is_in_time(began: Instant) -> bool {
    began.elapsed() < Duration::from_secs(20)
}

#[test]
fn one_answer_is_taken_each_time_and_all_are_in_the_end() {
    const CALLS: usize = 40;
    be_late();
    let node = Rc::new(TestNode::default());
    let session = Rc::new(WorkerSession::new(&LIMITS));
    let written = Rc::new(Cell::new(0));
    let count = written.clone();
    let start = move |work| {
        let (run, count) = (work::run(node.clone(), session.clone(), work), count.clone());
        async move {
            // Its end is not told at once.
            futures_lite::future::yield_now().await;
            let answer = run.await;
            count.set(count.get() + 1);
            answer
        }
    };
    let (mut connection, mut client) = connect(TestEngine, start);
    ask(&mut client, CALLS);
    let began = Instant::now();
    while written.get() < CALLS {
        assert!(is_in_time(began), "{} of {CALLS} answers", written.get());
        let before = written.get();
        assert!(connection.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let more = written.get() - before;
        assert!(more <= 1, "{more} answers were taken at once");
    }
}

/// Time that is over when so many futures were polled since the connection was.
#[derive(Clone)]
struct Polls(Rc<Cell<usize>>);

impl Engine for Polls {
    type Place = ();

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        TestEngine.sleep(duration)
    }

    fn poll_enter(&self, _: &Waker, _: bool, _: &mut Option<()>) -> Poll<bool> {
        self.0.set(0);
        Poll::Ready(false)
    }

    fn is_over(&self, _: bool) -> bool {
        self.0.get() >= 8
    }
}

#[test]
fn what_is_new_has_its_first_turn_where_the_clock_is_looked_at() {
    const CALLS: usize = 200;
    let (polls, begun) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (count, begins) = (polls.clone(), begun.clone());
    let start = move |_| {
        begins.set(begins.get() + 1);
        let count = count.clone();
        poll_fn(move |_| {
            count.set(count.get() + 1);
            Poll::Pending
        })
    };
    let (mut connection, mut client) = connect(Polls(polls.clone()), start);
    ask(&mut client, CALLS);
    let began = Instant::now();
    while begun.get() < CALLS {
        assert!(is_in_time(began), "{} of {CALLS} begun", begun.get());
        assert!(connection.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(polls.get() <= 40, "{} futures were polled at once", polls.get());
    }
}

struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn one_with_nothing_to_do_rests_when_it_had_its_late_turn() {
    be_late();
    let start = |_| poll_fn(|_| Poll::Pending);
    let (mut connection, _client) = connect(TestEngine, start);
    let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
    let waker = Waker::from(wakes.clone());
    for turn in ["put off", "late"] {
        assert!(connection.poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1, "{turn}");
    }
}
