//! Tasks of a type that their leader's node has never heard of: real cores, real sockets, real logs.

use super::{
    WAIT,
    far::{Places, stop},
    lending::{Clerks, TYPE, on_each_core, task, with_agents, without},
    tasks::spec,
};
use coreflow::{
    node::{AgentOptions, gateway::Gateway},
    wire::{
        api::{Error, TaskFilter, TaskSpec, TaskStatus},
        id::TaskId,
    },
};
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

/// Submits a task; again for as long as `may_wait` says that it may become well.
fn submit(clerks: &Clerks, spec: &TaskSpec, may_wait: fn(&Error) -> bool) -> Result<TaskId, Error> {
    let deadline = Instant::now() + WAIT;
    loop {
        let spec = spec.clone();
        match clerks.node.handle().wait(move |gateway| gateway.submit(vec![spec])) {
            Err(error) if may_wait(&error) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            ids => return ids.map(|ids| ids[0]),
        }
    }
}

fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::NotFound(_))
}

#[test]
fn a_type_that_only_another_node_has_is_taken_by_every_node_once_that_is_known() {
    let places = Places::of("type-elsewhere", 3);
    let nodes = [1, 3].map(|id| without(&places, id));
    let [first, third] = &nodes;
    let early = submit(first, &task(0, 0), |error| matches!(error, Error::NotLeader(_)));
    let Err(Error::NotFound(why)) = early else { panic!("nobody has agents yet: {early:?}") };
    assert!(why.contains(TYPE), "{why}");
    let options = AgentOptions { min: 1, max: 1, max_tasks: 8, ..AgentOptions::default() };
    let second = with_agents(&places, 2, options, 1);
    [first, &second, third].iter().for_each(|it| it.until_leaders_stay(3));
    let mut tasks = HashMap::new();
    for (number, clerks) in (0..60).zip([first, third, &second].into_iter().cycle()) {
        let id = submit(clerks, &task(number, 0), is_unknown).expect("an agent is there");
        tasks.insert(id, number);
    }
    third.all_done(&tasks, 1);
    assert!(first.figure(|core| core.tasks_lent) + third.figure(|core| core.tasks_lent) > 0);
    assert_eq!(second.seen.lock().unwrap().attempts.len(), tasks.len());
    // All nodes agree on the partition that knows a key, though only one knows the type's `max`.
    for number in 100..120 {
        let spec = TaskSpec { key: Some(format!("key-{number}")), ..task(number, 0) };
        let submit = |clerks| submit(clerks, &spec, |_| false).expect("all of them know the type");
        let ids: HashSet<TaskId> = [first, third, &second].map(submit).into();
        assert_eq!(ids.len(), 1, "a key stands for one task: {ids:?}");
        assert_eq!(
            third.end_of(*ids.iter().next().expect("there is one")).status,
            TaskStatus::Done
        );
    }
    // What nobody has is refused, and what there is is named.
    let nobody = spec("nobody", |out| out.push(0xc0));
    for clerks in [first, third] {
        let refused = submit(clerks, &nobody, |_| false);
        let Err(Error::NotFound(why)) = refused else { panic!("nobody has it: {refused:?}") };
        assert!(why.contains("\"nobody\"") && why.contains(TYPE), "{why}");
    }
    let filter = TaskFilter { agent_type: Some(TYPE.into()), ..TaskFilter::default() };
    let listed = first.node.handle().wait(move |gateway| gateway.tasks(filter, None, 1_000));
    assert_eq!(listed.expect("it knows the type").tasks.len(), 80);
    stop(second.node);
    nodes.into_iter().for_each(|clerks| stop(clerks.node));
}

#[test]
fn what_waits_for_agents_of_other_nodes_is_there_after_all_leaders_were_started_again() {
    let places = Places::of("type-restart", 3);
    let agents = on_each_core(1);
    let options =
        || AgentOptions { min: agents, max: agents, max_tasks: 4, ..AgentOptions::default() };
    let [first, third] = [1, 3].map(|id| without(&places, id));
    let second = with_agents(&places, 2, options(), 1);
    [&first, &second, &third].iter().for_each(|it| it.until_leaders_stay(3));
    let known = [&first, &third].map(|it| submit(it, &task(0, 0), is_unknown).expect("it knows"));
    known.into_iter().for_each(|id| assert_eq!(first.end_of(id).status, TaskStatus::Done));
    // Nobody is left who could run them; who has learned of the type keeps them.
    stop(second.node);
    let is_away = |error: &Error| matches!(error, Error::NotLeader(_) | Error::Unavailable(_));
    let mut tasks = HashMap::new();
    for number in 1..41 {
        let clerks = if number % 2 == 0 { &first } else { &third };
        let id = submit(clerks, &task(number, 0), is_away).expect("two of three are there");
        tasks.insert(id, number);
    }
    let [first, third] = [(first, 1), (third, 3)].map(|(clerks, id)| {
        stop(clerks.node);
        without(&places, id)
    });
    let second = with_agents(&places, 2, options(), 1);
    first.all_done(&tasks, 1);
    let seen = second.seen.lock().unwrap();
    assert!(tasks.keys().all(|id| seen.attempts[id] == [1]), "each ran once");
    drop(seen);
    for clerks in [first, second, third] {
        stop(clerks.node);
    }
}

/// Waits until a node has no agent of the type.
fn until_none_is_there(clerks: &Clerks) {
    let deadline = Instant::now() + WAIT;
    let agents = || clerks.node.handle().wait(|gateway| gateway.agents(Some(TYPE.into())));
    while !agents().expect("the node has the type").is_empty() {
        assert!(Instant::now() < deadline, "agents that are idle stay");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn agents_start_for_tasks_of_other_nodes_where_none_is_kept() {
    let places = Places::of("type-none-kept", 3);
    let [first, third] = [1, 3].map(|id| without(&places, id));
    let options = AgentOptions {
        min: 0,
        max: on_each_core(2),
        max_tasks: 1,
        idle_timeout_ms: 200,
        ..AgentOptions::default()
    };
    let second = with_agents(&places, 2, options, 20);
    [&first, &second, &third].iter().for_each(|it| it.until_leaders_stay(3));
    let mut count = 0;
    for _ in 0..2 {
        until_none_is_there(&second);
        let mut tasks = HashMap::new();
        for (number, clerks) in (0..40).zip([&first, &third].into_iter().cycle()) {
            let id =
                submit(clerks, &task(number, 0), is_unknown).expect("somebody would start one");
            tasks.insert(id, number);
        }
        third.all_done(&tasks, 1);
        count += tasks.len();
        assert_eq!(second.seen.lock().unwrap().attempts.len(), count, "each ran once, and there");
    }
    assert!(first.figure(|core| core.tasks_lent) + third.figure(|core| core.tasks_lent) > 0);
    [first, second, third].into_iter().for_each(|clerks| stop(clerks.node));
}
