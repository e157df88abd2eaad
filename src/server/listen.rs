//! Listeners: accepts connections on a core and serves each by its protocol until the doors close.

use super::{
    Drain, Engine, Limits,
    http::{self, RenderMetrics, Site},
    rpc,
};
use crate::{
    node::local::LocalGateway,
    runtime::{
        executor,
        net::{Listener, Moving, TcpStream},
        rounds::Place,
    },
    shard::run::Door,
    wire::secret::Secret,
};
use futures_channel::mpsc;
use futures_util::StreamExt;
use std::{
    cell::Cell,
    io::{self, ErrorKind::AddrInUse},
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
    thread,
    time::{Duration, Instant},
};

/// How long a core waits before it accepts again after the system refused it a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections on their way to a core; beyond them whoever accepts one keeps it.
const ARRIVALS_MAX: usize = 64;

/// How long an address may still be taken: the kernel closes what a killed process had in its
/// io_uring a moment after that process is gone.
const TAKEN_LIMIT: Duration = Duration::from_secs(1);
/// How often it is looked whether it is free.
const TAKEN_LOOK: Duration = Duration::from_millis(10);

/// Where a node listens, and what its connections may cost.
#[derive(Clone, Debug)]
pub struct Listen {
    /// MessagePack-RPC.
    pub rpc: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
    /// The keys of the configuration that say so, for errors.
    pub keys: Keys,
    /// What a client must say first.
    pub token: Option<Secret>,
    /// Connections that one core serves.
    pub max_connections: usize,
    /// What one connection may cost.
    pub limits: Limits,
    /// Writes the figures of `/metrics`.
    pub metrics: RenderMetrics,
}

/// Names of the keys with a node's addresses.
#[derive(Clone, Debug)]
pub struct Keys {
    /// That of MessagePack-RPC.
    pub rpc: String,
    /// That of HTTP.
    pub http: String,
}

/// Where a node listens in fact: ports that the system chose are known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// MessagePack-RPC.
    pub rpc: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
}

/// The listeners of a node: opened on each core, one after the other.
#[derive(Clone, Debug)]
pub struct Listeners {
    listen: Listen,
    chosen: Arc<Mutex<Option<Addresses>>>,
    roster: Roster,
}

impl Listeners {
    /// Listeners that are not open yet.
    pub fn new(listen: Listen) -> Self {
        Self { listen, chosen: Arc::default(), roster: Roster::default() }
    }

    /// Where they listen; `None` before the first core opened them.
    pub fn addresses(&self) -> Option<Addresses> {
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out whether the addresses can be listened on, before anything else is begun.
    ///
    /// # Errors
    /// As [`Listeners::open`].
    pub fn check(&self) -> io::Result<()> {
        check_free(&self.listen.keys.rpc, self.listen.rpc)?;
        check_free(&self.listen.keys.http, self.listen.http)
    }

    /// Opens the listeners of a core and serves what connects.
    ///
    /// # Errors
    /// An address is taken or not of this machine; the text names it.
    pub fn open(&self, gateway: &Rc<LocalGateway>) -> io::Result<()> {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = match *chosen {
            Some(addresses) => addresses,
            None => {
                // Another process may have come since the first look.
                self.check()?;
                let Listen { rpc, http, .. } = self.listen;
                Addresses { rpc, http }
            }
        };
        let rpc = bind(&self.listen.keys.rpc, wanted.rpc)?;
        let http = bind(&self.listen.keys.http, wanted.http)?;
        *chosen = Some(Addresses { rpc: rpc.address()?, http: http.address()? });
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let seat = self.roster.enter(sender);
        let doors = Rc::new(Doors {
            drain: Drain::new(),
            guests: Cell::new(0),
            gateway: gateway.clone(),
            listen: self.listen.clone(),
            roster: self.roster.clone(),
            seat,
        });
        gateway.add_door(doors.clone());
        executor::spawn(accept(rpc, Protocol::Rpc, doors.clone()));
        executor::spawn(accept(http, Protocol::Http, doors.clone()));
        executor::spawn(adopt(arrivals, doors));
        Ok(())
    }
}

/// Cores share an address, and so would another process of the same user: that one is told apart
/// by binding the address alone first.
fn check_free(key: &str, address: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + TAKEN_LIMIT;
    loop {
        match TcpListener::bind(address) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == AddrInUse && Instant::now() < deadline => {
                thread::sleep(TAKEN_LOOK);
            }
            Err(error) => return Err(explain(key, address, error)),
        }
    }
}

fn bind(key: &str, address: SocketAddr) -> io::Result<Listener> {
    Listener::bind(address).map_err(|error| explain(key, address, error))
}

fn explain(key: &str, address: SocketAddr, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {address} ({key}): {error}"))
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug)]
enum Protocol {
    Rpc,
    Http,
}

/// A core that serves connections, as the others see it.
#[derive(Debug)]
struct Seat {
    /// Connections that are open there or on their way there.
    connections: AtomicUsize,
    arrivals: mpsc::Sender<(Protocol, Moving)>,
}

