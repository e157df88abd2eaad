//! Moves the bytes of trunks: dials other nodes for a core's messages, and serves those that dial.
//!
//! A connection of a trunk begins as one that forwards requests (`node/greeting.rs`), then comes
//! `here.trunk` with the offer (`shard/trunks.rs`, `trunk/offer.rs`). The answer that tells what was taken is
//! the last MessagePack on the connection; from there on both sides speak in frames of records
//! (`wire/trunk.rs`).
//! The one who dialled speaks first, and says that it has read the answer.
//! Whichever core accepted it, the connection goes to the one that has the session: that is the
//! dialling core's number modulo the cores, so that the records of a session go through the same rings.
//!
//! A connection that is lost is made again, for as long as something is kept and the session lasts
//! (`trunk/patience.rs`).

mod offer;
mod patience;
#[cfg(test)]
mod tests;

pub use offer::{judge, prove_answer};

use super::{forward::Settings, gateway::TrunkWords};
use crate::{
    consensus::cluster::Cluster,
    runtime::{executor, injector::Injector, net},
    shard::{
        run::{Core, Job},
        trunks::{Bounds, Dial, Offer, Trunk},
    },
    wire::{
        api::Error,
        id::NodeId,
        trunk::{FRAME_BYTES, Packer, TrunkError, Unpacker},
    },
};
use futures_channel::oneshot;
use futures_lite::{AsyncRead, AsyncWrite};
use offer::{Refusal, shake_hands};
use patience::{Connection, Patience, RETURN_LIMIT};
use std::{
    fmt::Display,
    future::{pending, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// How long a connection and its handshake may take.
const DIAL_LIMIT: Duration = Duration::from_secs(1);
/// How long the other node's kernel may leave bytes unacknowledged.
const UNACKNOWLEDGED_MS: i32 = 5000;
/// Bytes that a read of the handshake takes.
const HANDSHAKE_BYTES: usize = 4096;
/// Bytes that the other side has not taken before senders are refused.
const KEPT_BYTES: usize = 4 << 20;
/// How long the other side waits to hear what was taken, when nothing else is said to it.
const TELL_AFTER: Duration = Duration::from_millis(5);
/// How long a trunk stays for the answers of calls that are under way when its node closes its doors.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
/// When to come back to a core that takes no further work, milliseconds.
const RETRY_MS: u64 = 20;
/// Records that are delivered before the core does something else.
const RECORDS_A_TURN: usize = 1000;

/// Makes a core's connections to other nodes.
pub struct Dialer {
    core: Weak<Core>,
    cluster: Arc<Cluster>,
    settings: Settings,
}

impl Dialer {
    /// What dials for a core.
    pub fn new(core: &Rc<Core>, cluster: Arc<Cluster>, settings: Settings) -> Rc<Self> {
        Rc::new(Self { core: Rc::downgrade(core), cluster, settings })
    }
}

/// What a trunk may cost by the limits that the node has for its clients.
pub fn bounds(settings: &Settings) -> Bounds {
    Bounds { kept_bytes: KEPT_BYTES, record_bytes: settings.bounds.frame_bytes }
}

impl Dial for Dialer {
    fn knows(&self, node: NodeId) -> bool {
        self.cluster.address(node).is_some()
    }

    fn dial(&self, trunk: Rc<Trunk>, session: u64) {
        let Some(core) = self.core.upgrade() else { return };
        let (cluster, settings) = (self.cluster.clone(), self.settings.clone());
        executor::spawn(async move {
            // A future is polled as soon as it is spawned, and whoever dials holds the shard.
            executor::yield_now().await;
            keep_connected(&core, &cluster, &settings, &trunk, session).await;
        });
    }

    fn bounds(&self) -> Bounds {
        bounds(&self.settings)
    }
}

/// Connects a trunk for as long as its session lasts and there is something to say, and goes on with the next
/// session when that begins with what is left.
async fn keep_connected(
    core: &Core,
    cluster: &Cluster,
    settings: &Settings,
    trunk: &Rc<Trunk>,
    mut session: u64,
) {
    let mut patience = Patience::new(Instant::now());
    let mut moved = 0;
    // Who ends a session leaves the next one to whoever dials that.
    while trunk.session() == session {
        let ended = connect(core, cluster, settings, trunk).await;
        if trunk.session() != session {
            // It is known to be gone.
            return;
        }
        let has_moved = trunk.moved() > std::mem::replace(&mut moved, trunk.moved());
        let is_established = trunk.is_established();
        let (why, was) = match ended {
            Ended::Lost { why, was_clear } => (why, Connection { has_moved, was_clear }),
            Ended::Unknown { why, is_broken } => {
                // One that says what cannot be may do so for ever; of another process it is the first word.
                let was = Connection { has_moved, was_clear: !is_broken };
                let lasts = patience.lasts(Instant::now(), was, is_established);
                let begins = core.with_shard(|shard| {
                    if is_broken {
                        shard.trunk_broken(trunk, &why);
                    }
                    match lasts {
                        true => shard.trunk_begins_again(trunk, &why),
                        false => {
                            shard.trunk_ended(trunk, &why);
                            None
                        }
                    }
                });
                let Some(pause) = begins else { return };
                (session, moved) = (trunk.session(), 0);
                executor::sleep(pause).await;
                continue;
            }
            Ended::Over(why) => return core.with_shard(|shard| shard.trunk_ended(trunk, &why)),
        };
        if !trunk.is_left() {
            tracing::debug!(node = trunk.node(), why, "a connection of a trunk ended");
            let Some(pause) = trunk.lost(was.was_well()) else { return };
            if patience.lasts(Instant::now(), was, is_established) {
                executor::sleep(pause).await;
                continue;
            }
        }
        return core.with_shard(|shard| shard.trunk_ended(trunk, &why));
    }
}

/// Why a connection ended.
enum Ended {
    /// It was lost, or not made. It was clear when it was made with nothing that the other side had not taken.
    Lost { why: String, was_clear: bool },
    /// The other side is there and the session is not: it is another process, or has given the session up; or
    /// it is broken, for the other side says what cannot be, and would say it again.
    Unknown { why: String, is_broken: bool },
    /// There is no way to the other side, or it refuses a new session.
    Over(String),
}

impl Ended {
    fn not_made(why: String) -> Self {
        Self::Lost { why, was_clear: false }
    }

    /// A refusal is no proof of anything: whoever is at that address can say it. It ends a session that is new;
    /// the node that has one may come back there.
    fn refused(trunk: &Trunk, address: SocketAddr, why: &dyn Display) -> Self {
        let why = format!("{address}: {why}");
        if trunk.is_established() { Self::not_made(why) } else { Self::Over(why) }
    }
}

/// Who answers for a node is not believed.
fn not_believed(core: &Core, trunk: &Trunk, address: SocketAddr, why: &str) -> Ended {
    let node = trunk.node();
    tracing::warn!(node, %address, why, "who answers for a node is not believed");
    core.with_shard(|shard| shard.trunk_refused());
    Ended::refused(trunk, address, &why)
}

/// Whether an error of a connection would come again on the next one.
fn is_broken(error: &io::Error) -> bool {
    let known = error.get_ref().and_then(|inner| inner.downcast_ref::<TrunkError>());
    known.is_some_and(|error| error.is_final())
}

/// Makes one connection and drives it until it ends.
async fn connect(core: &Core, cluster: &Cluster, settings: &Settings, trunk: &Rc<Trunk>) -> Ended {
    let Some(address) = cluster.address(trunk.node()).map(|address| address.rpc) else {
        return Ended::Over("nobody has said where it is".into());
    };
    let offer = trunk.offer();
    let made = async {
        let mut stream = net::connect(address).await?;
        net::limit_unacknowledged(&stream, UNACKNOWLEDGED_MS)?;
        let answer = shake_hands(&mut stream, settings, &offer).await?;
        Ok((stream, answer))
    };
    let made: io::Result<_> = match executor::timeout(DIAL_LIMIT, made).await {
        Some(made) => made,
        None => Err(io::ErrorKind::TimedOut.into()),
    };
    let (mut stream, TrunkWords { record_bytes, taken, .. }) = match made {
        Ok((stream, Ok(words))) => (stream, words),
        // It has much to do, or is about to stop.
        Ok((_, Err(Refusal::There(error @ (Error::Backpressure(_) | Error::Unavailable(_)))))) => {
            return Ended::not_made(format!("{address}: {error}"));
        }
        Ok((_, Err(Refusal::There(error)))) => return Ended::refused(trunk, address, &error),
        Ok((_, Err(Refusal::Here(why)))) => return not_believed(core, trunk, address, &why),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return not_believed(core, trunk, address, &error.to_string());
        }
        Err(error) => return Ended::not_made(format!("{address}: {error}")),
    };
    if trunk.session() != offer.session {
        return Ended::Over("the session is over".into());
    }
    let Some(taken) = taken else {
        let why = "the node began again, or knows the session no more";
        // What was offered as new cannot be unknown.
        return Ended::Unknown { why: format!("{address}: {why}"), is_broken: !offer.resumes };
    };
    trunk.limit_records(record_bytes);
    match trunk.connect(taken) {
        Ok(connection) => {
            let was_clear = trunk.with_packer(|packer| packer.is_empty());
            trunk.with_packer(Packer::greet);
            let most = settings.bounds.frame_bytes;
            let end = drive(core, trunk, connection, &mut stream, most, pending()).await;
            let why = format!("{address}: {end}");
            match is_broken(&end) {
                true => Ended::Unknown { why, is_broken: true },
                false => Ended::Lost { why, was_clear },
            }
        }
        Err(error) => Ended::Unknown { why: format!("{address}: {error}"), is_broken: true },
    }
}

/// The core that has the sessions of a core of another node.
fn home<'a>(jobs: &'a [Injector<Job>], offer: &Offer) -> &'a Injector<Job> {
    &jobs[usize::from(offer.from.core) % jobs.len()]
}

