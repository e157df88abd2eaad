//! A core's connection to another node: dialled when something is to be sent, kept open, dialled
//! again when it was lost.

use super::channel::{Answered, Bounds, Channel, Request};
use crate::{
    consensus::{
        cluster::Cluster,
        peers::{NodeId, proof::Challenge},
    },
    node::greeting::Credentials,
    runtime::{executor, net},
    wire::api::Error,
};
use futures_lite::{AsyncRead, AsyncWrite};
use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// How long a connection may take to be made, and then the other side to prove itself.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// The pause before a node that could not be reached is dialled again, the first time.
const BACKOFF: Duration = Duration::from_millis(20);
/// And at most.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Time between two looks for requests whose time is up.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes that one read takes.
const READ_BYTES: usize = 64 << 10;
/// How long the other node may acknowledge nothing of what was sent, milliseconds: it is gone then,
/// though nobody says so.
const UNACKNOWLEDGED_MS: i32 = 15_000;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The node.
    pub node: NodeId,
    /// Where it takes requests.
    pub address: SocketAddr,
}

/// The connection.
pub struct Link {
    target: Target,
    cluster: Arc<Cluster>,
    state: RefCell<State>,
}

struct State {
    channel: Channel,
    /// Wakes what drives the connection.
    waker: Option<Waker>,
    is_driven: bool,
    /// When it may be dialled again, and the pause before that.
    closed: Option<(Instant, Duration)>,
}

impl Link {
    /// A connection that is not dialled yet.
    pub fn new(
        target: Target,
        bounds: Bounds,
        credentials: Credentials,
        cluster: Arc<Cluster>,
    ) -> Rc<Self> {
        let channel = Channel::new(bounds, credentials);
        let state = State { channel, waker: None, is_driven: false, closed: None };
        Rc::new(Self { target, cluster, state: RefCell::new(state) })
    }

    /// Who is at the other end.
    pub fn target(&self) -> Target {
        self.target
    }

    /// Sends a request and waits for its answer.
    pub async fn call(self: &Rc<Self>, what: &Request<'_>) -> Answered {
        let answered = {
            let mut state = self.state.borrow_mut();
            let now = Instant::now();
            if !state.is_driven && state.closed.is_some_and(|(until, _)| now < until) {
                return Err(self.unreachable("it could not be reached a moment ago"));
            }
            let answered = state.channel.push(now, what)?;
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
            if !std::mem::replace(&mut state.is_driven, true) {
                executor::spawn(self.clone().run());
            }
            answered
        };
        let gone = |_| Err(Error::Uncertain("the node has stopped".into()));
        answered.await.unwrap_or_else(gone)
    }

    fn unreachable(&self, why: &str) -> Error {
        let Target { node, address } = self.target;
        Error::Unavailable(format!("node {node} at {address}: {why}; nothing was done"))
    }

    /// Makes the connection and drives it until it ends.
    async fn run(self: Rc<Self>) {
        let Target { node, address } = self.target;
        let dialled = async {
            let stream = net::connect(address).await?;
            net::limit_unacknowledged(&stream, UNACKNOWLEDGED_MS)?;
            let challenge = Challenge::random().map_err(io::Error::other)?;
            self.state.borrow_mut().channel.greet(challenge);
            io::Result::Ok(stream)
        };
        let (why, was_there) = match executor::timeout(CONNECT_LIMIT, dialled).await {
            Some(Ok(stream)) => {
                let why = self.drive(stream).await.to_string();
                // Who takes connections and is not believed is as good as away.
                (why, self.state.borrow().channel.is_open())
            }
            Some(Err(error)) => (error.to_string(), false),
            None => ("it does not take a connection".to_owned(), false),
        };
        let mut state = self.state.borrow_mut();
        state.is_driven = false;
        state.waker = None;
        let pause = match state.closed {
            Some((_, before)) if !was_there => (before * 2).min(BACKOFF_MAX),
            _ => BACKOFF,
        };
        state.closed = Some((Instant::now() + pause, pause));
        // A node that is away for long would fill the log of messages.
        if pause == BACKOFF && !state.channel.is_idle() {
            tracing::warn!(node, %address, why, "requests to another node were cut off");
        }
        state.channel.lost(&format!("node {node} at {address}: {why}"));
    }

    /// Moves bytes both ways until the connection ends; tells why.
    async fn drive<S>(&self, mut stream: S) -> io::Error
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut buffer = vec![0; READ_BYTES];
        let mut look = pin!(executor::sleep(LOOK));
        let begun = Instant::now();
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            state.waker = Some(cx.waker().clone());
            while look.as_mut().poll(cx).is_ready() {
                look.set(executor::sleep(LOOK));
                if !state.channel.is_open() && begun.elapsed() >= CONNECT_LIMIT {
                    let mute = "it does not prove in time that it knows the cluster's secret";
                    return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, mute));
                }
                let leads = Some(self.target.node);
                let is_led = |partition| self.cluster.leaders.of(partition) == leads;
                if state.channel.expire(Instant::now(), is_led) {
                    let silent = "it answers nothing";
                    return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, silent));
                }
            }
            match pump(&mut state.channel, &mut stream, &mut buffer, cx) {
                Ok(true) => {
                    // One round, then the executor's turn: a busy link must not hold its core.
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Ok(false) => Poll::Pending,
                Err(error) => Poll::Ready(error),
            }
        })
        .await
    }
}

/// Writes once and reads once; whether anything moved.
///
/// # Errors
/// Of the connection; [`io::ErrorKind::InvalidData`] when what came is not what a node of the cluster says.
pub fn pump<S>(
    channel: &mut Channel,
    stream: &mut S,
    buffer: &mut [u8],
    cx: &mut Context<'_>,
) -> io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut moved = false;
    if !channel.to_write().is_empty()
        && let Poll::Ready(wrote) = Pin::new(&mut *stream).poll_write(cx, channel.to_write())
    {
        match wrote? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            len => channel.wrote(len),
        }
        moved = true;
    }
    if let Poll::Ready(read) = Pin::new(stream).poll_read(cx, buffer) {
        match read? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up")),
            len => {
                let received = channel.received(Instant::now(), &buffer[..len]);
                received.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
            }
        }
        moved = true;
    }
    Ok(moved)
}
