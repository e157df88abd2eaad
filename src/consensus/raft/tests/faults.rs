//! Random faults by seed: whatever happens, what is promised holds after every step, and when the
//! faults end, all replicas agree.

use super::*;

const SEEDS: u64 = 40;
const STEPS: u64 = 4_000;

/// With little memory on every other seed, so that followers are fed from the disk.
fn forgetful(node: u64, seed: u64) -> Settings {
    let limits = Limits { cache_bytes: 500, proposals: 64, proposal_bytes: 64 << 10 };
    if seed.is_multiple_of(2) {
        settings(node, seed)
    } else {
        Settings { limits, ..settings(node, seed) }
    }
}

/// Runs a seed; the answer is what happened, as a number.
fn run(seed: u64, with_changes: bool) -> (u32, Cluster) {
    let mut dice = fastrand::Rng::with_seed(!seed);
    let founders = if with_changes { 3 } else { [1, 3, 3, 5][dice.usize(0..4)] };
    let nodes = if with_changes { 5 } else { founders };
    let faults = Faults {
        lost: dice.u8(0..20),
        doubled: dice.u8(0..10),
        delay_ms: dice.u64(0..30),
        reorders: dice.bool(),
        write_ms: dice.u64(0..20),
    };
    let mut cluster = Cluster::with_settings(seed, nodes, founders, 2, faults, forgetful);
    // On some seeds leadership is contested, and nodes forget what they were about to write.
    let is_contested = seed % 3 == 1;
    if is_contested {
        cluster.faults.write_ms = 60;
    }
    for _ in 0..STEPS {
        if is_contested {
            contest(&mut cluster, &mut dice);
        }
        trouble(&mut cluster, &mut dice, with_changes);
        cluster.step();
    }
    cluster.cut.clear();
    cluster.faults = Faults { delay_ms: 5, write_ms: 2, ..Faults::default() };
    for id in 1..=nodes {
        if cluster.node(id).driver.is_none() {
            cluster.start(id);
        }
    }
    for partition in 0..2 {
        cluster.until_leader(partition);
        cluster.until("all replicas agree", |cluster| cluster.is_settled(partition));
        cluster.commit(partition, 3, 20);
        cluster.until("all replicas agree", |cluster| cluster.is_settled(partition));
    }
    (cluster.trace.clone().finalize(), cluster)
}

/// Stirs up elections: they are won by transfers, which nobody asks about before, and those who
/// voted forget it if they may.
fn contest(cluster: &mut Cluster, dice: &mut fastrand::Rng) {
    let nodes = cluster.nodes.len() as u64;
    let (id, other) = (dice.u64(1..=nodes), dice.u64(1..=nodes));
    let (is_running, is_writing) =
        (cluster.node(id).driver.is_some(), cluster.node(id).is_writing());
    match dice.u8(0..100) {
        0..4 if is_running => {
            // Two are told to take over, and stand in the same term.
            let partition = dice.u16(0..2);
            for heir in [other, 1 + other % nodes] {
                let _ = cluster.driver(id).transfer(partition, heir);
            }
        }
        4..9 if is_writing => {
            cluster.crash(id);
            cluster.start(id);
        }
        _ => {}
    }
}

/// Something that happens, or nothing.
fn trouble(cluster: &mut Cluster, dice: &mut fastrand::Rng, with_changes: bool) {
    let nodes = cluster.nodes.len() as u64;
    let (id, other) = (dice.u64(1..=nodes), dice.u64(1..=nodes));
    let partition = dice.u16(0..2);
    let is_running = cluster.node(id).driver.is_some();
    match dice.u32(0..1000) {
        0..300 if is_running => {
            // Most are refused by followers, some are taken by leaders that are none any more.
            let bytes = if dice.u8(0..10) == 0 { 3000 } else { 50 };
            cluster.propose(id, partition, bytes);
        }
        300..303 if is_running => cluster.crash(id),
        303..320 if !is_running => cluster.start(id),
        320..324 => drop(cluster.cut.insert((id, other))),
        324..326 => cluster.isolate(id),
        326..332 => cluster.cut.clear(),
        332..340 if is_running => {
            let applied = cluster.node(id).replicas[usize::from(partition)].applied;
            let index = applied.saturating_sub(dice.u64(0..40));
            cluster.driver(id).compact(partition, index);
        }
        340..343 if is_running => {
            // Refused by followers.
            let _ = cluster.driver(id).transfer(partition, other);
        }
        343..346 if is_running => cluster.driver(id).unreachable(other),
        346..348 if is_running => cluster.driver(id).restate(),
        348..356 if is_running => {
            // Refused by followers.
            let _ = cluster.driver(id).read(partition, 7);
        }
        356..366 if is_running && with_changes => {
            let change = match dice.u8(0..3) {
                0 => Change::AddLearners(vec![other]),
                1 => Change::Promote(cluster.node(id).replicas[0].members.learners.clone()),
                _ => Change::Remove(vec![other]),
            };
            // Refused by followers, and when the rules say so.
            for _ in 0..TICK_MS * 15 {
                let Some(driver) = &mut cluster.node(id).driver else { return };
                if driver.change(partition, &change) != Err(ChangeRefused::Unproven) {
                    return;
                }
                cluster.step();
            }
        }
        _ => {}
    }
}

#[test]
fn whatever_fails_replicas_agree_on_what_is_committed() {
    for seed in seeds() {
        run(seed, false);
    }
}

#[test]
fn whatever_fails_while_members_change_replicas_agree() {
    for seed in seeds() {
        run(seed, true);
    }
}

/// `RAFT_SEEDS=from..to` runs others.
fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("RAFT_SEEDS") else { return 0..SEEDS };
    let (from, to) = text.split_once("..").expect("RAFT_SEEDS is from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn faults_are_survived_with_work_done() {
    let (_, cluster) = run(3, false);
    let committed: usize = cluster.checkers.iter().map(|checker| checker.committed.len()).sum();
    assert!(committed > 100, "{committed} entries were committed");
}

#[test]
fn a_seed_replays_exactly() {
    let (first, second) = (run(7, true), run(7, true));
    assert_eq!(first.0, second.0);
    assert_eq!(first.1.messages, second.1.messages);
    assert_ne!(first.0, run(8, true).0, "another seed is another life");
}