/// Asks the core that has the session, or is to have it, which frame of it was taken last.
///
/// # Errors
/// Those of [`Shard::trunk_offered`](crate::shard::core::Shard::trunk_offered), and
/// [`Error::Backpressure`] when the core has much to do.
pub async fn offered(jobs: &[Injector<Job>], offer: Offer) -> Result<Option<u64>, Error> {
    let (tell, told) = oneshot::channel();
    let job: Job = Box::new(move |core| {
        let taken = core.with_shard(|shard| shard.trunk_offered(&offer));
        // Whoever asked may have gone away.
        let _ = tell.send(taken);
    });
    home(jobs, &offer).push(job).map_err(|_| Error::Backpressure(RETRY_MS))?;
    told.await.unwrap_or_else(|_| Err(Error::Unavailable("the node has stopped".into())))
}

/// Serves a connection on the core that has its session, until it ends.
pub async fn serve_at_home(
    jobs: &[Injector<Job>],
    bounds: Bounds,
    offer: Offer,
    stream: net::TcpStream,
    leaves: impl Future<Output = ()>,
) {
    let Ok(moving) = net::Moving::from_core(stream) else {
        return tracing::warn!("a connection could not be moved to another core");
    };
    let (leave, left) = oneshot::channel::<()>();
    let (ends, ended) = oneshot::channel::<()>();
    let job: Job = Box::new(move |core| {
        let core = core.clone();
        executor::spawn(async move {
            let mut stream = moving.to_core();
            let leaves = async {
                let _ = left.await;
            };
            serve(&core, bounds, offer, &mut stream, leaves).await;
            drop(ends);
        });
    });
    if home(jobs, &offer).push(job).is_err() {
        // The other node comes back.
        return;
    }
    let mut ended = pin!(ended);
    let is_over = futures_lite::future::or(
        async {
            let _ = ended.as_mut().await;
            true
        },
        async {
            leaves.await;
            false
        },
    );
    if !is_over.await {
        drop(leave);
        let _ = ended.await;
    }
}

