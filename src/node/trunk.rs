//! Moves the bytes of trunks: dials other nodes for a core's messages, and serves those that dial.
//!
//! A trunk begins as a client's connection: the token where the node asks for one, then
//! `here.trunk {from, to, record_bytes}`. Its answer is the last MessagePack on the connection;
//! from there on both sides speak in frames of records (`wire/trunk.rs`).

use super::forward::{
    Settings,
    channel::{Channel, Request},
    link::pump,
};
use crate::{
    client::{Params, View},
    consensus::cluster::Cluster,
    runtime::{executor, net},
    shard::{
        run::Core,
        trunks::{Bounds, Dial, Trunk},
    },
    wire::{
        api::Error,
        id::NodeId,
        trunk::{FRAME_BYTES, Unpacker},
    },
};
use futures_lite::{AsyncRead, AsyncWrite};
use std::{
    future::{pending, poll_fn},
    io,
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
/// Bytes that wait for a trunk before senders are refused.
const WAITING_BYTES: usize = 1 << 20;
/// How long a trunk stays for the answers of calls that are under way when its node closes its doors.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
/// Records that are delivered before the core does something else.
const RECORDS_A_TURN: usize = 1000;

/// What a node says when it dials a trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The node that dials.
    pub from: NodeId,
    /// The one that it means to dial.
    pub to: NodeId,
    /// The longest record that it takes, bytes.
    pub record_bytes: usize,
}

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
    Bounds { waiting_bytes: WAITING_BYTES, record_bytes: settings.bounds.frame_bytes }
}

impl Dial for Dialer {
    fn knows(&self, node: NodeId) -> bool {
        self.cluster.address(node).is_some()
    }

    fn dial(&self, trunk: Rc<Trunk>) {
        let Some(core) = self.core.upgrade() else { return };
        let address = self.cluster.address(trunk.node()).map(|address| address.rpc);
        let (me, settings) = (self.cluster.leaders.me(), self.settings.clone());
        executor::spawn(async move {
            // A future is polled as soon as it is spawned, and whoever dials holds the shard.
            executor::yield_now().await;
            let Some(address) = address else {
                let why = "nobody has said where it is";
                return core.with_shard(|shard| shard.trunk_lost(&trunk, false, why));
            };
            let made = async {
                let mut stream = net::connect(address).await?;
                net::limit_unacknowledged(&stream, UNACKNOWLEDGED_MS)?;
                let offer =
                    Offer { from: me, to: trunk.node(), record_bytes: settings.bounds.frame_bytes };
                let limit = shake_hands(&mut stream, &settings, offer).await?;
                Ok((stream, limit))
            };
            let (error, was_there) = match executor::timeout(DIAL_LIMIT, made).await {
                Some(Ok((mut stream, limit))) => {
                    trunk.limit_records(limit);
                    trunk.opened();
                    let most = settings.bounds.frame_bytes;
                    (drive(&core, &trunk, &mut stream, most, pending()).await, true)
                }
                Some(Err(error)) => (error, false),
                None => (io::Error::from(io::ErrorKind::TimedOut), false),
            };
            tracing::debug!(node = trunk.node(), %address, %error, "a trunk ended");
            let why = format!("{address}: {error}");
            core.with_shard(|shard| shard.trunk_lost(&trunk, was_there, &why));
        });
    }

    fn bounds(&self) -> Bounds {
        bounds(&self.settings)
    }
}

