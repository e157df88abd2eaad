//! The ways between nodes, where something can be done to what travels: each direction of each way
//! by itself.

use crate::network::{MIDDLE, NODES, address};
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::Duration,
};

/// The port for peers of each node.
pub const PEERS_PORT: u16 = 7452;
/// Ports of the ways in the middle.
const FIRST_PORT: u16 = 20_000;
/// Bytes that travel at a time.
const PIECE_BYTES: usize = 16 << 10;

/// What is done to what travels in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Way {
    /// Nothing arrives.
    pub is_blocked: bool,
    /// What each piece waits for, from and to.
    pub delay_ms: (u64, u64),
    /// Pieces of a hundred that are lost and sent once more after a while, as a TCP does.
    pub lost_pct: u64,
    /// Pieces of a thousand with which the connection breaks.
    pub breaks_permille: u64,
}

/// How long a lost piece takes until it is sent once more, from and to.
const AGAIN_MS: (u64, u64) = (200, 400);

#[derive(Default)]
struct State {
    /// By sender and receiver.
    ways: [[Way; NODES as usize + 1]; NODES as usize + 1],
}

/// All ways between the nodes.
#[derive(Clone, Default)]
pub struct Ways(Arc<(Mutex<State>, Condvar)>);

impl Ways {
    /// Begins to take connections, for every pair of nodes in both directions.
    pub fn open() -> Self {
        let ways = Self::default();
        for from in 1..=NODES {
            for to in (1..=NODES).filter(|to| *to != from) {
                let listener = TcpListener::bind(at(from, to)).expect("the middle has the port");
                let ways = ways.clone();
                thread::spawn(move || ways.accept(&listener, from, to));
            }
        }
        ways
    }

    /// Changes what is done to what travels from one node to another.
    pub fn set(&self, from: u64, to: u64, way: Way) {
        self.state().ways[from as usize][to as usize] = way;
        self.0.1.notify_all();
    }

    /// The same for all ways.
    pub fn set_all(&self, way: Way) {
        self.state().ways = [[way; NODES as usize + 1]; NODES as usize + 1];
        self.0.1.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().expect("no thread of a way panics")
    }

    fn accept(&self, listener: &TcpListener, from: u64, to: u64) {
        let target = format!("{}:{PEERS_PORT}", address(to)).parse().expect("it is an address");
        for incoming in listener.incoming().flatten() {
            let ways = self.clone();
            // One that nobody takes is closed, and dialled again.
            thread::spawn(move || ways.serve(&incoming, target, from, to));
        }
    }

    fn serve(&self, near: &TcpStream, target: SocketAddr, from: u64, to: u64) {
        let connect = || {
            let far = TcpStream::connect_timeout(&target, Duration::from_secs(1))?;
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            Ok::<_, std::io::Error>(far)
        };
        let Ok(far) = connect() else { return };
        thread::scope(|scope| {
            scope.spawn(|| self.forward(near, &far, from, to));
            self.forward(&far, near, to, from);
        });
    }

    /// Moves bytes in one direction until an end closes.
    fn forward(&self, mut source: &TcpStream, mut target: &TcpStream, from: u64, to: u64) {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(bytes @ 1..) = source.read(&mut piece) {
            let way = self.when_open(from, to);
            if fastrand::u64(..1000) < way.breaks_permille {
                break;
            }
            let mut pause_ms = fastrand::u64(way.delay_ms.0..=way.delay_ms.1);
            if fastrand::u64(..100) < way.lost_pct {
                pause_ms += fastrand::u64(AGAIN_MS.0..=AGAIN_MS.1);
            }
            thread::sleep(Duration::from_millis(pause_ms));
            self.when_open(from, to);
            if target.write_all(&piece[..bytes]).is_err() {
                break;
            }
        }
        for stream in [source, target] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Waits until the way is open. A connection that both ends gave up meanwhile is noticed then.
    fn when_open(&self, from: u64, to: u64) -> Way {
        let way = |state: &State| state.ways[from as usize][to as usize];
        let state = self.0.1.wait_while(self.state(), |state| way(state).is_blocked);
        way(&state.expect("no thread of a way panics"))
    }
}

/// Where the way from one node to another begins.
pub fn at(from: u64, to: u64) -> SocketAddr {
    let port = FIRST_PORT + (from * 10 + to) as u16;
    format!("{MIDDLE}:{port}").parse().expect("it is an address")
}
