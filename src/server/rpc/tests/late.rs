//! A connection for which there is never time, polled by hand.

use super::{
    super::{connection::Connection, work},
    *,
};
use crate::{
    node::gateway::Gateway,
    server::{auth::Gate, testing::be_late, worker::WorkerSession},
};
use async_io::Async;
use std::{
    cell::Cell,
    io::Write,
    net::{TcpListener, TcpStream},
    task::{Context, Waker},
};

#[test]
fn one_answer_is_taken_each_time_and_all_are_in_the_end() {
    const CALLS: usize = 40;
    be_late();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let stream = Async::new(listener.accept().unwrap().0).unwrap();
    let node = Rc::new(TestNode::default());
    let session = Rc::new(WorkerSession::new(&LIMITS));
    let gate = Gate::new(None, node.known());
    let answered = Rc::new(Cell::new(0));
    let count = answered.clone();
    let start = move |work| {
        let (run, count) = (work::run(node.clone(), session.clone(), work), count.clone());
        async move {
            let answer = run.await;
            count.set(count.get() + 1);
            answer
        }
    };
    let mut connection = Connection::new(stream, LIMITS, TestEngine, gate, start);
    for call in 0..CALLS {
        client.write_all(&request(call as u32, "node.stats", "")).unwrap();
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while answered.get() < CALLS {
        assert!(std::time::Instant::now() < deadline, "{} of {CALLS} answers", answered.get());
        let before = answered.get();
        assert!(connection.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let more = answered.get() - before;
        assert!(more <= 1, "{more} answers were taken at once");
    }
}