/// Serves a connection of a trunk that another node dialled, until it ends. From `leaves` on no call
/// begins, and the session is over when those under way are answered and the answers have come.
async fn serve<S>(
    core: &Rc<Core>,
    bounds: Bounds,
    offer: Offer,
    stream: &mut S,
    leaves: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accepted = core.with_shard(|shard| shard.trunk_accepted(&offer, bounds));
    let Some((trunk, connection)) = accepted else { return };
    let error = drive(core, &trunk, connection, stream, bounds.record_bytes, leaves).await;
    tracing::debug!(node = offer.from.node, %error, "a connection that another node dialled ended");
    if trunk.is_current(connection) {
        if is_broken(&error) {
            let why = error.to_string();
            core.with_shard(|shard| {
                shard.trunk_broken(&trunk, &why);
                shard.trunk_ended(&trunk, &why);
            });
        } else if trunk.leaves().is_some() {
            core.with_shard(|shard| shard.trunk_ended(&trunk, "this node closes its doors"));
        }
    }
    trunk.disconnected(connection, Instant::now());
    await_return(core, &trunk);
}

/// Ends the session of a trunk when the other side, which dials it, stays away for too long.
fn await_return(core: &Rc<Core>, trunk: &Rc<Trunk>) {
    if !trunk.await_return() {
        return;
    }
    let (core, trunk) = (Rc::downgrade(core), trunk.clone());
    executor::spawn(async move {
        while let Some(left) = trunk.awaits(Instant::now(), RETURN_LIMIT) {
            if left.is_zero() {
                let Some(core) = core.upgrade() else { return };
                let why = "the node does not come back to the session";
                return core.with_shard(|shard| shard.trunk_ended(&trunk, why));
            }
            executor::sleep(left).await;
        }
    });
}

/// A timer on this core.
type Timer = Pin<Box<dyn Future<Output = ()>>>;

