//! Listeners: accepts connections on a core and serves each by its protocol until the doors close.

use super::{
    Drain, Engine, Limits,
    http::{self, Site},
    rpc,
};
use crate::{
    node::local::LocalGateway,
    runtime::{
        executor,
        net::{Listener, TcpStream},
    },
    shard::run::Door,
    wire::api::NodeStats,
};
use std::{
    cell::Cell,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How long a core waits before it accepts again after the system refused it a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Where a node listens, and what its connections may cost.
#[derive(Clone, Debug)]
pub struct Listen {
    /// MessagePack-RPC.
    pub rpc: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
    /// Connections that one core serves.
    pub max_connections: usize,
    /// What one connection may cost.
    pub limits: Limits,
    /// Writes the figures of `/metrics`.
    pub metrics: fn(&NodeStats) -> String,
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
}

impl Listeners {
    /// Listeners that are not open yet.
    pub fn new(listen: Listen) -> Self {
        Self { listen, chosen: Arc::default() }
    }

    /// Where they listen; `None` before the first core opened them.
    pub fn addresses(&self) -> Option<Addresses> {
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
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
                let Listen { rpc, http, .. } = self.listen;
                check_free("server.rpc_address", rpc)?;
                check_free("server.http_address", http)?;
                Addresses { rpc, http }
            }
        };
        let rpc = bind("server.rpc_address", wanted.rpc)?;
        let http = bind("server.http_address", wanted.http)?;
        *chosen = Some(Addresses { rpc: rpc.address()?, http: http.address()? });
        let doors = Rc::new(Doors { drain: Drain::new(), guests: Cell::new(0) });
        gateway.add_door(doors.clone());
        let listen = &self.listen;
        let (limits, drain) = (listen.limits, doors.drain.clone());
        let speaker = gateway.clone();
        let serve =
            move |stream| rpc::serve_rpc(stream, speaker.clone(), limits, CoreTime, drain.clone());
        executor::spawn(accept(rpc, doors.clone(), listen.max_connections, serve));
        let site = Site { loopback: listen.http.ip().is_loopback(), metrics: listen.metrics };
        let (drain, speaker) = (doors.drain.clone(), gateway.clone());
        let serve = move |stream| {
            http::serve_http(stream, speaker.clone(), limits, CoreTime, drain.clone(), site)
        };
        executor::spawn(accept(http, doors, listen.max_connections, serve));
        Ok(())
    }
}

/// Cores share an address, and so would another process of the same user: that one is told apart
/// by binding the address alone first.
fn check_free(key: &str, address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address).map(drop).map_err(|error| explain(key, address, error))
}

fn bind(key: &str, address: SocketAddr) -> io::Result<Listener> {
    Listener::bind(address).map_err(|error| explain(key, address, error))
}

fn explain(key: &str, address: SocketAddr, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {address} ({key}): {error}"))
}

/// The doors of one core.
struct Doors {
    drain: Rc<Drain>,
    /// Listeners and connections that are open.
    guests: Cell<usize>,
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

/// Accepts connections until the doors close.
async fn accept<S, F>(listener: Listener, doors: Rc<Doors>, max_connections: usize, serve: S)
where
    S: Fn(TcpStream) -> F,
    F: Future<Output = ()> + 'static,
{
    let _guest = Guest::new(&doors);
    loop {
        let next = futures_lite::future::or(
            async {
                doors.drain.begun().await;
                None
            },
            async { Some(listener.accept().await) },
        );
        match next.await {
            None => return,
            // Two of the guests are the listeners.
            Some(Ok(_)) if doors.guests.get() >= max_connections + 2 => {
                tracing::warn!(max_connections, "a connection was closed: there are too many");
            }
            Some(Ok(stream)) => {
                let guest = Guest::new(&doors);
                let connection = serve(stream);
                executor::spawn(async move {
                    connection.await;
                    drop(guest);
                });
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "a connection could not be accepted");
                executor::sleep(PAUSE).await;
            }
        }
    }
}

/// Time on a core.
#[derive(Clone, Copy, Debug)]
pub struct CoreTime;

impl Engine for CoreTime {
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        executor::sleep(duration)
    }
}
