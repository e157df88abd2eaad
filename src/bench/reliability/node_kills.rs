//! Tasks while the node is killed with SIGKILL, again and again, and started again on its folder.

use super::{
    Losses,
    ledger::{Runs, Submissions},
    roles::{self, Signals},
};
use crate::{
    bench::{
        served::{self, Plan, Scratch, Served},
        work::{REMOTE_TYPE, failed},
    },
    client::ClientError,
    config::{AgentKind, Config},
};
use std::{
    io,
    path::Path,
    sync::atomic::Ordering,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

/// How often the clients' progress is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// How long a life goes on without progress before it is killed all the same: lost
/// acknowledgements can keep the count below its limit.
const REST: Duration = Duration::from_secs(5);
/// The part of the work in which the node is killed, so that its last life has some left.
const KILLED_PART: f64 = 0.9;

/// Runs `total` tasks through so many kills.
pub(super) fn run(
    config: &Config,
    folder: &Path,
    total: u32,
    kills: usize,
    seed: u64,
) -> io::Result<Losses> {
    let scratch = Scratch::new(folder, "node-kills")?;
    // Every ended task is asked for at the end, so the node has to remember them all.
    let settings = [
        format!("tasks.retained={}", (u64::from(total) * 2).min(10_000_000)),
        format!("tasks.retained_bytes={}", 1_u64 << 34),
    ];
    let agent = served::agent_type(REMOTE_TYPE, AgentKind::Remote, 60, 1);
    let plan = Plan::new(config, agent, scratch.path(), &settings)?;
    let mut rng = fastrand::Rng::with_seed(seed);
    let end = (f64::from(total) * 2.0 * KILLED_PART) as u64;
    let mut kill_at: Vec<u64> = (0..kills).map(|_| rng.u64(0..end.max(1))).collect();
    kill_at.sort_unstable();
    let mut run = Run { seed, ledger: Submissions::new(total), runs: Runs::new(total), kills: 0 };
    let lost = run.live_again_and_again(&plan, &kill_at).map_err(|error| plan.explain(error))?;
    Ok(run.tell(&lost))
}

/// The ledger, through all lives of the node.
struct Run {
    seed: u64,
    ledger: Submissions,
    runs: Runs,
    kills: u64,
}

/// A client's thread.
type Role<'scope> = ScopedJoinHandle<'scope, Result<(), ClientError>>;

impl Run {
    fn signals(&self) -> Signals {
        let signals = Signals::default();
        signals.accepted.store(self.ledger.acknowledged(), Ordering::Relaxed);
        signals.ended.store(self.runs.acknowledged(), Ordering::Relaxed);
        signals
    }

    /// All lives; tells the tasks that are not done at last, and what the node says of them.
    fn live_again_and_again(
        &mut self,
        plan: &Plan,
        kill_at: &[u64],
    ) -> io::Result<Vec<(u32, String)>> {
        for &limit in kill_at {
            self.live_until(plan.start()?, limit)?;
        }
        self.live_to_the_end(&plan.start()?)
    }

    /// A life that ends with a kill when the clients have come so far.
    fn live_until(&mut self, node: Served, limit: u64) -> io::Result<()> {
        let (signals, address, seed) = (self.signals(), node.rpc(), self.seed);
        let Self { ledger, runs, .. } = self;
        let (broke, outcomes) = thread::scope(|scope| {
            let producing = scope.spawn(|| roles::produce(address, seed, ledger, &signals));
            let working = scope.spawn(|| roles::work(address, runs, &signals));
            let broke = !comes_to(limit, &signals, &producing, &working);
            // Whatever the clients and the node are doing right now is cut off.
            let killed = node.kill();
            signals.stop.store(true, Ordering::Relaxed);
            let join = |role: Role<'_>| role.join().expect("clients do not panic");
            let outcomes = [join(producing), join(working)];
            killed.map(|()| (broke, outcomes))
        })?;
        self.kills += 1;
        for outcome in outcomes {
            match outcome {
                // That a kill cuts connections is what is measured.
                Ok(()) => {}
                Err(ClientError::Lost(_) | ClientError::Unreachable { .. }) if !broke => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// The last life: until every task is done, or nothing goes on any more. Tells the tasks that
    /// are not done, and what the node says of them.
    fn live_to_the_end(&mut self, node: &Served) -> io::Result<Vec<(u32, String)>> {
        let (signals, address, seed) = (self.signals(), node.rpc(), self.seed);
        let Self { ledger, runs, .. } = self;
        thread::scope(|scope| {
            let working = scope.spawn(|| roles::work(address, runs, &signals));
            let produced = roles::produce(address, seed, ledger, &signals);
            let open = produced.and_then(|()| {
                roles::come_to_rest(address)?;
                roles::open_at_last(address, ledger)
            });
            signals.stop.store(true, Ordering::Relaxed);
            let worked = working.join().expect("clients do not panic");
            worked.and(open).map_err(failed)
        })
    }

    fn tell(&self, lost: &[(u32, String)]) -> Losses {
        let (ledger, runs) = (&self.ledger, &self.runs);
        roles::complain(ledger, lost);
        let ran = |number: &u32| ledger.id(*number).is_some_and(|id| runs.ran_as(*number, id));
        let total = ledger.acknowledged();
        Losses {
            total,
            lost: lost.len() as u64,
            node_kills: self.kills,
            resubmitted: ledger.resubmitted,
            keys_repeated: ledger.repeated,
            keys_broken: ledger.keys_broken + runs.doubled,
            executions: runs.executions,
            tasks_run: (0..total as u32).filter(ran).count() as u64,
            stale: runs.stale,
            ended_twice: runs.ended_twice(),
            ..Losses::default()
        }
    }
}

/// Waits until the clients have come so far, or to a rest; false when one of them ended by itself
/// before, which no kill explains.
fn comes_to(limit: u64, signals: &Signals, producing: &Role<'_>, working: &Role<'_>) -> bool {
    let (mut best, mut since) = (0, Instant::now());
    loop {
        let progress = signals.progress();
        if progress >= limit {
            return true;
        }
        if progress > best {
            (best, since) = (progress, Instant::now());
        }
        // The producer ends well when everything was accepted; the worker never.
        let all_accepted = signals.all_accepted.load(Ordering::Relaxed);
        if working.is_finished() || (producing.is_finished() && !all_accepted) {
            return false;
        }
        if since.elapsed() > REST {
            return true;
        }
        thread::sleep(LOOK);
    }
}
