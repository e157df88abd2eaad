//! A core's connection to another node: dialled when something is to be sent, kept open, dialled
//! again when it was lost.

use super::{
    backoff::{Backoff, Reached},
    channel::{Answered, Bounds, Channel, Request},
};
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
    backoff: Backoff,
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
        let state = State { channel, waker: None, is_driven: false, backoff: Backoff::default() };
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
            if !state.is_driven && !state.backoff.may_dial(now) {
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
        let (why, reached) = match executor::timeout(CONNECT_LIMIT, dialled).await {
            Some(Ok(stream)) => {
                let why = self.drive(stream).await;
                let reached = match why.kind() {
                    _ if self.state.borrow().channel.is_open() => Reached::Node,
                    io::ErrorKind::InvalidData | io::ErrorKind::TimedOut => Reached::Stranger,
                    // It may have been the node, which was ended meanwhile.
                    _ => Reached::Nobody,
                };
                (why.to_string(), reached)
            }
            Some(Err(error)) => (error.to_string(), Reached::Nobody),
            None => ("it does not take a connection".to_owned(), Reached::Nobody),
        };
        let mut state = self.state.borrow_mut();
        state.is_driven = false;
        state.waker = None;
        let cuts_off = !state.channel.is_idle();
        if state.backoff.ended(Instant::now(), reached, cuts_off) {
            match reached {
                Reached::Stranger => {
                    tracing::warn!(node, %address, why, "who answers for a node is not believed");
                }
                _ => tracing::warn!(node, %address, why, "requests to another node were cut off"),
            }
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

#[cfg(test)]
mod tests {
    use super::{super::said::Said, *};
    use crate::{
        client::Params, consensus::cluster::Leaders, runtime::doorbell::Doorbell,
        wire::secret::Secret,
    };
    use socket2::{Domain, Socket, Type};
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
        sync::mpsc,
        thread,
    };

    const WAIT: Duration = Duration::from_secs(60);
    const BOUNDS: Bounds = Bounds { in_flight: 9, waiting_bytes: 1_000, frame_bytes: 1_000 };

    /// On a core of its own, with a link to node 2 at an address.
    fn on_core<F: Future<Output = ()> + 'static>(
        address: SocketAddr,
        log: &Said,
        test: impl FnOnce(Rc<Link>) -> F + Send + 'static,
    ) {
        let log = log.clone();
        let settings = executor::Settings { cpu: 0, ring_depth: 128, io_memory: 64 << 10 };
        let make = move || async move {
            let _logs = tracing::subscriber::set_default(log.listener());
            let secret = Secret::parse(b"0123456789abcdef").expect("sixteen bytes");
            let credentials = Credentials::of(1, 2, None, Some(&secret));
            let bell = Doorbell::new().expect("there are descriptors");
            let (cluster, _asked) = Cluster::new(Leaders::new(1, 1), bell);
            test(Link::new(Target { node: 2, address }, BOUNDS, credentials, cluster)).await;
        };
        let core = executor::spawn_pinned("link", &settings, make).expect("an executor");
        core.join().expect("it does not panic");
    }

    /// Asks as soon as the node may be dialled; what came of it.
    async fn asked(link: &Rc<Link>) -> String {
        let deadline = Instant::now() + WAIT;
        let params = Params::new();
        let request = Request { method: "m", params: &params, deadline, as_long_as_led: None };
        loop {
            assert!(Instant::now() < deadline, "it is never dialled");
            match link.call(&request).await.expect_err("nobody answers") {
                Error::Unavailable(why) if why.contains("a moment ago") => {
                    executor::sleep(Duration::from_millis(1)).await;
                }
                error => return error.to_string(),
            }
        }
    }

    #[test]
    fn who_takes_a_connection_and_proves_nothing_is_waited_for_a_second() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let log = Said::default();
        on_core(address, &log, |link| async move {
            let begun = Instant::now();
            let why = asked(&link).await;
            assert!(why.contains("does not prove in time") && why.contains("nothing"), "{why}");
            let took = begun.elapsed();
            assert!(took >= CONNECT_LIMIT && took < WAIT / 2, "{took:?}");
        });
        assert_eq!(log.lines_with("does not prove in time"), 1);
        drop(listener);
    }

    #[test]
    fn a_stranger_at_the_address_of_a_node_that_was_away_is_named_in_the_log_once() {
        // A port that is held, and on which nobody listens yet.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).expect("a free port");
        let address = socket.local_addr().expect("it is bound").as_socket().expect("of IPv4");
        let log = Said::default();
        let (tell, strangers) = mpsc::channel::<TcpStream>();
        on_core(address, &log, move |link| async move {
            for _ in 0..3 {
                let why = asked(&link).await;
                assert!(why.contains("nothing was done"), "{why}");
            }
            socket.listen(9).expect("a socket");
            let listener = TcpListener::from(socket);
            thread::spawn(move || {
                for (place, mut stream) in listener.incoming().flatten().enumerate() {
                    if place == 0 {
                        // It hangs up at once, as a node does that is killed.
                        continue;
                    }
                    // An answer to what is said first, that proves nothing.
                    let said = stream.write_all(&[0x94, 1, 0, 0xc0, 0x80]);
                    if said.is_err() || tell.send(stream).is_err() {
                        return;
                    }
                }
            });
            let why = asked(&link).await;
            assert!(why.contains("nothing was done") || why.contains("or not"), "{why}");
            assert!(!why.contains("prove"), "{why}");
            for _ in 0..3 {
                let why = asked(&link).await;
                assert!(why.contains("does not prove that it knows"), "{why}");
            }
        });
        drop(strangers);
        assert_eq!(log.lines_with("cut off"), 1, "while it was away");
        assert_eq!(log.lines_with("who answers for a node is not believed"), 1);
    }
}
