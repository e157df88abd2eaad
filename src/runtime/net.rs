//! TCP listeners and streams on this core.

use super::sys;
pub use glommio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::SocketAddr, os::fd::OwnedFd};

/// Connections that the kernel keeps for a listener until they are accepted.
const BACKLOG: libc::c_int = 1024;

/// Bytes that the kernel takes in for a connection from this machine before they are read, which it counts
/// twice: about as many as it sends at once.
const LOCAL_RECEIVE_BUFFER: libc::c_int = 64 << 10;

/// A connection on its way from the core that accepted it to another.
#[derive(Debug)]
pub struct Moving(OwnedFd);

impl Moving {
    /// Takes a connection from this core. Bytes that were read from it stay with whoever read them; the
    /// engine has none, since it waits until a socket is ready and reads then.
    ///
    /// # Errors
    /// The process may have no further descriptor.
    pub fn from_core(stream: TcpStream) -> io::Result<Self> {
        sys::duplicate(&stream).map(Self)
    }

    /// Gives it to this core.
    pub fn to_core(self) -> TcpStream {
        sys::engine_stream(self.0)
    }
}

/// Connects to an address, with small writes sent at once.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await.map_err(io::Error::from)?;
    sys::set_socket_option(&stream, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    Ok(stream)
}

/// Lets a connection end when the other side's kernel acknowledges nothing for so long.
///
/// # Errors
/// The system refuses it.
pub fn limit_unacknowledged(stream: &TcpStream, limit_ms: i32) -> io::Result<()> {
    sys::set_socket_option(stream, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, limit_ms)
}

/// A listener that every core opens for itself; the kernel spreads connections over them.
pub struct Listener(glommio::net::TcpListener);

impl Listener {
    /// Listens on `address`; several cores may listen on the same one.
    ///
    /// The engine would let the kernel refuse an address for as long as it remembers connections
    /// that a process before this one closed, about a minute: such an address may be used again.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self(sys::engine_listener(socket.into())))
    }

    /// Where it listens: tells the port when the system chose it.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr().map_err(io::Error::from)
    }

    /// The next connection, with small writes sent at once.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        let stream = self.0.accept().await.map_err(io::Error::from)?;
        sys::set_socket_option(&stream, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        if stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback()) {
            // Where both ends are here, whoever reads does the kernel's work of sending all that has room
            // again, megabytes where the kernel chooses the room: half a millisecond of this core.
            sys::set_socket_option(
                &stream,
                libc::SOL_SOCKET,
                libc::SO_RCVBUF,
                LOCAL_RECEIVE_BUFFER,
            )?;
        }
        Ok(stream)
    }
}
