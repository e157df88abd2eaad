//! `coreflow mcp`.

use super::{common::Common, serve};
use crate::{
    config::Config,
    node::NodeBuilder,
    server::{Engine, mcp::stdio::serve_stdio},
};
use blocking::Unblock;
use clap::Args;
use std::{
    io::{self, Write},
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

/// Serve the Model Context Protocol on standard input and output, with a node in this process
///
/// For clients that start their servers themselves. Ends when the client closes standard input;
/// what was accepted until then has server.drain_ms to end.
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
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn speak(config: Config) -> io::Result<()> {
    let drain = Duration::from_millis(config.server.drain_ms);
    let limits = serve::limits(&config);
    let node = NodeBuilder::new(config).start().map_err(io::Error::other)?;
    let (input, output) = (Unblock::new(io::stdin()), Unblock::new(io::stdout()));
    let session = serve_stdio(input, output, Rc::new(node.handle()), limits, ThreadTime);
    let ended = futures_lite::future::block_on(session);
    serve::stop(node, drain)?;
    ended
}

/// Time on a thread without an executor.
#[derive(Clone, Copy, Debug)]
struct ThreadTime;

impl Engine for ThreadTime {
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let timer = async_io::Timer::after(duration);
        async move {
            timer.await;
        }
    }
}
