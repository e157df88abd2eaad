//! What comes from a network that lies: refused, counted, harmless.

use super::{agree, set, sum, world};
use crate::{
    gossip::{
        DATAGRAM_BYTES_MAX, ENTRIES_MAX, EVENTS_MAX, Event, Gossip, NodeId, Refused, Settings,
        Status,
        datagram::{self, Change, Delta, Header, Known, Section, Want},
        record::Claim,
        settings::NODES_MAX,
        simulated::{World, address_of},
    },
    wire::secret::Secret,
};
use proptest::prelude::*;
use std::{sync::Arc, time::Duration};

fn header(sender: NodeId, claim: Claim) -> Header {
    Header { cluster: 0, sender, claim }
}

fn datagram(header: &Header, sections: &[Section<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.write(&mut bytes);
    sections.iter().for_each(|section| section.write(&mut bytes));
    bytes
}

fn alive(incarnation: u64) -> Claim {
    Claim { incarnation, generation: incarnation, status: Status::Alive }
}

fn delta(node: NodeId, claim: Claim, to: u64, changes: Vec<Change<'_>>) -> Section<'_> {
    Section::Delta(Delta {
        node,
        claim,
        address: address_of(node),
        is_fresh: true,
        is_cut: false,
        floor: 0,
        from: 0,
        to,
        latest: to,
        changes,
    })
}

/// A node that has one member beside it.
fn one() -> Gossip {
    let settings = Settings::default();
    let mut gossip = Gossip::new(settings, 1, 5, address_of(1), None, 1, Duration::ZERO);
    gossip.learn(2, address_of(2));
    gossip
}

fn receive(gossip: &mut Gossip, bytes: &[u8]) -> usize {
    let mut answers = 0;
    gossip.receive(Duration::from_millis(50), address_of(2), bytes, &mut |_, _, _| answers += 1);
    answers
}

#[test]
fn what_is_refused_is_counted_under_its_reason() {
    let ask = Section::Ask { nonce: 1, root: 2, news: &[] };
    let other_cluster = Header { cluster: 9, ..header(2, alive(5)) };
    let cases: [(Vec<u8>, Refused); 8] = [
        (vec![0; DATAGRAM_BYTES_MAX + 1], Refused::Oversized),
        (vec![], Refused::Malformed),
        (datagram(&other_cluster, std::slice::from_ref(&ask)), Refused::Cluster),
        (datagram(&header(3, alive(5)), std::slice::from_ref(&ask)), Refused::Stranger),
        (datagram(&header(1, alive(5)), std::slice::from_ref(&ask)), Refused::Mirrored),
        (datagram(&header(2, alive(u64::MAX)), &[ask]), Refused::Incarnation),
        (datagram(&header(2, alive(5)), &[delta(7, alive(5), 0, vec![])]), Refused::Stranger),
        (
            datagram(&header(2, alive(5)), &[Section::Answer { nonce: 9, root: 9 }]),
            Refused::Unasked,
        ),
    ];
    for (bytes, why) in cases {
        let mut gossip = one();
        assert_eq!(receive(&mut gossip, &bytes), 0, "{why:?}");
        assert_eq!(gossip.counters().refused(why), 1, "{why:?}");
        assert_eq!(gossip.counters().refused.iter().sum::<u64>(), 1, "{why:?}");
        assert_eq!(gossip.nodes().count(), 2);
    }
}

#[test]
fn events_that_nobody_fetches_hide_neither_a_life_that_is_over_nor_a_death() {
    let mut gossip = one();
    let began = |node, ms| Event::BeganAgain { node, ago: Duration::from_millis(ms) };
    let is = |node, status| Event::Status { node, status };
    let first = [began(7, 5), is(8, Status::Dead), is(8, Status::Alive), began(9, 1), began(9, 2)];
    first.iter().for_each(|event| gossip.tell(event.clone()));
    for number in 0..3 * EVENTS_MAX as u64 {
        gossip.tell(Event::Set { node: 3, key: Arc::from(number.to_le_bytes()) });
    }
    gossip.tell(began(7, 6));
    let events: Vec<_> = gossip.events().collect();
    let kept = [began(7, 5), is(8, Status::Dead), began(9, 2), Event::Missed];
    assert_eq!(events[..4], kept, "the last of each, before all is looked at");
    assert_eq!(events.last(), Some(&began(7, 6)));
    assert!(events[4..events.len() - 1].iter().all(|event| matches!(event, Event::Set { .. })));
    let missed = gossip.counters().missed_events;
    let told = first.len() as u64 + 3 * EVENTS_MAX as u64 + 1;
    assert_eq!(missed + events.len() as u64 - 1, told, "what is missed is counted");
    // Of every node there may be, several times.
    for node in (0..4).flat_map(|_| 1..=NODES_MAX as u64) {
        gossip.tell(began(node, 1));
        gossip.tell(is(node, Status::Dead));
    }
    let events: Vec<_> = gossip.events().collect();
    assert!(events.len() <= EVENTS_MAX, "{}", events.len());
    for node in 1..=NODES_MAX as u64 {
        let kept = |what: Event| events.iter().filter(|event| **event == what).count() >= 1;
        assert!(node % 997 != 0 || kept(began(node, 1)) && kept(is(node, Status::Dead)));
    }
}

#[test]
fn who_is_told_dead_has_half_of_the_time_to_refute() {
    let suspicion = Settings::default().suspicion;
    for (told, patience) in [(Status::Suspect, suspicion), (Status::Dead, suspicion / 2)] {
        let mut gossip = one();
        let word = Claim { status: told, ..alive(6) };
        receive(&mut gossip, &datagram(&header(2, alive(6)), &[]));
        receive(&mut gossip, &datagram(&header(2, alive(6)), &[delta(2, word, 0, vec![])]));
        let status = |gossip: &Gossip| gossip.node(2).map(|view| view.status);
        assert_eq!(status(&gossip), Some(Status::Suspect), "{told:?}");
        let mut now = Duration::from_millis(50);
        while status(&gossip) == Some(Status::Suspect) {
            now += Duration::from_millis(10);
            gossip.tick(now, &mut |_, _, _| ());
        }
        assert_eq!(status(&gossip), Some(Status::Dead));
        let after = now - Duration::from_millis(50);
        let round = Settings::default().interval;
        assert!((patience..=patience + round).contains(&after), "{told:?}: {after:?}");
    }
}

#[test]
fn entries_of_a_life_that_is_over_are_stale_and_change_nothing() {
    let change = |value| Change { version: 1, key: b"key", value: Some(value) };
    let mut gossip = one();
    let bytes = datagram(&header(2, alive(8)), &[delta(2, alive(8), 1, vec![change(b"new")])]);
    assert_eq!(receive(&mut gossip, &bytes), 0);
    // It comes late, or somebody sends it again; a later version of the old map is no better.
    for to in [1, 7] {
        let old = delta(2, alive(6), to, vec![change(b"old")]);
        assert_eq!(receive(&mut gossip, &datagram(&header(2, alive(8)), &[old])), 0);
    }
    assert_eq!(gossip.counters().refused(Refused::Stale), 2);
    assert_eq!(gossip.value(2, b"key"), Some(&b"new"[..]));
    assert_eq!(gossip.node(2).map(|view| view.version), Some(1));
}

#[test]
fn more_entries_than_a_node_may_have_are_refused_and_those_before_stay() {
    let mut gossip = one();
    let (mut version, together) = (0, 256);
    let mut tell = |gossip: &mut Gossip, count: usize| {
        let keys: Vec<_> = (1..=count as u64).map(|more| (version + more).to_le_bytes()).collect();
        let changes = keys.iter().zip(version + 1..);
        let changes: Vec<_> =
            changes.map(|(key, version)| Change { version, key, value: Some(b"") }).collect();
        let to = version + count as u64;
        let Section::Delta(all) = delta(2, alive(6), to, changes) else { unreachable!() };
        let all = Section::Delta(Delta { from: version, ..all });
        let bytes = datagram(&header(2, alive(6)), &[all]);
        assert!(bytes.len() <= DATAGRAM_BYTES_MAX);
        let before = gossip.counters().refused(Refused::Full);
        receive(gossip, &bytes);
        let is_taken = gossip.counters().refused(Refused::Full) == before;
        version += if is_taken { count as u64 } else { 0 };
        is_taken
    };
    for _ in 0..ENTRIES_MAX / together {
        assert!(tell(&mut gossip, together));
    }
    for count in [1, together] {
        assert!(!tell(&mut gossip, count));
        assert_eq!(gossip.entries(2).count(), ENTRIES_MAX);
        assert_eq!(gossip.node(2).map(|view| view.version), Some(ENTRIES_MAX as u64));
    }
    assert_eq!(gossip.counters().refused.iter().sum::<u64>(), 2);
}

#[test]
fn a_forged_version_hides_nothing_of_what_a_node_has() {
    const KEYS: usize = 2_000;
    let mut world = world(8, 11);
    for number in 0..KEYS as u32 {
        set(&mut world, 3, &number.to_le_bytes(), &[7; 200]);
    }
    agree(&mut world, 20_000);
    let forged = |world: &World| {
        let node = world.gossip(3).and_then(|of| of.node(3)).expect("it runs");
        let claim = Claim { generation: node.generation, ..alive(node.incarnation) };
        let change = Change { version: node.version + 7, key: b"false", value: Some(b"1") };
        let Section::Delta(lie) = delta(3, claim, node.version + 9, vec![change]) else {
            unreachable!()
        };
        Section::Delta(Delta { from: node.version, ..lie })
    };
    // A liar goes on for ten seconds.
    let (mut fewest, mut saw_false) = (usize::MAX, false);
    for _ in 0..100 {
        let (lie, liar) = (forged(&world), world.gossip(8).expect("it runs").my_claim());
        world.inject(8, 1, &datagram(&header(8, liar), &[lie]));
        world.run_until(
            100,
            &mut |_, _, event| {
                assert!(!matches!(event, Event::Reset { .. }), "nothing begins from nothing");
            },
            |world| {
                for at in [1, 2, 5, 8] {
                    let gossip = world.gossip(at).expect("it runs");
                    fewest = fewest.min(gossip.entries(3).count());
                    saw_false |= gossip.value(3, b"false").is_some();
                }
                false
            },
        );
    }
    assert!(saw_false, "somebody believed it");
    assert!(fewest >= KEYS, "{fewest} of {KEYS} entries were shown");
    // The owner has the last word, and a change of it gets through.
    set(&mut world, 3, &7_u32.to_le_bytes(), b"changed");
    agree(&mut world, 10_000);
    let at_one = world.gossip(1).expect("it runs");
    assert_eq!(at_one.value(3, b"false"), None);
    assert_eq!(at_one.value(3, &7_u32.to_le_bytes()), Some(&b"changed"[..]));
    let rebirths = world.gossip(3).expect("it runs").counters().rebirths;
    assert!((1..=6).contains(&rebirths), "{rebirths}: each costs everybody a whole map");
}

#[test]
fn a_process_that_starts_again_shows_nothing_of_what_it_had() {
    let mut world = world(6, 12);
    set(&mut world, 3, b"old", b"1");
    agree(&mut world, 2_000);
    world.kill(3);
    world.start(3);
    world.introduce(3);
    agree(&mut world, 3_000);
    assert!(
        world.running().all(|at| world.gossip(at).is_some_and(|of| of.entries(3).count() == 0))
    );
}

#[test]
fn changes_in_the_wrong_order_are_malformed_and_later_ones_are_a_gap() {
    let change = |version| Change { version, key: b"key", value: Some(b"value") };
    let bytes = |from, to, changes| {
        let Section::Delta(delta) = delta(2, alive(5), to, changes) else { unreachable!() };
        let delta = Section::Delta(Delta { from, latest: to.max(from), to: to.max(from), ..delta });
        datagram(&header(2, alive(5)), &[delta])
    };
    let mut gossip = one();
    assert_eq!(receive(&mut gossip, &bytes(0, 3, vec![change(2), change(2)])), 0);
    assert_eq!(gossip.counters().refused(Refused::Malformed), 1);
    assert_eq!(receive(&mut gossip, &bytes(0, 3, vec![change(4)])), 0);
    assert_eq!(gossip.counters().refused(Refused::Malformed), 2);
    assert_eq!(
        receive(&mut gossip, &bytes(4, 6, vec![change(5)])),
        1,
        "it asks for what is missing"
    );
    assert_eq!(gossip.counters().refused(Refused::Gap), 1);
    assert_eq!(gossip.value(2, b"key"), None);
    assert_eq!(receive(&mut gossip, &bytes(0, 6, vec![change(2), change(5)])), 0);
    assert_eq!(gossip.value(2, b"key"), Some(&b"value"[..]));
}

#[test]
fn without_the_secret_nothing_is_believed() {
    let secret = |text: &[u8]| Secret::parse(text).expect("a secret");
    let settings = Settings::default();
    let mut world = World::new(0, settings.clone(), 1, false);
    world.seal_with(secret(b"0123456789abcdef"));
    let node = |me, text| {
        Gossip::new(settings.clone(), me, 5, address_of(me), Some(secret(text)), me, Duration::ZERO)
    };
    let (mut left, mut right) = (node(1, b"0123456789abcdef"), node(2, b"0123456789abcdeF"));
    left.learn(2, address_of(2));
    right.learn(1, address_of(1));
    let mut sent = Vec::new();
    left.tick(Duration::from_millis(100), &mut |_, _, bytes| sent.push(bytes.to_vec()));
    assert!(!sent.is_empty());
    for bytes in &sent {
        right.receive(Duration::from_millis(101), address_of(1), bytes, &mut |_, _, _| {
            panic!("it answers a stranger")
        });
    }
    assert_eq!(right.counters().refused(Refused::Unsealed), sent.len() as u64);
    let mut same = node(2, b"0123456789abcdef");
    same.learn(1, address_of(1));
    let mut answers = 0;
    for at in 0..sent[0].len() {
        let mut changed = sent[0].clone();
        changed[at] ^= 1;
        same.receive(Duration::from_millis(101), address_of(1), &changed, &mut |_, _, _| {
            answers += 1
        });
    }
    assert_eq!((answers, same.counters().refused(Refused::Unsealed)), (0, sent[0].len() as u64));
    same.receive(Duration::from_millis(101), address_of(1), &sent[0], &mut |_, _, _| answers += 1);
    assert_eq!(answers, 1);
}

#[test]
fn a_node_refutes_what_is_forged_of_it_and_all_agree() {
    let mut world = world(8, 9);
    set(&mut world, 3, b"true", b"1");
    agree(&mut world, 2_000);
    let first = world.gossip(3).expect("it runs").my_claim().incarnation;
    let claim = |status| Claim { status, ..alive(first) };
    let forged = [
        // More changes than it made, a death, a goodbye, a later life, and a far incarnation.
        delta(
            3,
            claim(Status::Alive),
            9,
            vec![Change { version: 7, key: b"false", value: Some(b"2") }],
        ),
        delta(3, claim(Status::Dead), 1, vec![]),
        delta(3, claim(Status::Left), 1, vec![]),
        delta(3, alive(first + 6_000), 2, vec![]),
        delta(3, Claim { incarnation: 1 << 47, ..alive(first) }, 1, vec![]),
    ];
    for section in forged {
        for to in [1, 2, 5] {
            let liar = world.gossip(8).and_then(|of| of.node(8)).expect("it runs");
            let mut claim = alive(liar.incarnation);
            claim.generation = liar.generation;
            world.inject(8, to, &datagram(&header(8, claim), std::slice::from_ref(&section)));
        }
        world.run(200);
        agree(&mut world, 6_000);
        let at_one = world.gossip(1).expect("it runs");
        assert_eq!(at_one.value(3, b"true"), Some(&b"1"[..]), "{section:?}");
        assert_eq!(at_one.value(3, b"false"), None);
    }
    assert!(world.gossip(3).is_some_and(|of| of.counters().rebirths > 0));
    assert_eq!(sum(&world, |of| of.counters().deaths), 0);
}

#[test]
fn a_datagram_that_comes_again_changes_nothing() {
    let mut world = world(6, 10);
    world.network.repeated = 1.0;
    world.network.repeated_ms = 5_000;
    for number in 0..50_u8 {
        set(&mut world, 1 + u64::from(number % 6), &[number % 7], &[number]);
        world.run(100);
    }
    world.kill(6);
    world.run(2_500);
    let status = world.gossip(1).and_then(|of| of.node(6)).map(|view| view.status);
    assert_eq!(status, Some(Status::Dead), "old answers keep nobody alive");
    agree(&mut world, 8_000);
}

fn any_claim() -> impl Strategy<Value = Claim> {
    (0..1_u64 << 40, 0..1_u64 << 20, 0..4_u8).prop_map(|(generation, more, status)| Claim {
        generation,
        incarnation: generation + more,
        status: Status::of(status).expect("a status"),
    })
}

fn any_section() -> impl Strategy<Value = Section<'static>> {
    let key: &'static [u8] = b"some key";
    let change = (1..9_u64, prop::option::of(Just(key))).prop_map(move |(version, value)| Change {
        version,
        key,
        value,
    });
    let changes = prop::collection::btree_map(1..9_u64, change, 0..4);
    let any_delta = (0..5_u64, any_claim(), 0..3_u64, 0..5_u64, changes, any::<bool>());
    let any_delta = any_delta.prop_map(|(node, claim, floor, more, changes, is_fresh)| {
        let change = |(version, change): (u64, Change<'static>)| Change { version, ..change };
        let changes: Vec<_> = changes.into_iter().map(change).collect();
        Section::Delta(Delta {
            node,
            claim,
            address: address_of(node),
            is_fresh,
            is_cut: !is_fresh,
            floor,
            from: 0,
            to: 9,
            latest: 9 + more,
            changes,
        })
    });
    let known = (0..5_u64, any_claim(), 0..9_u64, any::<u32>());
    let known =
        known.prop_map(|(node, claim, version, check)| Known { node, claim, version, check });
    let digest = prop::collection::vec(known, 0..5);
    let digest = digest.prop_map(|known| Section::Digest { first: 0, last: u64::MAX, known });
    let want =
        (0..5_u64, 0..9_u64, 0..9_u64, 0..9_u64).prop_map(|(node, generation, version, floor)| {
            Section::Want(Want { node, generation, version, floor })
        });
    prop_oneof![
        any_delta,
        digest,
        want,
        any::<u64>().prop_map(|root| Section::Ask { nonce: 4, root, news: b"news" }),
        any::<u64>().prop_map(|root| Section::Answer { nonce: root as u32, root }),
        Just(Section::Buckets(&[7; 1_024])),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        sender in any::<u64>(),
        claim in any_claim(),
        sections in prop::collection::vec(any_section(), 0..4),
    ) {
        let status = if claim.status == Status::Left { Status::Left } else { Status::Alive };
        let header = header(sender, Claim { status, ..claim });
        let bytes = datagram(&header, &sections);
        prop_assert_eq!(datagram::read(&bytes), Ok((header, sections)));
        for end in 0..bytes.len() {
            // A part of it is malformed, or fewer sections.
            if let Ok((read, _)) = datagram::read(&bytes[..end]) {
                prop_assert_eq!(read, header);
            }
        }
    }

    #[test]
    fn no_bytes_break_a_node(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        sections in prop::collection::vec(any_section(), 0..6),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut gossip = one();
        gossip.set(b"mine", b"1").expect("an allowed entry");
        receive(&mut gossip, &bytes);
        let mut lies = datagram(&header(2, alive(5)), &sections);
        for (at, byte) in flips {
            let at = at.index(lies.len());
            lies[at] = byte;
        }
        let answers = receive(&mut gossip, &lies);
        prop_assert!(answers <= gossip.settings().burst);
        prop_assert_eq!(gossip.value(1, b"mine"), Some(&b"1"[..]));
        prop_assert_eq!(gossip.nodes().filter(|view| view.node > 2).count(), 0);
        let mut now = Duration::from_millis(60);
        for _ in 0..30 {
            now += Duration::from_millis(100);
            gossip.tick(now, &mut |_, _, bytes| assert!(bytes.len() <= 1_400));
        }
        let status = gossip.node(1).map(|view| view.status);
        prop_assert_eq!(status, Some(Status::Alive), "nobody tells a node that it is dead");
    }
}