/// Says what the connection is for; tells the longest record that the other node takes.
async fn shake_hands<S>(stream: &mut S, settings: &Settings, offer: Offer) -> io::Result<usize>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut channel = Channel::new(settings.bounds, settings.token.clone());
    let params = Params::new()
        .uint_if("from", Some(offer.from))
        .uint_if("to", Some(offer.to))
        .uint_if("record_bytes", Some(offer.record_bytes as u64));
    let now = Instant::now();
    let request = Request {
        method: "here.trunk",
        params: &params,
        deadline: now + DIAL_LIMIT,
        as_long_as_led: None,
    };
    let mut answered = channel.push(now, &request).map_err(io::Error::other)?;
    let mut buffer = vec![0; HANDSHAKE_BYTES];
    let answer = poll_fn(|cx| {
        loop {
            if let Poll::Ready(answer) = Pin::new(&mut answered).poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            match pump(&mut channel, stream, &mut buffer, cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    });
    let answer = answer.await?.map_err(io::Error::other)?.map_err(io::Error::other)?;
    let limit = View::new(&answer).get("record_bytes").and_then(View::uint);
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    limit.ok_or_else(|| io::Error::other("its answer names no record_bytes"))
}

/// Serves a trunk that another node dialled, until it ends. From `leaves` on no call begins, and it ends
/// when those under way are answered and the answers are written.
pub async fn serve<S>(
    core: &Rc<Core>,
    bounds: Bounds,
    offer: Offer,
    stream: &mut S,
    leaves: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let trunk = Rc::new(Trunk::from(offer.from, bounds));
    trunk.limit_records(offer.record_bytes);
    core.with_shard(|shard| shard.trunk_accepted(&trunk));
    let guard = Served { core, trunk: &trunk };
    let error = drive(core, &trunk, stream, bounds.record_bytes, leaves).await;
    drop(guard);
    tracing::debug!(node = offer.from, %error, "a trunk that another node dialled ended");
}

/// A trunk that is served; when it is no more, nobody answers over it.
struct Served<'a> {
    core: &'a Rc<Core>,
    trunk: &'a Rc<Trunk>,
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        self.core.with_shard(|shard| shard.trunk_lost(self.trunk, true, "it ended"));
    }
}

/// Moves bytes both ways until the connection ends; tells why.
async fn drive<S>(
    core: &Core,
    trunk: &Rc<Trunk>,
    stream: &mut S,
    record_bytes: usize,
    leaves: impl Future<Output = ()>,
) -> io::Error
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut unpacker = Unpacker::new(FRAME_BYTES + record_bytes);
    let (mut leaves, mut patience) = (pin!(leaves), pin!(None));
    poll_fn(|cx| {
        if !trunk.is_leaving() && leaves.as_mut().poll(cx).is_ready() {
            trunk.leave();
            patience.set(Some(executor::sleep(LEAVE_LIMIT)));
        }
        let is_late = patience.as_mut().as_pin_mut().is_some_and(|it| it.poll(cx).is_ready());
        match go_round(core, trunk, stream, &mut unpacker, cx) {
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
    trunk: &Rc<Trunk>,
    stream: &mut S,
    unpacker: &mut Unpacker,
    cx: &mut Context<'_>,
) -> io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Some(why) = trunk.severed() {
        return Err(io::Error::new(io::ErrorKind::ConnectionAborted, why));
    }
    trunk.wakes(cx.waker());
    // A side that asks and does not take the answers is not listened to.
    let is_behind = trunk.is_behind();
    let mut more = !is_behind && deliver(core, trunk, unpacker)?;
    if !more
        && !is_behind
        && let Poll::Ready(read) = Pin::new(&mut *stream).poll_read(cx, unpacker.space())
    {
        match read? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up")),
            len => unpacker.filled(len),
        }
        deliver(core, trunk, unpacker)?;
        more = true;
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

/// Delivers records that came; whether some are left, for which there is no time or no room now.
fn deliver(core: &Core, trunk: &Rc<Trunk>, unpacker: &mut Unpacker) -> io::Result<bool> {
    if unpacker.record().map_err(io::Error::other)?.is_none() {
        return Ok(false);
    }
    core.with_shard(|shard| {
        for _ in 0..RECORDS_A_TURN {
            let Some(record) = unpacker.record().map_err(io::Error::other)? else {
                return Ok(false);
            };
            if !shard.take_record(trunk, &record) {
                return Ok(true);
            }
            unpacker.taken();
        }
        Ok(true)
    })
}

/// Why a trunk that is offered is not taken.
///
/// # Errors
/// [`Error::Conflict`] and [`Error::Invalid`].
pub fn judge(me: Option<NodeId>, offer: Offer) -> Result<(), Error> {
    let Some(me) = me else {
        return Err(Error::Conflict("the node belongs to no cluster".into()));
    };
    if offer.to != me {
        let text = format!("this is node {me}, not node {}", offer.to);
        return Err(Error::Conflict(text));
    }
    if offer.from == me || offer.from == 0 {
        let text = format!("from: node {} cannot dial node {me}", offer.from);
        return Err(Error::Invalid(text));
    }
    Ok(())
}
