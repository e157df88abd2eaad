//! Which submission goes to which node.
//!
//! One task goes to whoever leads its partition. A batch has a part for each leader: the parts of
//! which every task has a key go first, the part with tasks that have none goes last, and there is
//! one such part at most. Each part is accepted whole or not at all. So when a batch is refused, no
//! task without a key was accepted, and those with keys may be submitted again: repeating the whole
//! batch is safe. With one leader a batch is one part.

use super::{
    Call, encode,
    route::At,
    tries::{Repeatable, Tries},
};
use crate::{
    node::local::LocalGateway,
    runtime::executor,
    shard::{
        core::Shard,
        doors::{Destination, Placed},
    },
    wire::{
        api::{Error, TaskSpec},
        id::TaskId,
    },
};
use futures_util::future::{join, join_all};
use std::{borrow::Cow, collections::BTreeMap, time::Instant};

/// A part of a batch: the tasks' places in it, and their places in partitions when it is for here.
#[derive(Default)]
struct Part {
    members: Vec<usize>,
    placed: Vec<Placed>,
    has_keyless: bool,
}

impl LocalGateway {
    /// As [`Gateway::submit_each`](crate::node::gateway::Gateway::submit_each): those of this node
    /// in one visit, the others beside it.
    pub(in crate::node) async fn submit_each_at_leaders(
        &self,
        specs: Vec<TaskSpec>,
    ) -> Result<Vec<Result<TaskId, Error>>, Error> {
        let placed = self.place_each(&specs);
        let is_there =
            |placed: &Result<Destination, Error>| matches!(placed, Ok(Destination::Elsewhere(_)));
        if !placed.iter().any(is_there) {
            let placed = placed.into_iter().map(|placed| placed?.here()).collect();
            return self.submit_each_led_here(&specs, placed).await;
        }
        let (there, here): (Vec<_>, Vec<_>) = specs
            .into_iter()
            .zip(placed)
            .enumerate()
            .partition(|(_, (_, placed))| is_there(placed));
        let there =
            there.iter().map(async |(place, (spec, _))| (*place, self.submit_one(spec).await));
        let (places, here): (Vec<_>, Vec<_>) = here.into_iter().unzip();
        let (here, placed): (Vec<_>, Vec<_>) = here.into_iter().unzip();
        let placed = placed.into_iter().map(|placed| placed?.here()).collect();
        let (here, mut outcomes) =
            join(self.submit_each_led_here(&here, placed), join_all(there)).await;
        // A refusal of all that are for here says nothing of the others.
        let here = here.unwrap_or_else(|error| vec![Err(error); places.len()]);
        outcomes.extend(places.into_iter().zip(here));
        outcomes.sort_unstable_by_key(|(place, _)| *place);
        Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
    }

    fn place_each(&self, specs: &[TaskSpec]) -> Vec<Result<Destination, Error>> {
        self.core.with_shard(|shard| specs.iter().map(|spec| self.place(shard, spec)).collect())
    }

    /// Where a task goes. Whoever sent it here knew of an agent that runs it: when this node does not
    /// yet, it soon will, and the other one tries again.
    fn place(&self, shard: &mut Shard, spec: &TaskSpec) -> Result<Destination, Error> {
        shard.place(spec).map_err(|error| match error {
            Error::NotFound(why) if !self.forwards => {
                Error::Unavailable(format!("its partition's leader knows of {why}"))
            }
            error => error,
        })
    }

    /// Submits tasks whose places are at this node; those that meet a change of leaders go on by
    /// themselves.
    async fn submit_each_led_here(
        &self,
        specs: &[TaskSpec],
        placed: Vec<Result<Placed, Error>>,
    ) -> Result<Vec<Result<TaskId, Error>>, Error> {
        let began = Instant::now();
        let begin = |shard: &mut Shard, answer| shard.submit_each_placed(specs, placed, answer);
        let mut outcomes = self.request(begin).await?;
        let again = specs.iter().zip(&mut outcomes).filter(|(spec, outcome)| {
            let worth = |error| self.pause(&mut self.tries(), error, repeatable(spec), began);
            outcome.as_ref().err().and_then(worth).is_some()
        });
        join_all(again.map(async |(spec, outcome)| *outcome = self.submit_one(spec).await)).await;
        Ok(outcomes)
    }

    /// Submits a task where it belongs, again when that changes meanwhile.
    async fn submit_one(&self, spec: &TaskSpec) -> Result<TaskId, Error> {
        let mut tries = self.tries();
        loop {
            let began = Instant::now();
            let destination = self.core.with_shard(|shard| self.place(shard, spec))?;
            let tried = match destination {
                Destination::Here(placed) => self.submit_one_here(spec, placed).await,
                Destination::Elsewhere(Some(node)) if self.forwards => {
                    let answer = self
                        .forward(node, Call::once("here.task.submit", encode::task(spec)))
                        .await;
                    answer.and_then(|answer| encode::id_of(&answer))
                }
                Destination::Elsewhere(leader) => Err(self.not_leader(leader)),
            };
            let Err(error) = tried else { return tried };
            self.pause_or_end(&mut tries, error, repeatable(spec), began).await?;
        }
    }

    async fn submit_one_here(&self, spec: &TaskSpec, placed: Placed) -> Result<TaskId, Error> {
        let specs = std::slice::from_ref(spec);
        let begin =
            |shard: &mut Shard, answer| shard.submit_each_placed(specs, vec![Ok(placed)], answer);
        let gone = || Error::Uncertain("the node gave the task no id".into());
        self.request(begin).await?.pop().unwrap_or_else(|| Err(gone()))
    }