impl Seat {
    fn join(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All cores that serve connections. The kernel deals connections out by a hash of their
/// addresses, so that of a few most can meet on one core: whoever accepts one hands it to a core
/// with fewer.
#[derive(Clone, Debug, Default)]
struct Roster(Arc<Mutex<Vec<Arc<Seat>>>>);

impl Roster {
    fn enter(&self, arrivals: mpsc::Sender<(Protocol, Moving)>) -> Arc<Seat> {
        let seat = Arc::new(Seat { connections: AtomicUsize::new(0), arrivals });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(seat.clone());
        seat
    }

    /// Counts one more connection for the core that has the fewest, `here` if it is one of them;
    /// `None` when no core may have another.
    fn place(&self, here: &Arc<Seat>, max_connections: usize) -> Option<Arc<Seat>> {
        let seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = |seat: &&Arc<Seat>| seat.connections.load(Ordering::Relaxed);
        let least = std::iter::once(here).chain(&*seats).min_by_key(connections)?;
        (connections(&least) < max_connections).then(|| {
            least.join();
            least.clone()
        })
    }
}

/// The doors of one core.
struct Doors {
    drain: Rc<Drain>,
    /// Listeners and connections that are open.
    guests: Cell<usize>,
    gateway: Rc<LocalGateway>,
    listen: Listen,
    roster: Roster,
    seat: Arc<Seat>,
}

impl Doors {
    /// Serves a connection that was counted for this core.
    fn serve(self: &Rc<Self>, protocol: Protocol, stream: TcpStream) {
        let guest = Guest::new(self);
        let counted = Counted(self.seat.clone());
        let (gateway, drain) = (self.gateway.clone(), self.drain.clone());
        let Listen { limits, metrics, http, ref token, .. } = self.listen;
        let token = token.clone();
        executor::spawn(async move {
            match protocol {
                Protocol::Rpc => {
                    let (node, doors) = (gateway.clone(), drain.clone());
                    let served = rpc::serve_rpc(stream, node, limits, CoreTime, doors, token);
                    if let Some((offer, stream)) = served.await {
                        gateway.serve_trunk(offer, stream, drain.begun()).await;
                    }
                }
                Protocol::Http => {
                    let site = Site { loopback: http.ip().is_loopback(), token, metrics };
                    http::serve_http(stream, gateway, limits, CoreTime, drain, site).await;
                }
            }
            drop((counted, guest));
        });
    }
}

impl Door for Doors {
    fn close(&self) {
        self.drain.begin();
    }

    fn is_closed(&self) -> bool {
        self.guests.get() == 0
    }
}

/// Counts a guest for as long as it lives.
struct Guest(Rc<Doors>);

impl Guest {
    fn new(doors: &Rc<Doors>) -> Self {
        doors.guests.set(doors.guests.get() + 1);
        Self(doors.clone())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.guests.set(self.0.guests.get() - 1);
    }
}

/// A connection that [`Roster::place`] counted, and that is open.
struct Counted(Arc<Seat>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Accepts connections until the doors close.
async fn accept(listener: Listener, protocol: Protocol, doors: Rc<Doors>) {
    let _guest = Guest::new(&doors);
    while let Some(accepted) = until_closed(&doors, listener.accept()).await {
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                executor::sleep(PAUSE).await;
                continue;
            }
        };
        let max_connections = doors.listen.max_connections;
        let Some(seat) = doors.roster.place(&doors.seat, max_connections) else {
            tracing::warn!(max_connections, "a connection was closed: there are too many");
            continue;
        };
        if Arc::ptr_eq(&seat, &doors.seat) {
            doors.serve(protocol, stream);
            continue;
        }
        let moved = Moving::from_core(stream).map(|moving| {
            let sent = seat.arrivals.clone().try_send((protocol, moving));
            sent.map_err(|unsent| unsent.into_inner().1)
        });
        match moved {
            Ok(Ok(())) => {}
            // That core ends, or is far behind.
            Ok(Err(moving)) => {
                seat.leave();
                doors.seat.join();
                doors.serve(protocol, moving.to_core());
            }
            Err(error) => {
                seat.leave();
                tracing::warn!(%error, "a connection could not be moved to another core");
            }
        }
    }
}

/// Serves the connections that other cores accepted, until the doors close.
async fn adopt(mut arrivals: mpsc::Receiver<(Protocol, Moving)>, doors: Rc<Doors>) {
    let _guest = Guest::new(&doors);
    while let Some(Some((protocol, moving))) = until_closed(&doors, arrivals.next()).await {
        doors.serve(protocol, moving.to_core());
    }
}

/// What comes before the doors close.
async fn until_closed<T>(doors: &Doors, next: impl Future<Output = T>) -> Option<T> {
    let closed = async {
        doors.drain.begun().await;
        None
    };
    futures_lite::future::or(closed, async { Some(next.await) }).await
}

/// Time on a core.
#[derive(Clone, Copy, Debug)]
pub struct CoreTime;

impl Engine for CoreTime {
    type Place = Place;

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        executor::sleep(duration)
    }

    fn again(&self, waker: &Waker, is_much: bool) {
        executor::again(waker, is_much);
    }

    fn poll_enter(&self, waker: &Waker, is_much: bool, place: &mut Option<Place>) -> Poll<bool> {
        executor::poll_enter(waker, is_much, place)
    }

    fn is_over(&self, is_much: bool) -> bool {
        executor::is_over(is_much)
    }

    fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + 'static {
        executor::aside(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_becomes_free_in_time_is_taken() {
        let before = TcpListener::bind("127.0.0.1:0").expect("the system has a port");
        let address = before.local_addr().expect("it listens");
        let leaves = thread::spawn(move || {
            thread::sleep(5 * TAKEN_LOOK);
            drop(before);
        });
        assert!(TcpListener::bind(address).is_err(), "it is taken at first");
        check_free("server.rpc_address", address).expect("it becomes free");
        leaves.join().expect("it does not panic");
    }

    #[test]
    fn an_address_that_stays_taken_is_named() {
        let other = TcpListener::bind("127.0.0.1:0").expect("the system has a port");
        let address = other.local_addr().expect("it listens");
        let error = check_free("server.rpc_address", address).expect_err("it is taken");
        assert_eq!(error.kind(), AddrInUse);
        let text = error.to_string();
        assert!(text.contains(&format!("{address} (server.rpc_address)")), "{text}");
    }
}