/// Moves bytes both ways until the connection ends; tells why.
async fn drive<S>(
    core: &Core,
    trunk: &Rc<Trunk>,
    connection: u64,
    stream: &mut S,
    record_bytes: usize,
    leaves: impl Future<Output = ()>,
) -> io::Error
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut unpacker = Unpacker::new(FRAME_BYTES + record_bytes, KEPT_BYTES, trunk.taken());
    let (mut leaves, mut patience) = (pin!(leaves), pin!(None));
    let mut tells = pin!(None::<Timer>);
    poll_fn(|cx| {
        if !trunk.is_current(connection) {
            let over = "another connection counts, or the session is over";
            return Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, over));
        }
        if trunk.leaves().is_none() && leaves.as_mut().poll(cx).is_ready() {
            trunk.leave(Instant::now() + LEAVE_LIMIT);
        }
        if patience.is_none()
            && let Some(until) = trunk.leaves()
        {
            let left = until.saturating_duration_since(Instant::now());
            patience.set(Some(executor::sleep(left)));
        }
        let is_late = patience.as_mut().as_pin_mut().is_some_and(|it| it.poll(cx).is_ready());
        if tells.as_mut().as_pin_mut().is_some_and(|it| it.poll(cx).is_ready()) {
            tells.set(None);
            trunk.with_packer(Packer::tell);
        }
        let went = go_round(core, (trunk, connection), stream, &mut unpacker, cx);
        if tells.is_none() && trunk.with_packer(|packer| packer.owes()) {
            tells.set(Some(Box::pin(executor::sleep(TELL_AFTER))));
            // So that the timer wakes this.
            let _ = tells.as_mut().as_pin_mut().map(|it| it.poll(cx));
        }
        match went {
            Ok(_) if is_late || trunk.has_left() => {
                let closed = "the node closes its doors";
                Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, closed))
            }
            Ok(true) => {
                // One round, then the core's turn: a busy trunk must not hold its core.
                core.with_shard(|shard| shard.wake_after_turn(cx.waker()));
                Poll::Pending
            }
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    })
    .await
}

/// Writes once, reads once, and delivers what came; whether there is more to do at once.
fn go_round<S>(
    core: &Core,
    (trunk, connection): (&Rc<Trunk>, u64),
    stream: &mut S,
    unpacker: &mut Unpacker,
    cx: &mut Context<'_>,
) -> io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    trunk.wakes(cx.waker());
    // From a side that asks and does not take the answers nothing is taken.
    let delivered = match trunk.is_behind() {
        true => Delivered::All,
        false => deliver(core, trunk, connection, unpacker)?,
    };
    let mut more = delivered != Delivered::All;
    // But it is heard what it takes, also while there is no room for what it says.
    if delivered != Delivered::Part
        && unpacker.has_room()
        && let Poll::Ready(read) = Pin::new(&mut *stream).poll_read(cx, unpacker.space())
    {
        match read? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up")),
            len => unpacker.filled(len),
        }
        let taken = unpacker.acknowledged();
        trunk.with_packer(|packer| packer.acknowledge(taken)).map_err(io::Error::other)?;
        if delivered == Delivered::All && !trunk.is_behind() {
            deliver(core, trunk, connection, unpacker)?;
        }
        more = true;
    }
    if !trunk.is_current(connection) {
        // What came led to its end.
        return Ok(true);
    }
    if trunk.is_accepted() && !unpacker.has_heard() {
        // Whoever dialled may not have read to the end of the answer, and what is behind it is no
        // MessagePack.
        return Ok(more);
    }
    let wrote = trunk.with_packer(|packer| {
        let bytes = packer.to_write();
        if bytes.is_empty() {
            return Ok(false);
        }
        match Pin::new(stream).poll_write(cx, bytes) {
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(len)) => {
                packer.wrote(len);
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(false),
        }
    })?;
    Ok(more || wrote)
}

/// What of the records that came was delivered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delivered {
    /// All that came whole.
    All,
    /// As many as there was time for.
    Part,
    /// As many as there was room for.
    NoRoom,
}

/// Delivers records that came.
fn deliver(
    core: &Core,
    trunk: &Rc<Trunk>,
    connection: u64,
    unpacker: &mut Unpacker,
) -> io::Result<Delivered> {
    if unpacker.record().map_err(io::Error::other)?.is_none() {
        return Ok(Delivered::All);
    }
    let left = core.with_shard(|shard| {
        for _ in 0..RECORDS_A_TURN {
            let Some(record) = unpacker.record().map_err(io::Error::other)? else {
                return Ok(Delivered::All);
            };
            if !shard.take_record(trunk, &record) {
                return Ok(Delivered::NoRoom);
            }
            unpacker.taken();
        }
        Ok(Delivered::Part)
    });
    if trunk.is_current(connection) {
        trunk.took(unpacker.progress(), unpacker.taken_bytes());
    }
    left
}