    /// Pauses before another try, or ends with the error as the client sees it.
    async fn pause_or_end(
        &self,
        tries: &mut Tries,
        error: Error,
        repeatable: Repeatable,
        began: Instant,
    ) -> Result<(), Error> {
        match self.pause(tries, &error, repeatable, began) {
            Some(pause) => {
                executor::sleep(pause).await;
                Ok(())
            }
            None => Err(match self.explain(error, None) {
                Error::Uncertain(text) => Error::Uncertain(format!(
                    "{text}; with the same key it may be submitted again and is the same task"
                )),
                error => error,
            }),
        }
    }

    /// As [`Gateway::submit`](crate::node::gateway::Gateway::submit).
    pub(in crate::node) async fn submit_at_leaders(
        &self,
        specs: Vec<TaskSpec>,
    ) -> Result<Vec<TaskId>, Error> {
        if let [spec] = &specs[..] {
            return self.submit_one(spec).await.map(|id| vec![id]);
        }
        let mut ids = vec![None; specs.len()];
        let mut tries = self.tries();
        loop {
            let began = Instant::now();
            match self.submit_open(&specs, &mut ids).await {
                Ok(()) => return Ok(ids.into_iter().flatten().collect()),
                Err((error, repeatable)) => {
                    self.pause_or_end(&mut tries, error, repeatable, began).await?;
                }
            }
        }
    }

    /// Submits the tasks that have no id yet.
    async fn submit_open(
        &self,
        specs: &[TaskSpec],
        ids: &mut [Option<TaskId>],
    ) -> Result<(), (Error, Repeatable)> {
        let parts = self.parts_of(specs, ids).map_err(|error| (error, Repeatable::No))?;
        let (last, first): (Vec<_>, Vec<_>) =
            parts.into_iter().partition(|(_, part)| part.has_keyless);
        for (parts, repeatable) in [(first, Repeatable::Yes), (last, Repeatable::No)] {
            let submit = async |(at, part)| {
                let submitted = self.submit_part(specs, at, &part).await;
                (part, submitted)
            };
            let mut failed: Option<Error> = None;
            for (part, submitted) in join_all(parts.into_iter().map(submit)).await {
                match submitted {
                    Ok(accepted) => {
                        let members = part.members.into_iter().zip(accepted);
                        members.for_each(|(member, id)| ids[member] = Some(id));
                    }
                    // What trying again does not help decides.
                    Err(error) => match &failed {
                        Some(before) if is_final(before) => {}
                        _ => failed = Some(error),
                    },
                }
            }
            if let Some(error) = failed {
                return Err((error, repeatable));
            }
        }
        Ok(())
    }

    /// The parts of a batch, by who leads them.
    fn parts_of(
        &self,
        specs: &[TaskSpec],
        ids: &[Option<TaskId>],
    ) -> Result<BTreeMap<At, Part>, Error> {
        let mut parts: BTreeMap<At, Part> = BTreeMap::new();
        let mut keyless = None;
        let open = (0..specs.len()).filter(|member| ids[*member].is_none());
        self.core.with_shard(|shard| {
            for member in open {
                let spec = &specs[member];
                let (mut at, placed) = match self.place(shard, spec)? {
                    Destination::Here(placed) => (At::Here, Some(placed)),
                    Destination::Elsewhere(Some(node)) if self.forwards => (At::Node(node), None),
                    Destination::Elsewhere(leader) => return Err(self.not_leader(leader)),
                };
                if spec.key.is_none() {
                    at = match (at, *keyless.get_or_insert(at)) {
                        // Whoever takes the first takes them all.
                        (At::Node(_), At::Node(node)) => At::Node(node),
                        (here, first) if here == first => here,
                        _ => return Err(apart()),
                    };
                }
                let part = parts.entry(at).or_default();
                part.members.push(member);
                part.placed.extend(placed);
                part.has_keyless |= spec.key.is_none();
            }
            Ok(parts)
        })
    }

    async fn submit_part(
        &self,
        specs: &[TaskSpec],
        at: At,
        part: &Part,
    ) -> Result<Vec<TaskId>, Error> {
        let members = part.members.iter().map(|member| &specs[*member]);
        match at {
            At::Here => {
                let specs = match part.members.len() == specs.len() {
                    true => Cow::Borrowed(specs),
                    false => Cow::Owned(members.cloned().collect()),
                };
                self.submit_all_here(&specs, &part.placed).await
            }
            At::Node(node) => {
                let count = members.len();
                let call = Call::once("here.task.submit_batch", encode::batch(members));
                encode::ids_of(&self.forward(node, call).await?, count)
            }
        }
    }
}

fn repeatable(spec: &TaskSpec) -> Repeatable {
    if spec.key.is_some() { Repeatable::Yes } else { Repeatable::No }
}

/// Whether trying again does not help.
fn is_final(error: &Error) -> bool {
    !matches!(error, Error::NotLeader(_) | Error::Unavailable(_) | Error::Uncertain(_))
}

/// Tasks without a key that no one leader takes together.
fn apart() -> Error {
    Error::Conflict(
        "tasks: those without a key go to several nodes, because some types have fewer agents than \
         a node has cores; give them keys, or submit each type by itself"
            .into(),
    )
}
