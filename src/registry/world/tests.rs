//! A world beside a model of it that keeps entries as they came and answers by looking at all.

use super::*;
use crate::{registry::fact::Capabilities, wire::api::AgentKind};
use proptest::prelude::*;
use std::collections::BTreeSet;

const ME: NodeId = 2;
const NODES: NodeId = 4;
const TYPES: TypeIndex = 3;
const NAMES: [&str; 3] = ["clerk", "cook", "judge"];
const WORDS: [&str; 3] = ["cpu", "gpu", "web"];

/// What happens to a world.
#[derive(Clone, Debug)]
enum Event {
    Set(NodeId, Fact),
    Remove(NodeId, Key),
    Status(NodeId, Status),
    Reset(NodeId),
    Forget(NodeId),
}

fn capabilities() -> impl Strategy<Value = Capabilities> {
    prop::sample::subsequence(&WORDS, 0..=WORDS.len())
        .prop_map(|words| Capabilities::new(words).expect("few short words"))
}

fn name() -> impl Strategy<Value = Box<str>> {
    prop::sample::select(&NAMES[..]).prop_map(Box::from)
}

fn agent_id() -> impl Strategy<Value = AgentId> {
    (0..2_u16, 0..3_u32, 0..2_u32).prop_map(|(core, slot, age)| AgentId::new(core, slot, age))
}

fn fact() -> impl Strategy<Value = Fact> {
    let load = (0..3_u32, 0..4_u32, 0..4_u32, 0..4_u32)
        .prop_map(|(agents, capacity, running, queued)| Load { agents, capacity, running, queued });
    let of_type = (name(), 0..3_u32, capabilities()).prop_map(|(name, max, capabilities)| {
        TypeFact { name, kind: AgentKind::Exec, max, capabilities }
    });
    let agent = (0..TYPES, prop::option::of(name()), capabilities());
    prop_oneof![
        1 => (name(), 0..9_u16).prop_map(|(name, cores)| Fact::Node(NodeFact {
            name,
            rpc: ([127, 0, 0, 1], 7450).into(),
            cores,
        })),
        3 => (0..TYPES, of_type).prop_map(|(index, fact)| Fact::Type(index, fact)),
        3 => (0..TYPES, load).prop_map(|(index, load)| Fact::Load(index, load)),
        9 => (agent_id(), agent).prop_map(|(id, (type_index, name, capabilities))| {
            Fact::Agent(id, AgentFact { type_index, name, capabilities })
        }),
    ]
}

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![
        1 => Just(Key::Node),
        1 => (0..TYPES).prop_map(Key::Type),
        1 => (0..TYPES).prop_map(Key::Load),
        4 => agent_id().prop_map(Key::Agent),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let status = vec![Status::Alive, Status::Suspect, Status::Dead, Status::Left];
    let node = 1..=NODES;
    prop_oneof![
        20 => (node.clone(), fact()).prop_map(|(node, fact)| Event::Set(node, fact)),
        6 => (node.clone(), key()).prop_map(|(node, key)| Event::Remove(node, key)),
        6 => (node.clone(), prop::sample::select(status))
            .prop_map(|(node, status)| Event::Status(node, status)),
        1 => node.clone().prop_map(Event::Reset),
        1 => node.prop_map(Event::Forget),
    ]
}

pub(super) fn key_bytes(key: Key) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    bytes
}

pub(super) fn value_bytes(fact: &Fact) -> Vec<u8> {
    let mut bytes = Vec::new();
    fact.encode(&mut bytes).expect("a fact that can be told");
    bytes
}

fn set(world: &mut World, node: NodeId, fact: &Fact) -> Result<bool, Refused> {
    world.set(node, &key_bytes(fact.key()), &value_bytes(fact))
}

#[derive(Default)]
struct Model {
    status: BTreeMap<NodeId, Status>,
    facts: BTreeMap<(NodeId, Key), Fact>,
    /// Of the agents of a node, who said last that it has a name.
    names: BTreeMap<(NodeId, Box<str>), AgentId>,
}

impl Model {
    fn name_of(&self, node: NodeId, key: Key) -> Option<(Box<str>, AgentId)> {
        match self.facts.get(&(node, key))? {
            Fact::Agent(id, agent) => Some((agent.name.clone()?, *id)),
            _ => None,
        }
    }

