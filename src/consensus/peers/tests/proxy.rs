//! A network between two nodes that delays, stops, cuts and corrupts when it is told to.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::Duration,
};

#[derive(Default)]
struct State {
    /// Nothing is forwarded.
    is_stopped: bool,
    /// The next bytes lose one bit.
    corrupts: bool,
    /// Bytes that are forwarded at a time; 0 for any.
    piece_bytes: usize,
    /// What each piece waits for.
    delay: Duration,
    is_over: bool,
    streams: Vec<TcpStream>,
    connections: usize,
}

#[derive(Clone, Default)]
struct Network(Arc<(Mutex<State>, Condvar)>);

impl Network {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().expect("no thread of the proxy panics")
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.1.notify_all();
    }

    /// Moves bytes one way until an end closes.
    fn forward(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let piece_bytes = match self.state().piece_bytes {
                0 => buffer.len(),
                bytes => bytes,
            };
            let bytes = match from.read(&mut buffer[..piece_bytes]) {
                Ok(0) | Err(_) => break,
                Ok(bytes) => bytes,
            };
            let mut state = self.state();
            if !state.delay.is_zero() {
                let delay = state.delay;
                state = self.0.1.wait_timeout(state, delay).expect("no panic").0;
            }
            while state.is_stopped && !state.is_over {
                state = self.0.1.wait(state).expect("no panic");
            }
            if std::mem::take(&mut state.corrupts) {
                buffer[bytes / 2] ^= 0x10;
            }
            drop(state);
            if to.write_all(&buffer[..bytes]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

/// Forwards what connects to `address` to another address.
pub struct Proxy {
    pub address: SocketAddr,
    network: Network,
    acceptor: Option<thread::JoinHandle<()>>,
}

impl Proxy {
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports");
        let address = listener.local_addr().expect("it is bound");
        let network = Network::default();
        let forwarding = network.clone();
        let acceptor = thread::spawn(move || {
            let mut threads = Vec::new();
            while let Ok((near, _)) = listener.accept() {
                if forwarding.state().is_over {
                    break;
                }
                let Ok(far) = TcpStream::connect(target) else { continue };
                let ends = [near, far];
                for end in &ends {
                    end.set_nodelay(true).expect("it is TCP");
                }
                let copies = || ends.each_ref().map(|end| end.try_clone().expect("descriptors"));
                let mut state = forwarding.state();
                state.connections += 1;
                state.streams = copies().into();
                drop(state);
                for [from, to] in [copies(), {
                    let [near, far] = copies();
                    [far, near]
                }] {
                    let network = forwarding.clone();
                    threads.push(thread::spawn(move || network.forward(from, to)));
                }
            }
            threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        });
        Self { address, network, acceptor: Some(acceptor) }
    }

    /// Connections that were forwarded.
    pub fn connections(&self) -> usize {
        self.network.state().connections
    }

    /// Ends the connection that there is; bytes on their way are lost.
    pub fn cut(&self) {
        self.network.change(|state| {
            for stream in state.streams.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }

    /// Keeps everything back, or lets it go again.
    pub fn stop(&self, is_stopped: bool) {
        self.network.change(|state| state.is_stopped = is_stopped);
    }

    /// Turns one bit of what comes next round.
    pub fn corrupt(&self) {
        self.network.change(|state| state.corrupts = true);
    }

    /// Forwards a few bytes at a time, each a while later.
    pub fn slow_down(&self, piece_bytes: usize, delay: Duration) {
        self.network.change(|state| (state.piece_bytes, state.delay) = (piece_bytes, delay));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.network.change(|state| state.is_over = true);
        self.cut();
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}
