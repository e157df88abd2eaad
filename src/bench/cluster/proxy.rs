//! The ways between nodes, which can be closed: what travels on a closed way waits, as in a network
//! that has parted, until it is open again.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// Bytes that travel at a time.
const PIECE_BYTES: usize = 64 << 10;
/// How long a node may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// All ways. Their threads live as long as the process.
#[derive(Clone, Default)]
pub struct Ways(Arc<State>);

#[derive(Default)]
struct State {
    /// Those that are closed, by sender and receiver.
    closed: Mutex<BTreeSet<(u64, u64)>>,
    opened: Condvar,
}

/// Another host of the loopback: on that of the nodes a way could take a port that one of them is still
/// to listen on.
fn beside(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(host) if host.is_loopback() => {
            let [a, b, c, d] = host.octets();
            Ipv4Addr::new(a, b, c, if d == 254 { 1 } else { d + 1 }).into()
        }
        host => host,
    }
}

impl Ways {
    /// A way from one node to another one that listens at `target`; tells where it begins.
    ///
    /// # Errors
    /// When the system has no port for it.
    pub fn open(&self, from: u64, to: u64, target: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((beside(target.ip()), 0))?;
        let address = listener.local_addr()?;
        let ways = self.clone();
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let ways = ways.clone();
                // A connection that nobody takes is closed, and dialled again.
                thread::spawn(move || ways.serve(&near, target, from, to));
            }
        });
        Ok(address)
    }

    /// Closes the ways between the nodes of two groups, in both directions.
    pub fn part(&self, left: &[u64], right: &[u64]) {
        let pairs = left.iter().flat_map(|from| right.iter().map(move |to| (*from, *to)));
        let mut closed = self.0.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.extend(pairs.flat_map(|(from, to)| [(from, to), (to, from)]));
    }

    /// Opens all ways.
    pub fn join(&self) {
        self.0.closed.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.0.opened.notify_all();
    }

    fn serve(&self, near: &TcpStream, target: SocketAddr, from: u64, to: u64) {
        let Ok(far) = TcpStream::connect_timeout(&target, CONNECT_LIMIT) else { return };
        // Without it messages are only slower.
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        thread::scope(|scope| {
            scope.spawn(|| self.forward(near, &far, (from, to)));
            self.forward(&far, near, (to, from));
        });
    }

    /// Moves bytes in one direction until an end closes.
    fn forward(&self, mut source: &TcpStream, mut target: &TcpStream, way: (u64, u64)) {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(bytes @ 1..) = source.read(&mut piece) {
            let closed = self.0.closed.lock().unwrap_or_else(PoisonError::into_inner);
            let open = self.0.opened.wait_while(closed, |closed| closed.contains(&way));
            drop(open);
            if target.write_all(&piece[..bytes]).is_err() {
                break;
            }
        }
        for stream in [source, target] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_travels_on_a_closed_way_waits_until_it_is_open() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let ways = Ways::default();
        let begin = ways.open(1, 2, server.local_addr().unwrap()).unwrap();
        let mut near = TcpStream::connect(begin).unwrap();
        let (mut far, _) = server.accept().unwrap();
        let mut bytes = [0; 3];
        near.write_all(b"one").unwrap();
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"one");
        ways.part(&[2], &[1, 3]);
        near.write_all(b"two").unwrap();
        far.write_all(b"way").unwrap();
        for end in [&near, &far] {
            end.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        }
        assert!(far.read(&mut bytes).is_err() && near.read(&mut bytes).is_err());
        ways.join();
        for end in [&near, &far] {
            end.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        }
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"two");
        near.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"way");
    }
}