    fn drop_fact(&mut self, node: NodeId, key: Key) {
        if let Some((name, id)) = self.name_of(node, key)
            && self.names.get(&(node, name.clone())) == Some(&id)
        {
            self.names.remove(&(node, name));
        }
        self.facts.remove(&(node, key));
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Set(node, fact) => {
                self.status.entry(*node).or_insert(Status::Suspect);
                if self.facts.get(&(*node, fact.key())) == Some(fact) {
                    return;
                }
                self.drop_fact(*node, fact.key());
                self.facts.insert((*node, fact.key()), fact.clone());
                if let Some((name, id)) = self.name_of(*node, fact.key()) {
                    self.names.insert((*node, name), id);
                }
            }
            Event::Remove(node, key) => self.drop_fact(*node, *key),
            Event::Status(node, status) if *node != ME => drop(self.status.insert(*node, *status)),
            Event::Status(..) => {}
            Event::Reset(node) | Event::Forget(node) => {
                self.facts.retain(|(of, _), _| of != node);
                self.names.retain(|(of, _), _| of != node);
                if matches!(event, Event::Forget(_)) && *node != ME {
                    self.status.remove(node);
                }
            }
        }
    }

    fn type_fact(&self, node: NodeId, index: TypeIndex) -> Option<&TypeFact> {
        match self.facts.get(&(node, Key::Type(index)))? {
            Fact::Type(_, fact) => Some(fact),
            _ => None,
        }
    }

    fn agents(&self) -> impl Iterator<Item = (AgentAddress, &AgentFact)> {
        self.facts.iter().filter_map(|((node, _), fact)| match fact {
            Fact::Agent(agent, fact) => Some((AgentAddress { node: *node, agent: *agent }, fact)),
            _ => None,
        })
    }

    /// The agents on nodes that are there for which the function says so, given their type.
    fn agents_where(
        &self,
        keep: impl Fn(&AgentFact, Option<&TypeFact>) -> bool,
    ) -> Vec<AgentAddress> {
        let present = self.agents().filter(|(id, _)| self.status[&id.node].is_present());
        let kept =
            present.filter(|(id, fact)| keep(fact, self.type_fact(id.node, fact.type_index)));
        kept.map(|(id, _)| id).collect()
    }

    fn named(&self, name: &str) -> Option<AgentAddress> {
        let mut order = vec![ME];
        for status in [Status::Alive, Status::Suspect] {
            order.extend(self.status.iter().filter(|(_, is)| **is == status).map(|(node, _)| node));
        }
        order.into_iter().find_map(|node| {
            let agent = *self.names.get(&(node, name.into()))?;
            Some(AgentAddress { node, agent })
        })
    }

    fn least_loaded(&self, of: impl Fn(&TypeFact) -> bool) -> Option<NodeId> {
        let mut best: Option<(f64, NodeId)> = None;
        for ((node, _), fact) in &self.facts {
            let Fact::Type(index, fact) = fact else { continue };
            let Some(Fact::Load(_, load)) = self.facts.get(&(*node, Key::Load(*index))) else {
                continue;
            };
            if !of(fact) || load.capacity == 0 || self.status[node] != Status::Alive {
                continue;
            }
            // The capacities here are so small that quotients are compared exactly.
            let share = f64::from(load.running + load.queued) / f64::from(load.capacity);
            if best.is_none_or(|best| (share, *node) < best) {
                best = Some((share, *node));
            }
        }
        best.map(|(_, node)| node)
    }

    /// The types of which other nodes that are there have agents.
    fn types_with_agents(&self) -> BTreeSet<&str> {
        let loads = self.facts.iter().filter_map(|((node, _), fact)| match fact {
            Fact::Load(index, load) if load.agents > 0 && *node != ME => Some((*node, *index)),
            _ => None,
        });
        let present = loads.filter(|(node, _)| self.status[node].is_present());
        present.filter_map(|(node, index)| Some(&*self.type_fact(node, index)?.name)).collect()
    }

    fn max_of_type(&self, name: &str) -> Option<usize> {
        let told = self.facts.iter().filter_map(|((node, _), fact)| match fact {
            Fact::Type(index, fact) if &*fact.name == name => Some((*node, *index, fact.max)),
            _ => None,
        });
        let (.., max) = told.filter(|(.., max)| *max > 0).min()?;
        Some(max as usize)
    }
}

