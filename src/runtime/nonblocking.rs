//! TCP for a thread without an executor: sockets of which no call waits.

use rustix::{
    io::Errno,
    net::{self, AddressFamily, SocketFlags, SocketType, sockopt},
};
use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// Connections that the kernel keeps ready to be accepted.
const BACKLOG: i32 = 1024;

fn socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socket_with(family, SocketType::STREAM, flags, None)?)
}

/// Begins to connect: the stream is writable when that ended, and [`connected`] tells how.
///
/// # Errors
/// The kernel refuses at once, as it does for an address without a route.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(address)?;
    match net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a stream that became writable is connected.
///
/// # Errors
/// Why it is not.
pub fn connected(stream: &TcpStream) -> io::Result<()> {
    Ok(sockopt::socket_error(stream)??)
}

/// Sends small writes at once, and lets the kernel give up a connection on which nothing was
/// acknowledged for `silence`, whether or not something was written.
///
/// # Errors
/// The socket is none of TCP.
pub fn tune(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    sockopt::set_tcp_nodelay(stream, true)?;
    sockopt::set_tcp_user_timeout(stream, silence.as_millis().try_into().unwrap_or(u32::MAX))?;
    // Probes find a host that is gone while nothing is written; the kernel counts in seconds.
    let idle = Duration::from_secs(silence.as_secs().max(1));
    sockopt::set_tcp_keepidle(stream, idle)?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    sockopt::set_socket_keepalive(stream, true)?;
    Ok(())
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Listens on `address`, also when connections of a process that is gone still linger there.
    ///
    /// # Errors
    /// The address is taken, or not of this machine.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = socket(address)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        net::bind(&socket, &address)?;
        net::listen(&socket, BACKLOG)?;
        Ok(Self(socket.into()))
    }

    /// Where it listens: tells the port when the system chose it.
    ///
    /// # Errors
    /// The kernel does not say, which it does for a socket that is bound.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The next connection, and where it comes from; `None` when there is none.
    ///
    /// # Errors
    /// There are no descriptors or no memory left.
    pub fn accept(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        loop {
            match self.0.accept() {
                Ok((stream, address)) => {
                    stream.set_nonblocking(true)?;
                    return Ok(Some((stream, address)));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(None),
                    // Whoever connected has gone again.
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
