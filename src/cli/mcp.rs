//! `coreflow mcp`.

use super::{
    common::{Common, failed},
    interrupt::Interrupt,
    serve,
};
use crate::{
    config::Config,
    node::NodeBuilder,
    server::{Engine, mcp::stdio::serve_stdio},
};
use blocking::Unblock;
use clap::Args;
use futures_lite::{AsyncRead, future};
use std::{
    io::{self, Write},
    pin::Pin,
    process::ExitCode,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

/// Serve the Model Context Protocol on standard input and output, with a node in this process
///
/// For clients that start their servers themselves. Ends when the client closes standard input, or
/// with SIGTERM or SIGINT; what was accepted until then has server.drain_ms to end.
#[derive(Args, Debug)]
pub struct McpArgs {}

/// Runs the subcommand; the protocol has standard output to itself.
pub fn run(McpArgs {}: &McpArgs, common: &Common, err: &mut dyn Write) -> ExitCode {
    let config = match common.load_or_explain(err) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match speak(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn speak(config: Config) -> io::Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let drain = Duration::from_millis(config.server.drain_ms);
    let limits = serve::limits(&config);
    let node = NodeBuilder::new(config).start()?;
    let interrupted = Box::pin(async move { interrupt.first().await });
    let input = UntilInterrupted { input: Unblock::new(io::stdin()), interrupted, is_over: false };
    let output = Unblock::new(io::stdout());
    let session = serve_stdio(input, output, Rc::new(node.handle()), limits, ThreadTime);
    let ended = future::block_on(session);
    serve::stop(node, drain)?;
    ended
}

/// An input that ends with the first signal, as if the client had closed it.
struct UntilInterrupted<R, F> {
    input: R,
    interrupted: Pin<Box<F>>,
    is_over: bool,
}

impl<R: AsyncRead + Unpin, F: Future<Output = ()>> AsyncRead for UntilInterrupted<R, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.is_over = self.is_over || self.interrupted.as_mut().poll(cx).is_ready();
        match self.is_over {
            true => Poll::Ready(Ok(0)),
            false => Pin::new(&mut self.input).poll_read(cx, buffer),
        }
    }
}

/// Time on a thread without an executor.
#[derive(Clone, Copy, Debug)]
struct ThreadTime;

impl Engine for ThreadTime {
    type Place = ();

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let timer = async_io::Timer::after(duration);
        async move {
            timer.await;
        }
    }
}
