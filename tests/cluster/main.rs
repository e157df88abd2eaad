//! Five real nodes in five network namespaces, what goes wrong in production, and clients who keep
//! a ledger of it.
//!
//! The first process makes the network and starts itself once more inside it; when that one has
//! ended, however it did, it ends what is left in the namespaces and removes them. Every namespace
//! is the test's own, so addresses and ports in it are, too.
//!
//! `COREFLOW_CLUSTER_ROUNDS` (1) is how often everything goes wrong, `COREFLOW_CLUSTER_SEED` makes
//! it happen in the same order and at the same nodes, `COREFLOW_CLUSTER_FAULTS=Part,Kill` chooses
//! what goes wrong.

mod agents;
mod check;
mod clients;
mod cluster;
mod faults;
mod history;
mod linear;
mod network;
mod node;
mod proxy;
mod worker;

use network::Network;
use std::{
    env,
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Says to a process that it is inside the network, and the network's name.
const INSIDE: &str = "COREFLOW_CLUSTER_INSIDE";
/// What one round may take, on a machine that has something else to do.
const ROUND_LIMIT: Duration = Duration::from_secs(300);
/// How often it is looked whether the test has ended.
const LOOK: Duration = Duration::from_millis(50);

/// A number that the environment may name.
fn number(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}")),
        Err(_) => default,
    }
}

fn main() -> ExitCode {
    // `cargo test NAME` runs the tests whose name has NAME in it.
    let mut filters = env::args().skip(1).filter(|word| !word.starts_with('-'));
    if filters.next().is_some_and(|filter| !"cluster".contains(&*filter)) {
        return ExitCode::SUCCESS;
    }
    let rounds = number("COREFLOW_CLUSTER_ROUNDS", 1);
    if let Ok(name) = env::var(INSIDE) {
        let seed = number("COREFLOW_CLUSTER_SEED", 0);
        return faults::run(&Network::of(&name), rounds, seed);
    }
    linear::finds_what_is_wrong();
    let seed = number("COREFLOW_CLUSTER_SEED", fastrand::u64(..1 << 32));
    let network = match Network::make() {
        Ok(network) => network,
        Err(why) => {
            println!("cluster: skipped: network namespaces cannot be made here: {why}");
            return ExitCode::SUCCESS;
        }
    };
    println!(
        "cluster: {rounds} round(s), COREFLOW_CLUSTER_SEED={seed} cargo test --test cluster \
         repeats the order"
    );
    run_inside(&network, seed, ROUND_LIMIT * rounds.max(1) as u32)
}

/// Runs this program inside the network until it ends, a signal comes or the limit is over.
fn run_inside(network: &Network, seed: u64, limit: Duration) -> ExitCode {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, is_interrupted.clone()).expect("a signal can be heard");
    }
    let mut child = Command::new("ip")
        .args(["netns", "exec", network.name()])
        .arg(env::current_exe().expect("this program has a path"))
        .env(INSIDE, network.name())
        .env("COREFLOW_CLUSTER_SEED", seed.to_string())
        .spawn()
        .expect("ip runs");
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            return if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        if is_interrupted.load(Ordering::Relaxed) || Instant::now() >= deadline {
            println!("cluster: ended by a signal, or not within {limit:?}");
            child.kill().expect("it can be killed");
            child.wait().expect("it can be waited for");
            return ExitCode::FAILURE;
        }
        thread::sleep(LOOK);
    }
}
