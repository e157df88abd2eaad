//! What became of all that was acknowledged.

use crate::{
    clients::{Shared, phase_of},
    cluster::until,
    history::{Key, Phase, What},
    linear,
    node::ANSWER_LIMIT,
};
use coreflow::{
    client::{ClientError, View, connect},
    wire::{id::TaskId, msgpack::write},
};
use std::collections::BTreeMap;

/// Questions under way.
const QUESTIONS: usize = 200;
/// Keys of which the operations are shown when no order explains them.
const SHOWN: usize = 3;

/// Waits until every acknowledged task has ended for one node, then lets every other node say so.
pub fn settle(shared: &Shared) {
    let acknowledged = shared.history.acknowledged();
    let mut open: BTreeMap<Key, TaskId> = acknowledged.clone();
    until("every acknowledged task has ended", || {
        let phases = ask(shared, 1, &open).ok()?;
        open.retain(|key, _| phases.get(key) == Some(&Some(Phase::Open)));
        open.is_empty().then_some(())
    });
    for node in &shared.cluster.nodes {
        until("a node says what became of every task", || ask(shared, node.id, &acknowledged).ok());
    }
}

/// Asks a node for each task and writes down what it says; `None` for a task that it does not know.
fn ask(
    shared: &Shared,
    node: u64,
    tasks: &BTreeMap<Key, TaskId>,
) -> Result<BTreeMap<Key, Option<Phase>>, ClientError> {
    let (mut sender, mut receiver) = connect(shared.cluster.node(node).target(), ANSWER_LIMIT)?;
    let mut left = tasks.iter();
    let mut under_way: BTreeMap<Key, u64> = BTreeMap::new();
    let mut phases = BTreeMap::new();
    loop {
        for (key, id) in left.by_ref().take(QUESTIONS - under_way.len()) {
            under_way.insert(*key, shared.history.now());
            sender.push(*key, "task.status", |out| {
                write::map(out, 1);
                write::str(out, "id");
                write::str(out, &id.to_string());
            });
        }
        sender.flush()?;
        if under_way.is_empty() {
            return Ok(phases);
        }
        if !receiver.fill(ANSWER_LIMIT)? {
            return Err(ClientError::TimedOut(ANSWER_LIMIT));
        }
        while let Some(answer) = receiver.buffered()? {
            let key = answer.msgid.ok_or(ClientError::Garbled("an answer to nothing"))?;
            let asked = under_way.remove(&key).ok_or(ClientError::Garbled("a second answer"))?;
            let (id, phase) = (tasks[&key], answer.outcome.map(|task| task.get("status")));
            let phase = match phase {
                Ok(status) => status.and_then(View::str).and_then(phase_of),
                Err(error) => match error.get("code").and_then(View::str) {
                    Some("not_found") => None,
                    _ => return Err(ClientError::Garbled("a question was refused")),
                },
            };
            let what = phase.map_or(What::Missed(id), |phase| What::Seen(id, phase));
            // Who waits for ends sees most tasks open again and again, which a history has no room for.
            if phase != Some(Phase::Open) {
                shared.history.add(key, asked, what);
            }
            phases.insert(key, phase);
        }
    }
}

/// Counts what was lost and what ended twice, looks for an order of each key's operations, and
/// tells; false when anything is wrong.
pub fn judge(shared: &Shared, name: &str) -> bool {
    let keys = shared.history.keys();
    let (mut operations, mut acknowledged, mut lost, mut twice) = (0, 0, 0, 0);
    let (mut done, mut cancelled, mut uncertain, mut wrong) = (0, 0, 0, Vec::new());
    for (key, of_key) in &*keys {
        let count = |is: fn(&What) -> bool| of_key.iter().filter(|it| is(&it.what)).count();
        operations += of_key.len();
        uncertain += count(|what| what.is_uncertain());
        twice += usize::from(count(|what| matches!(what, What::Completed(_))) > 1);
        let is_acknowledged = count(|what| matches!(what, What::Submitted(..))) > 0;
        let seen =
            |phase| of_key.iter().any(|it| matches!(it.what, What::Seen(_, p) if p == phase));
        acknowledged += usize::from(is_acknowledged);
        done += usize::from(seen(Phase::Done));
        cancelled += usize::from(seen(Phase::Cancelled));
        let has_ended = seen(Phase::Done) || seen(Phase::Cancelled);
        let is_missed = count(|what| matches!(what, What::Missed(_))) > 0;
        lost += usize::from(is_acknowledged && (!has_ended || is_missed));
        if !linear::is_explained(of_key) {
            wrong.push(*key);
        }
    }
    println!(
        "cluster: {name}: {operations} operations on {} keys, {uncertain} of them uncertain; \
         {acknowledged} tasks acknowledged, {done} done, {cancelled} cancelled, {lost} lost, {twice} \
         ended twice, {} keys without an order that explains them; refusals {:?}",
        keys.len(),
        wrong.len(),
        shared.refusals(),
    );
    for key in wrong.iter().take(SHOWN) {
        println!("cluster: no order explains key {key}: {:#?}", keys[key]);
    }
    assert!(acknowledged > 0 && done > 0 && cancelled > 0, "too little happened to show anything");
    lost + twice + wrong.len() == 0
}
