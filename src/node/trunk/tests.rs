//! What a core does that dials a node, and serves one, with a real core and a real socket.

use super::{LEAVE_LIMIT, bounds, serve};
use crate::{
    config::Config,
    node::{Node, NodeBuilder},
    runtime::executor,
    shard::{
        run::Core,
        trunks::{Offer, Origin},
    },
    wire::{
        api::Error,
        id::{AgentAddress, AgentId},
        trunk::Progress,
    },
};
use futures_lite::{AsyncRead, AsyncWrite};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    rc::Rc,
    sync::mpsc,
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

const WAIT: Duration = Duration::from_secs(60);

/// A node of two, whose other one takes requests at an address.
fn node(name: &str, other: SocketAddr) -> Node {
    let ports: Vec<_> = (0..5).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let at: Vec<_> = ports.iter().map(|port| port.local_addr().unwrap().to_string()).collect();
    let text = format!(
        "[[node]]\nid = 1\npeers = \"{}\"\nrpc = \"{}\"\nhttp = \"{}\"\n\
         [[node]]\nid = 2\npeers = \"{}\"\nrpc = \"{other}\"\nhttp = \"{}\"\n",
        at[0], at[1], at[2], at[3], at[4]
    );
    drop(ports);
    let folder = std::env::temp_dir().join(format!("coreflow-trunk-{name}-{}", std::process::id()));
    let folder = folder.display();
    let overrides = [
        "cluster.node=1".to_owned(),
        format!("log.folder={folder}/log"),
        format!("memory.folder={folder}/memory"),
    ];
    let config = Config::parse(&text, "the test", &overrides).expect("its keys are right");
    NodeBuilder::new(config).durable().start().expect("the node starts")
}

/// Does something on the node's first core.
fn on_core<T: Send + 'static>(
    node: &Node,
    work: impl FnOnce(&Rc<Core>) -> T + Send + 'static,
) -> T {
    let (tell, told) = mpsc::channel();
    let job = Box::new(move |core: &Rc<Core>| tell.send(work(core)).expect("the test waits"));
    assert!(node.jobs[0].push(job).is_ok(), "the core takes work");
    told.recv_timeout(WAIT).expect("the core does it")
}

fn stop(node: Node) {
    node.drain(Duration::ZERO);
    node.shutdown().expect("no core fails");
}

#[test]
fn a_session_that_ends_before_it_is_dialled_is_not_dialled_beside_the_next_one() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let node = node("twice", listener.local_addr().unwrap());
    let to = AgentAddress { node: 2, agent: AgentId::new(0, 0, 0) };
    on_core(&node, move |core| {
        core.with_shard(|shard| {
            shard.send_from_door(to, b"x").expect("it is dialled");
            // A death that is none: the next session is there before the first was looked at.
            shard.sever_trunks(2);
            let deadline = Instant::now() + WAIT;
            while shard.send_from_door(to, b"x").is_err() {
                assert!(Instant::now() < deadline, "it is never dialled again");
                thread::sleep(Duration::from_millis(1));
            }
        });
    });
    let first = listener.accept().expect("it is dialled").0;
    // Both would have dialled in the same turn of the core.
    on_core(&node, |_| ());
    on_core(&node, |_| ());
    listener.set_nonblocking(true).unwrap();
    let second = listener.accept();
    assert!(second.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock), "two dialled");
    drop((first, listener));
    stop(node);
}

#[test]
fn a_session_whose_connection_never_came_is_gone_on_with_and_one_that_is_over_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let node = node("answered", listener.local_addr().unwrap());
    let bounds = bounds(&node.shared.forward.clone().expect("it has others"));
    on_core(&node, move |core| {
        // Of no member, so that gossip does not end it.
        let from = Origin { node: 3, core: 0, life: 7 };
        let first = Offer { from, to: 1, session: 1, resumes: false, taken: 0, record_bytes: 1000 };
        let again = Offer { resumes: true, ..first };
        core.with_shard(|shard| {
            assert_eq!(shard.trunk_offered(&again), Ok(None), "nobody has offered it");
            assert_eq!(shard.trunk_offered(&first), Ok(Some(0)));
            // The answer came, frames were written, and the connection was lost on its way to this core.
            assert_eq!(shard.trunk_offered(&again), Ok(Some(0)), "it is forgotten");
            let heard = Offer { taken: 1, ..again };
            assert_eq!(shard.trunk_offered(&heard), Ok(None), "nothing was said in it");
            assert!(shard.trunk_accepted(&first, bounds).is_none(), "that connection is over");
            let (trunk, _) = shard.trunk_accepted(&again, bounds).expect("it goes on");
            shard.trunk_ended(&trunk, "the test ends it");
            assert_eq!(shard.trunk_offered(&first), Ok(Some(0)), "nothing was taken of it");
            let (trunk, _) = shard.trunk_accepted(&first, bounds).expect("it begins");
            trunk.took(Progress { frames: 1, records: 0 }, 32);
            assert_eq!(shard.trunk_offered(&again), Ok(Some(1)));
            shard.trunk_ended(&trunk, "the test ends it");
            // What was taken of it would be taken twice.
            let late = shard.trunk_offered(&first);
            assert!(matches!(late, Err(Error::Conflict(_))), "{late:?}");
            assert_eq!(shard.trunk_offered(&again), Ok(None));
            assert_eq!(shard.trunk_offered(&Offer { session: 2, ..first }), Ok(Some(0)));
            let reborn = Offer { from: Origin { life: 8, ..from }, ..first };
            assert_eq!(shard.trunk_offered(&reborn), Ok(Some(0)));
            // Gossip has it dead, and it is not: nothing was taken, so nothing is lost.
            shard.sever_trunks(3);
            let again = Offer { resumes: true, ..reborn };
            assert_eq!(shard.trunk_offered(&again), Ok(Some(0)), "it is forgotten");
            assert!(shard.trunk_accepted(&again, bounds).is_some(), "it begins");
            shard.sever_trunks(3);
            assert_eq!(shard.trunk_offered(&again), Ok(None), "its session was severed");
        });
    });
    stop(node);
}

/// A connection over which nothing comes and everything goes.
struct Quiet;

impl AsyncRead for Quiet {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
}

impl AsyncWrite for Quiet {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_session_that_leaves_ends_in_its_time_over_whichever_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let node = node("leave", listener.local_addr().unwrap());
    let settings = node.shared.forward.clone().expect("it has others");
    let (tell, told) = mpsc::channel();
    let begun = Instant::now();
    on_core(&node, move |core| {
        // Of no member, so that gossip does not end it.
        let from = Origin { node: 3, core: 0, life: 7 };
        let offer = Offer { from, to: 1, session: 1, resumes: false, taken: 0, record_bytes: 1000 };
        let bounds = bounds(&settings);
        for connection in [1, 2] {
            let (core, tell) = (core.clone(), tell.clone());
            executor::spawn(async move {
                // The first one leaves as soon as it is there.
                let taken = core.with_shard(|shard| shard.trunk_offered(&offer));
                assert_eq!(taken, Ok(Some(0)));
                serve(&core, bounds, offer, &mut Quiet, std::future::ready(())).await;
                tell.send(connection).expect("the test waits");
            });
        }
    });
    let mut ended: Vec<i32> = (0..2)
        .map(|_| told.recv_timeout(3 * LEAVE_LIMIT).expect("a connection goes on for ever"))
        .collect();
    ended.sort_unstable();
    assert_eq!(ended, [1, 2]);
    assert!(begun.elapsed() >= LEAVE_LIMIT, "it waited for answers");
    stop(node);
}
