//! Whether there is an order of a key's operations that explains every answer: each at some time
//! between question and answer, one after the other, on one task (Wing and Gong, *Testing and
//! Verifying Concurrent Objects*, 1993, with Lowe's memory of what was tried).
//!
//! Keys are independent of each other, so each has a search of its own.

use crate::history::{Operation, Phase, Variant, What};
use coreflow::wire::id::TaskId;
use std::collections::HashSet;

/// Operations on one key that a search takes: they are the bits of a number.
const OPERATIONS_MAX: usize = 64;

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Task {
    variant: Variant,
    /// Unknown while only a submission without an answer can have made it.
    id: Option<TaskId>,
    phase: Phase,
}

impl Task {
    /// This task under that id; `None` when it has another one.
    fn known_as(self, id: TaskId) -> Option<Self> {
        match self.id {
            Some(own) if own != id => None,
            _ => Some(Self { id: Some(id), ..self }),
        }
    }
}

type State = Option<Task>;

/// The state after an operation; `None` when it cannot have been answered so in that state.
fn after(state: State, what: What) -> Option<State> {
    let task = |variant, id| Task { variant, id, phase: Phase::Open };
    let ends = |task: Task, phase| match task.phase {
        Phase::Open => Some(Task { phase, ..task }),
        _ => None,
    };
    Some(Some(match (what, state) {
        (What::Submitted(variant, id), None) => task(variant, Some(id)),
        (What::Submitted(variant, id), Some(known)) if known.variant == variant => {
            known.known_as(id)?
        }
        (What::Conflicted(variant), Some(known)) if known.variant != variant => known,
        (What::Seen(id, phase), Some(known)) if known.phase == phase => known.known_as(id)?,
        (What::CancelledTooLate, Some(known)) if known.phase != Phase::Open => known,
        (What::Completed(id), Some(known)) => ends(known.known_as(id)?, Phase::Done)?,
        (What::MaybeSubmitted(variant), None) => task(variant, None),
        (What::MaybeCancelled, Some(known)) => ends(known, Phase::Cancelled)?,
        (What::MaybeCompleted, Some(known)) => ends(known, Phase::Done)?,
        _ => return None,
    }))
}

/// Whether some order explains the operations on one key.
pub fn is_explained(operations: &[Operation]) -> bool {
    assert!(operations.len() <= OPERATIONS_MAX, "{} operations on a key", operations.len());
    let bit = |index: usize| 1_u64 << index;
    let certain = operations.iter().enumerate().filter(|(_, it)| !it.what.is_uncertain());
    let certain: u64 = certain.map(|(index, _)| bit(index)).sum();
    let mut tried = HashSet::new();
    let mut open = vec![(0_u64, None)];
    while let Some((done, state)) = open.pop() {
        if done & certain == certain {
            return true;
        }
        if !tried.insert((done, state)) {
            continue;
        }
        let left = || operations.iter().enumerate().filter(|(index, _)| done & bit(*index) == 0);
        // Whatever was asked after an answer comes after what was answered.
        let first_answer = left().map(|(_, it)| it.answered).min().unwrap_or(u64::MAX);
        for (index, operation) in left().filter(|(_, it)| it.asked <= first_answer) {
            if let Some(next) = after(state, operation.what) {
                open.push((done | bit(index), next));
            }
        }
    }
    false
}

/// Shows that the search finds an order where there is one, and none where there is none.
pub fn finds_what_is_wrong() {
    let id = |random| TaskId { partition: 1, random };
    let at = |asked, answered, what: What| Operation {
        asked,
        answered: if what.is_uncertain() { u64::MAX } else { answered },
        what,
    };
    let submitted = at(0, 10, What::Submitted(0, id(1)));
    let seen = |asked, answered, phase| at(asked, answered, What::Seen(id(1), phase));
    let completed = |asked, answered| at(asked, answered, What::Completed(id(1)));
    let explained: [&[Operation]; 6] = [
        &[submitted, seen(5, 8, Phase::Open), completed(12, 20), seen(15, 16, Phase::Done)],
        // Two views of an end that is under way, in the order in which they may come.
        &[submitted, completed(12, 30), seen(14, 16, Phase::Open), seen(17, 18, Phase::Done)],
        // What got no answer took effect later.
        &[
            at(0, 0, What::MaybeSubmitted(1)),
            at(5, 9, What::Conflicted(0)),
            seen(9, 9, Phase::Open),
        ],
        &[submitted, at(12, 0, What::MaybeCancelled), seen(13, 15, Phase::Open)],
        &[submitted, at(12, 0, What::MaybeCancelled), at(50, 51, What::CancelledTooLate)],
        &[submitted, at(3, 12, What::Submitted(0, id(1))), at(2, 14, What::Conflicted(1))],
    ];
    let wrong: [&[Operation]; 8] = [
        // An acknowledged task is not there.
        &[submitted, at(11, 12, What::Missed(id(1)))],
        // A key stands for two tasks.
        &[submitted, at(3, 12, What::Submitted(0, id(2)))],
        &[submitted, at(3, 12, What::Submitted(1, id(1)))],
        // A task ends twice, or after its cancellation was seen.
        &[submitted, completed(12, 20), completed(15, 25)],
        &[
            submitted,
            at(11, 0, What::MaybeCancelled),
            seen(12, 13, Phase::Cancelled),
            completed(14, 15),
        ],
        // A reader goes back in time.
        &[submitted, completed(12, 30), seen(14, 16, Phase::Done), seen(17, 18, Phase::Open)],
        &[submitted, completed(12, 20), seen(21, 22, Phase::Open)],
        // A conflict with nothing.
        &[at(0, 2, What::Conflicted(0)), at(5, 6, What::Submitted(1, id(1)))],
    ];
    for operations in explained {
        assert!(is_explained(operations), "there is an order of {operations:#?}");
    }
    for operations in wrong {
        assert!(!is_explained(operations), "there is no order of {operations:#?}");
    }
}
