//! Checks the view change of four replicas, one of which lies, under all choices of who hears what.
//!
//! It is a model for [`stateright`], whose states are the real drivers. A run follows a script, view by
//! view: who hears the order, the prepares, the commits; then all leave it: which view changes the new
//! primary hears, and what the liar says in its own; who hears the new view. Each line is a choice, and
//! all are made. What a choice leads to follows from the drivers alone: their disks write at once, and
//! what they ask each other for is answered at once.
//!
//! Nobody's entry differs from anybody else's, or from what a client could have taken for done.

mod liar;
mod replicas;

use crate::node::Group;
use coreflow::planted::Bug;
use replicas::Replicas;
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::{
    hash::{Hash, Hasher},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

/// Choices in a row that are looked at when nobody says: to the end of view 1.
const DEPTH: usize = 23;

/// A line of the script, in a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// What a replica hears of the primary's orders.
    Order(u64),
    /// Whether it hears what others have accepted.
    Prepares(u64),
    /// Whether it hears what others have prepared.
    Commits(u64),
    /// All leave the view.
    Leave,
    /// What the primary of the next view hears of why.
    Changes,
    /// Whether a replica hears how the next view begins.
    NewView(u64),
}

/// A choice: the line, its view, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Choice {
    line: Line,
    view: u64,
    way: usize,
}

/// What is checked.
struct ViewChanges {
    replicas: Replicas,
    script: Vec<(Line, u64)>,
    /// Which the replicas are given.
    bug: Option<Bug>,
}

/// How far a run is, and what it has come to.
#[derive(Clone)]
struct State {
    at: usize,
    replicas: Replicas,
    fingerprint: u64,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.at, self.fingerprint).hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.fingerprint) == (other.at, other.fingerprint)
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "after {} choices: {:?}", self.at, self.replicas.ends())
    }
}

impl ViewChanges {
    fn new(group: Arc<Group>, liar: u64, depth: usize, bug: Option<Bug>) -> Self {
        let correct: Vec<_> = group.nodes.iter().copied().filter(|node| *node != liar).collect();
        let mut script = Vec::new();
        for view in 0.. {
            if script.len() >= depth {
                break;
            }
            let lines = |line: fn(u64) -> Line| correct.iter().map(move |node| (line(*node), view));
            script.extend(lines(Line::Order));
            script.extend(lines(Line::Prepares));
            script.extend(lines(Line::Commits));
            script.push((Line::Leave, view));
            script.push((Line::Changes, view + 1));
            let next = correct.iter().map(|node| (Line::NewView(*node), view + 1));
            script.extend(next);
        }
        script.truncate(depth);
        Self { replicas: Replicas::new(group, liar), script, bug }
    }

    /// The thread that checks has the bug.
    #[cfg(feature = "planted-bugs")]
    fn plant(&self) {
        coreflow::planted::plant(self.bug);
    }

    #[cfg(not(feature = "planted-bugs"))]
    fn plant(&self) {
        assert_eq!(self.bug, None, "no bugs are planted");
    }
}

impl Model for ViewChanges {
    type State = State;
    type Action = Choice;

    fn init_states(&self) -> Vec<State> {
        let replicas = self.replicas.clone();
        let fingerprint = replicas.fingerprint();
        vec![State { at: 0, replicas, fingerprint }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Choice>) {
        if let Some(&(line, view)) = self.script.get(state.at) {
            let ways = state.replicas.ways(line, view);
            actions.extend((0..ways).map(|way| Choice { line, view, way }));
        }
    }

    fn next_state(&self, state: &State, Choice { line, view, way }: Choice) -> Option<State> {
        self.plant();
        let mut replicas = state.replicas.clone();
        replicas.go(line, view, way);
        let fingerprint = replicas.fingerprint();
        Some(State { at: state.at + 1, replicas, fingerprint })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("all agree", |_, state: &State| state.replicas.agree()),
            Property::sometimes("something is committed", |_, state: &State| {
                state.replicas.ends().iter().any(|(_, _, committed)| *committed > 0)
            }),
        ]
    }
}

/// Checks it with each role of the liar; tells what was looked at.
pub fn run(depth: Option<usize>) -> ExitCode {
    let depth = depth.unwrap_or(DEPTH);
    let mut is_bad = false;
    for liar in replicas::LIARS {
        let (text, is_good) = check(liar, depth, None);
        println!("model: {text}");
        is_bad |= !is_good;
    }
    if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// How replicas with a bug come to disagree, if they do.
#[cfg(feature = "planted-bugs")]
pub fn find(bug: Bug) -> Option<String> {
    let found = replicas::LIARS.into_iter().find_map(|liar| {
        let (text, is_good) = check(liar, DEPTH, Some(bug));
        (!is_good).then_some(text)
    });
    coreflow::planted::plant(None);
    found
}

/// Checks it with one liar; what was found, and whether that is good.
fn check(liar: u64, depth: usize, bug: Option<Bug>) -> (String, bool) {
    let begun = Instant::now();
    let model = ViewChanges::new(Arc::new(replicas::group()), liar, depth, bug);
    // Depth first, so that few states are held at once: every run is as long as the script.
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    let states = checker.unique_state_count();
    let seconds = begun.elapsed().as_secs_f64();
    let text = format!("liar {liar}: {states} states, {depth} choices in a row, {seconds:.1} s");
    if let Some(path) = checker.discovery("all agree") {
        let choices: Vec<_> = path.into_actions();
        let taken = choices.iter().filter(|choice| choice.way > 0);
        let taken: Vec<_> = taken
            .map(|Choice { line, view, way }| format!("{line:?} in view {view}: {way}"))
            .collect();
        return (format!("{text}: not all agree after {}", taken.join(", ")), false);
    }
    match checker.discovery("something is committed") {
        Some(_) => (format!("{text}: all agree"), true),
        None => (format!("{text}: nothing is ever committed"), false),
    }
}