fn compare(world: &World, model: &Model) -> Result<(), TestCaseError> {
    prop_assert!(
        world
            .nodes()
            .map(|seen| (seen.node, seen.status))
            .eq(model.status.iter().map(|(node, status)| (*node, *status)))
    );
    // Nothing stays behind in the indexes.
    prop_assert_eq!(world.names.len(), model.names.len());
    let types = model.facts.values().filter(|fact| matches!(fact, Fact::Type(..))).count();
    prop_assert_eq!(world.types.values().map(Vec::len).sum::<usize>(), types);
    for node in 1..=NODES {
        let agents = model.agents().filter(|(id, _)| id.node == node).count();
        prop_assert_eq!(world.node(node).map_or(0, |seen| seen.agents), agents);
        let fact = world.node(node).and_then(|seen| seen.fact.cloned()).map(Fact::Node);
        prop_assert_eq!(fact.as_ref(), model.facts.get(&(node, Key::Node)));
    }
    for (id, fact) in model.agents() {
        let seen = world.agent(id).expect("it was told of");
        prop_assert_eq!(seen.type_index, fact.type_index);
        prop_assert_eq!(seen.name, fact.name.as_deref());
        prop_assert_eq!(seen.status, model.status[&id.node]);
        let of_type = model.type_fact(id.node, fact.type_index).map(|fact| &*fact.name);
        prop_assert_eq!(seen.agent_type, of_type);
    }
    prop_assert_eq!(world.types_with_agents(), model.types_with_agents());
    for name in NAMES {
        prop_assert_eq!(world.named(name), model.named(name));
        prop_assert_eq!(world.max_of_type(name), model.max_of_type(name));
        prop_assert_eq!(world.least_loaded(name), model.least_loaded(|of| &*of.name == name));
        let expected = model.agents_where(|_, of| of.is_some_and(|of| &*of.name == name));
        prop_assert_eq!(world.of_type(name, None).collect::<Vec<_>>(), &expected[..]);
        for (place, id) in expected.iter().enumerate() {
            let behind = world.of_type(name, Some(*id));
            prop_assert_eq!(behind.collect::<Vec<_>>(), &expected[place + 1..]);
        }
    }
    for word in WORDS {
        let able = |of: &TypeFact| of.capabilities.has(word);
        prop_assert_eq!(world.least_loaded_capable(word), model.least_loaded(able));
        let expected =
            model.agents_where(|agent, of| agent.capabilities.has(word) || of.is_some_and(able));
        prop_assert_eq!(world.capable(word, None).collect::<Vec<_>>(), expected);
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_world_answers_as_one_that_looks_at_all_entries_would(
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut world = World::new(ME, Limits::default());
        let mut model = Model::default();
        model.status.insert(ME, Status::Alive);
        let mut copies = Vec::new();
        for event in &events {
            match event {
                Event::Set(node, fact) => drop(set(&mut world, *node, fact).expect("few and short")),
                Event::Remove(node, key) => drop(world.remove(*node, &key_bytes(*key))),
                Event::Status(node, status) => drop(world.set_status(*node, *status)),
                Event::Reset(node) => world.reset(*node),
                Event::Forget(node) => world.forget(*node),
            }
            model.apply(event);
            compare(&world, &model)?;
            copies.push((world.clone(), format!("{:?}", world.nodes().collect::<Vec<_>>())));
        }
        for (copy, seen) in copies {
            prop_assert_eq!(format!("{:?}", copy.nodes().collect::<Vec<_>>()), seen);
        }
    }

    /// What was answered before a change and is not named by it is still right.
    #[test]
    fn changes_name_every_answer_that_they_make_wrong(
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut world = World::new(ME, Limits::default());
        for event in &events {
            let before = world.clone();
            match event {
                Event::Set(node, fact) => drop(set(&mut world, *node, fact).expect("few and short")),
                Event::Remove(node, key) => drop(world.remove(*node, &key_bytes(*key))),
                Event::Status(node, status) => drop(world.set_status(*node, *status)),
                Event::Reset(node) => world.reset(*node),
                Event::Forget(node) => world.forget(*node),
            }
            let changes = world.take_changes();
            let names = |change: Change| changes.contains(&Change::All) || changes.contains(&change);
            for name in NAMES {
                let (old, hash) = (before.named(name), world.hash(name));
                prop_assert!(old == world.named(name) || names(Change::Name(hash))
                    || old.is_some_and(|id| names(Change::Gone(id.node))));
                let old = before.least_loaded(name);
                prop_assert!(old == world.least_loaded(name) || names(Change::Type(hash))
                    || old.is_some_and(|node| names(Change::Gone(node))));
            }
        }
    }
}

fn agent(slot: u32, name: &str) -> Fact {
    let fact = AgentFact {
        type_index: 0,
        name: (!name.is_empty()).then(|| name.into()),
        capabilities: Capabilities::default(),
    };
    Fact::Agent(AgentId::new(0, slot, 0), fact)
}

#[test]
fn a_node_that_tells_too_much_is_refused_and_counted() {
    let limits = Limits { nodes: 2, types: 2, agents: 3, bytes: 4 * AGENT_BYTES };
    let mut world = World::new(1, limits);
    assert_eq!(set(&mut world, 0, &agent(0, "")), Err(Refused::Nodes));
    assert_eq!(set(&mut world, 2, &agent(0, "")), Ok(true));
    assert_eq!(set(&mut world, 3, &agent(0, "")), Err(Refused::Nodes));
    assert!(!world.set_status(3, Status::Alive));
    for index in 0..2 {
        assert_eq!(
            set(&mut world, 2, &Fact::Load(index, Load { agents: 1, ..Load::default() })),
            Ok(true)
        );
    }
    assert_eq!(set(&mut world, 2, &Fact::Load(2, Load::default())), Err(Refused::Types));
    assert_eq!(set(&mut world, 2, &agent(1, "")), Ok(true));
    let long = "n".repeat(60);
    assert_eq!(set(&mut world, 2, &agent(2, &long)), Ok(true));
    assert_eq!(set(&mut world, 2, &agent(3, "")), Err(Refused::Agents));
    assert_eq!(set(&mut world, 2, &agent(1, "clerk")), Err(Refused::Bytes));
    let lost = AgentAddress { node: 2, agent: AgentId::new(0, 1, 0) };
    assert_eq!(world.agent(lost), None, "what it said before is no longer true");
    assert_eq!(set(&mut world, 2, &agent(1, "cook")), Ok(true), "4 bytes are left");
    let expected = Refusals { nodes: 2, types: 1, agents: 1, bytes: 1, malformed: 0 };
    assert_eq!(world.refusals(), expected);
    world.forget(2);
    assert_eq!(set(&mut world, 3, &agent(0, "clerk")), Ok(true), "there is room again");
}

#[test]
fn an_entry_that_cannot_be_read_takes_away_what_its_key_said() {
    let mut world = World::new(1, Limits::default());
    let fact = agent(4, "clerk");
    assert_eq!(set(&mut world, 1, &fact), Ok(true));
    assert_eq!(set(&mut world, 1, &fact), Ok(false), "nothing new");
    let mut value = value_bytes(&fact);
    value.push(0);
    let refused = world.set(1, &key_bytes(fact.key()), &value);
    assert_eq!(refused, Err(Refused::Malformed(Malformed::Value)));
    assert_eq!(world.named("clerk"), None);
    assert_eq!(world.refusals().malformed, 1);
}

#[test]
fn many_changes_that_nobody_asked_for_become_one() {
    let mut world = World::new(1, Limits::default());
    for slot in 0..CHANGES_MAX as u32 {
        set(&mut world, 1, &agent(slot, &format!("clerk {slot}"))).expect("within the limits");
    }
    assert_eq!(world.take_changes().len(), CHANGES_MAX);
    assert_eq!(world.take_changes(), []);
    for slot in 0..CHANGES_MAX as u32 + 1 {
        set(&mut world, 1, &agent(slot, "clerk")).expect("within the limits");
    }
    assert_eq!(world.take_changes(), [Change::All]);
}
