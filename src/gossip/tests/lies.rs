//! What is forged of a node hides nothing of it, and is mended.

use super::{agree, set, sum, world};
use crate::gossip::{
    Event, Gossip, INCARNATION_START_MAX, NodeId, Refused, Settings, Status,
    datagram::{self, Change, Delta, Header, Section},
    record::Claim,
    simulated::{World, address_of},
};
use std::time::Duration;

const LIAR: NodeId = 8;
const VICTIM: NodeId = 3;

/// All that a lie says.
struct Lie {
    claim: Claim,
    is_fresh: bool,
    floor: u64,
    range: (u64, u64),
    latest: u64,
}

impl Lie {
    /// What the victim says of itself, and its version.
    fn true_word(world: &World) -> (Claim, u64) {
        let victim = world.gossip(VICTIM).expect("it runs");
        (victim.my_claim(), victim.node(VICTIM).expect("it knows itself").version)
    }

    /// That its incarnation is this one and it is suspect, and nothing of its map.
    fn accusation(world: &World, incarnation: u64) -> Self {
        let (claim, version) = Self::true_word(world);
        let claim = Claim { incarnation, status: Status::Suspect, ..claim };
        Self { claim, is_fresh: true, floor: 0, range: (version, version), latest: version }
    }

    fn tell(self, world: &mut World, to: NodeId) {
        Self::tell_all(&[self], world, to);
    }

    /// Several in one datagram.
    fn tell_all(lies: &[Self], world: &mut World, to: NodeId) {
        let sender = world.gossip(LIAR).expect("it runs").my_claim();
        let mut bytes = Vec::new();
        Header { cluster: 0, sender: LIAR, claim: sender }.write(&mut bytes);
        lies.iter().for_each(|lie| lie.delta().write(&mut bytes));
        world.inject(LIAR, to, &bytes);
    }

    fn delta(&self) -> Section<'static> {
        self.delta_of(VICTIM)
    }

    fn delta_of(&self, node: NodeId) -> Section<'static> {
        Section::Delta(Delta {
            node,
            claim: self.claim,
            address: address_of(node),
            is_fresh: self.is_fresh,
            is_cut: false,
            floor: self.floor,
            from: self.range.0,
            to: self.range.1,
            latest: self.latest,
            changes: vec![],
        })
    }
}

fn entries(world: &World, at: NodeId) -> usize {
    world.gossip(at).expect("it runs").entries(VICTIM).count()
}

#[test]
fn a_floor_or_an_end_that_a_map_never_reaches_is_refuted() {
    for seed in 0..20 {
        for is_end in [false, true] {
            let mut world = world(8, seed);
            (0..50_u8).for_each(|number| set(&mut world, VICTIM, &[number], b"value"));
            agree(&mut world, 5_000);
            // Nobody passes anything on any more, so no news of another brings the lie to its victim.
            world.run(5_000);
            if is_end {
                // Only a map that is on its way has an end.
                world.kill(1);
                world.start(1);
                world.introduce(1);
            }
            let (claim, version) = Lie::true_word(&world);
            let far = 1 << 40;
            let (floor, to) = if is_end { (0, version + 1) } else { (far, 1) };
            Lie { claim, is_fresh: false, floor, range: (0, to), latest: far }.tell(&mut world, 1);
            world.run(20);
            set(&mut world, VICTIM, &[7], b"changed");
            agree(&mut world, 15_000);
            let at_one = world.gossip(1).expect("it runs");
            assert_eq!(at_one.value(VICTIM, &[7]), Some(&b"changed"[..]), "seed {seed} {is_end}");
            assert_eq!(entries(&world, 1), 50);
        }
    }
}

#[test]
fn a_floor_that_is_forged_of_a_dead_node_is_given_up() {
    let mut world = world(8, 5);
    set(&mut world, VICTIM, b"key", b"value");
    set(&mut world, VICTIM, b"other", b"value");
    agree(&mut world, 5_000);
    let (claim, _) = Lie::true_word(&world);
    world.kill(VICTIM);
    let is_dead = |world: &World| {
        world.running().all(|at| {
            let view = world.gossip(at).and_then(|of| of.node(VICTIM));
            view.is_some_and(|view| view.status == Status::Dead)
        })
    };
    assert!(world.run_until(5_000, &mut |_, _, _| (), is_dead));
    let (claim, far) = (Claim { status: Status::Dead, ..claim }, 1 << 40);
    Lie { claim, is_fresh: false, floor: far, range: (0, 1), latest: far }.tell(&mut world, 1);
    world.run(20);
    assert!(world.gossip(1).and_then(|of| of.node(VICTIM)).is_some_and(|view| !view.is_complete));
    let is_mended = |world: &World| {
        world.now_ms().is_multiple_of(100)
            && world.disagreement().is_none()
            && world.running().all(|at| {
                let view = world.gossip(at).and_then(|of| of.node(VICTIM));
                view.is_some_and(|view| (view.version, view.is_complete) == (2, true))
            })
    };
    assert!(world.run_until(30_000, &mut |_, _, _| (), is_mended), "it was told to all as news");
    assert!(world.running().all(|at| entries(&world, at) == 2));
}

#[test]
fn a_forged_life_hides_nothing_of_what_a_node_has() {
    const KEYS: usize = 500;
    for (seed, is_even) in [(1, true), (2, false), (3, true), (4, false)] {
        let mut world = world(8, seed);
        for number in 0..KEYS as u32 {
            set(&mut world, VICTIM, &number.to_le_bytes(), &[7; 100]);
        }
        agree(&mut world, 20_000);
        let (mut fewest, mut believed) = (usize::MAX, 0);
        // A whole map that is empty, every two seconds and then every tenth of one.
        for wait_ms in [2_000; 5].into_iter().chain([100; 50]) {
            let (mut claim, _) = Lie::true_word(&world);
            claim.incarnation += if (claim.incarnation % 2 == 0) == is_even { 2 } else { 1 };
            claim.generation = claim.incarnation;
            Lie { claim, is_fresh: true, floor: 0, range: (0, 1), latest: 1 }.tell(&mut world, 1);
            // And in the name of the victim.
            let mut bytes = Vec::new();
            Header { cluster: 0, sender: VICTIM, claim }.write(&mut bytes);
            world.inject(LIAR, 1, &bytes);
            world.run_until(
                wait_ms,
                &mut |_, _, event| {
                    assert!(!matches!(event, Event::Reset { .. } | Event::Removed { .. }));
                    assert!(!matches!(event, Event::BeganAgain { .. }), "it did not");
                },
                |world| {
                    for at in [1, 2, 5, LIAR] {
                        fewest = fewest.min(entries(world, at));
                        let view = world.gossip(at).and_then(|of| of.node(VICTIM));
                        believed += u64::from(view.is_some_and(|view| !view.is_complete));
                    }
                    false
                },
            );
        }
        assert!(believed > 0, "somebody heard it");
        assert_eq!(fewest, KEYS, "all entries are shown at any time");
        set(&mut world, VICTIM, &7_u32.to_le_bytes(), b"changed");
        agree(&mut world, 5_000);
        let victim = world.gossip(VICTIM).expect("it runs");
        assert_eq!(victim.counters().rebirths, 0, "nobody fetched its map again");
    }
}

/// Within two seconds all that run are alive to all.
fn assert_alive_soon(world: &mut World, what: &str) {
    let are_alive = |world: &World| {
        world.running().all(|at| {
            let gossip = world.gossip(at).expect("it runs");
            world.running().all(|of| {
                gossip.node(of).is_some_and(|view| view.status == Status::Alive)
                    && !gossip.held.contains_key(&of)
            })
        })
    };
    assert!(world.run_until(2_000, &mut |_, _, _| (), are_alive), "{what}");
}

#[test]
fn a_node_refutes_whatever_incarnations_are_forged_of_it() {
    // From where its incarnation is, or from where no node starts, and how far apart.
    let steps = [
        (false, 0),
        (false, 1),
        (false, 1 << 16),
        (false, 1 << 40),
        (true, 1 << 16),
        (true, 1 << 37),
    ];
    let hears_others: fn(NodeId) -> bool = |node| node != VICTIM;
    let hears_victim: fn(NodeId) -> bool = |node| node == VICTIM;
    for (seed, hears) in (0..4).flat_map(|seed| [(seed, hears_others), (seed, hears_victim)]) {
        for (is_far, step) in steps {
            let mut world = world(8, seed);
            set(&mut world, VICTIM, b"key", b"value");
            agree(&mut world, 5_000);
            let mine = Lie::true_word(&world).0.incarnation;
            let highest = world.gossip(LIAR).expect("it runs").highest_incarnation();
            let from = if is_far { INCARNATION_START_MAX } else { mine };
            // One after the other, as far apart as may be, up to what nobody believes.
            let steps = (1..=8).map(|times| from + times * step);
            let all_of_it =
                steps.chain([highest - 1, highest, highest + 1, highest + 2, u64::MAX / 8]);
            let lies: Vec<_> = all_of_it.map(|it| Lie::accusation(&world, it)).collect();
            for node in (1..=8).filter(|node| *node != LIAR && hears(*node)) {
                Lie::tell_all(&lies, &mut world, node);
            }
            world.run(5);
            let what = format!("seed {seed}, steps of {step}");
            let refused = sum(&world, |of| of.counters().refused(Refused::Incarnation));
            assert!(refused > 0, "{what}: what is above all is refused");
            assert_alive_soon(&mut world, &what);
            assert_eq!(entries(&world, 1), 1, "{what}");
            // The same to who starts again, and to who knew nothing of it.
            for node in [VICTIM, 1] {
                world.kill(node);
                world.start(node);
                world.introduce(node);
                world.run(500);
                assert_alive_soon(&mut world, &format!("{what}, node {node} started again"));
            }
        }
    }
}

#[test]
fn clocks_that_differ_let_a_forged_incarnation_stand_for_as_long_and_no_longer() {
    let ahead = Duration::from_secs(3);
    for of_victim in [false, true] {
        let mut world = world(8, 1);
        // From here on only those who start have another time of day.
        let late: Vec<_> = (1..=8).filter(|node| (*node == VICTIM) == of_victim).collect();
        for node in 1..=8 {
            world.kill(node);
            if !late.contains(&node) {
                world.turn_clock(node, ahead);
            }
            world.start(node);
            world.introduce(node);
        }
        agree(&mut world, 5_000);
        let highest = world.gossip(LIAR).expect("it runs").highest_incarnation();
        let highest = highest.max(world.gossip(VICTIM).expect("it runs").highest_incarnation());
        let lie = Lie::accusation(&world, highest);
        let to = if of_victim { 1 } else { VICTIM };
        lie.tell(&mut world, to);
        let refused = |world: &World| sum(world, |of| of.counters().refused(Refused::Incarnation));
        world.run(ahead.as_millis() as u64 / 2);
        let before = refused(&world);
        assert!(before > 0, "somebody has not come that far");
        world.run(ahead.as_millis() as u64 / 2);
        assert_alive_soon(&mut world, &format!("the victim is behind: {of_victim}"));
    }
}

#[test]
fn a_node_whose_clock_is_put_right_believes_and_refutes_what_the_others_do() {
    let mut gossip = Gossip::new(Settings::default(), 1, 0, address_of(1), None, 1, Duration::ZERO);
    gossip.learn(2, address_of(2));
    let unix_ms = 1_790_000_000_000;
    let edge = INCARNATION_START_MAX + unix_ms;
    let hear = |gossip: &mut Gossip, now_ms| {
        let mine = gossip.my_claim();
        let claim = Claim { incarnation: edge, status: Status::Suspect, ..mine };
        let lie = Lie { claim, is_fresh: true, floor: 0, range: (0, 0), latest: 0 };
        let mut bytes = Vec::new();
        let sender = Claim { incarnation: 6, generation: 6, status: Status::Alive };
        Header { cluster: 0, sender: 2, claim: sender }.write(&mut bytes);
        lie.delta_of(1).write(&mut bytes);
        gossip.receive(Duration::from_millis(now_ms), address_of(2), &bytes, &mut |_, _, _| ());
        gossip.my_claim().incarnation
    };
    assert_eq!(hear(&mut gossip, 5), 2, "as in 1970");
    gossip.set_time_of_day(unix_ms - 20);
    assert_eq!(hear(&mut gossip, 24), 2);
    assert_eq!(hear(&mut gossip, 25), edge + 1, "time goes on without being told");
}

#[test]
fn a_clock_that_jumps_ahead_before_a_datagram_comes_makes_nobody_dead_or_suspect() {
    for seed in 0..4 {
        let mut world = world(5, seed);
        world.run(3_000);
        for hour in 1..20 {
            let node = 1 + hour % 5;
            world.turn_clock(node, Duration::from_secs(hour * 3_600));
            world.run(701);
        }
        let sum = |of: fn(&Gossip) -> u64| {
            (1..=5).map(|node| of(world.gossip(node).expect("it runs"))).sum::<u64>()
        };
        assert_eq!(sum(|of| of.counters().suspicions), 0);
        assert_eq!(sum(|of| of.counters().deaths), 0);
        assert!(sum(|of| of.counters().late_rounds) >= 19, "each jump is seen once at least");
    }
}

#[test]
fn a_clock_that_jumps_ahead_and_back_stops_no_rounds() {
    let settings = Settings::default();
    let interval = settings.interval;
    let mut gossip = Gossip::new(settings, 1, 5, address_of(1), None, 1, Duration::ZERO);
    gossip.learn(2, address_of(2));
    let mut now = Duration::from_secs(10);
    let rounds = |gossip: &mut Gossip, now: &mut Duration, count: u64| {
        let before = gossip.counters().rounds;
        for _ in 0..count {
            *now += interval;
            gossip.tick(*now, &mut |_, _, _| ());
            assert!(gossip.next_wake() <= *now + interval, "{:?} at {now:?}", gossip.next_wake());
        }
        gossip.counters().rounds - before
    };
    assert!(rounds(&mut gossip, &mut now, 5) >= 5);
    now += Duration::from_secs(3_600);
    assert_eq!(rounds(&mut gossip, &mut now, 5), 5);
    now -= Duration::from_secs(3_600);
    assert!(rounds(&mut gossip, &mut now, 5) >= 4, "at most the round of the jump is late");
    assert_eq!(gossip.counters().clock_jumps, 1);
    let after = rounds(&mut gossip, &mut now, 30);
    assert_eq!(after, 30);
    let status = gossip.node(2).map(|view| view.status);
    assert_ne!(status, Some(Status::Left));
}

#[test]
fn a_new_life_is_believed_at_once_when_the_node_itself_answers_and_otherwise_after_two_seconds() {
    for speaks in [true, false] {
        let settings = Settings::default();
        let mut gossip = Gossip::new(settings, 1, 6, address_of(1), None, 1, Duration::ZERO);
        gossip.learn(2, address_of(2));
        gossip.learn(3, address_of(3));
        let alive =
            |incarnation| Claim { incarnation, generation: incarnation, status: Status::Alive };
        let hear = |gossip: &mut Gossip, sender, life, delta: Option<(u64, &'static [u8])>| {
            let mut bytes = Vec::new();
            let claim = alive(if sender == 2 { life } else { 6 });
            Header { cluster: 0, sender, claim }.write(&mut bytes);
            if let Some((version, key)) = delta {
                let changes = vec![Change { version, key, value: Some(b"value") }];
                let (to, latest) = (version, version);
                let (claim, address) = (alive(life), address_of(2));
                let (is_fresh, is_cut, floor, from) = (true, false, 0, 0);
                Section::Delta(Delta {
                    node: 2,
                    claim,
                    address,
                    is_fresh,
                    is_cut,
                    floor,
                    from,
                    to,
                    latest,
                    changes,
                })
                .write(&mut bytes);
            }
            gossip.receive(Duration::from_millis(1), address_of(sender), &bytes, &mut |_, _, _| ());
        };
        hear(&mut gossip, 2, 8, Some((1, b"old")));
        hear(&mut gossip, 3, 10, Some((1, b"new")));
        let shows = |gossip: &Gossip, key| gossip.value(2, key).is_some();
        assert!(shows(&gossip, b"old") && !shows(&gossip, b"new"));
        // That a datagram names it as its sender is no word of its own.
        hear(&mut gossip, 2, 10, None);
        assert!(shows(&gossip, b"old") && !shows(&gossip, b"new"));
        if speaks {
            let mut asked = None;
            let mut question = Vec::new();
            Header { cluster: 0, sender: 2, claim: alive(10) }.write(&mut question);
            gossip.receive(
                Duration::from_millis(1),
                address_of(9),
                &question,
                &mut |to, at, it| {
                    assert_eq!((to, at), (2, address_of(2)), "nobody else learns the question");
                    let (_, sections) = datagram::read(it).expect("a datagram");
                    asked = sections.iter().find_map(|section| match section {
                        Section::Ask { nonce, .. } => Some(*nonce),
                        _ => None,
                    });
                },
            );
            let answer = |nonce: u32| {
                let mut bytes = Vec::new();
                Header { cluster: 0, sender: 2, claim: alive(10) }.write(&mut bytes);
                Section::Answer { nonce, root: 0 }.write(&mut bytes);
                bytes
            };
            let nonce = asked.expect("it is asked");
            let mut take = |nonce| {
                let now = Duration::from_millis(2);
                gossip.receive(now, address_of(2), &answer(nonce), &mut |_, _, _| ());
            };
            take(nonce ^ 1);
            assert!(!shows(&gossip, b"new"), "another's question");
            let mut take = |nonce| {
                let now = Duration::from_millis(2);
                gossip.receive(now, address_of(2), &answer(nonce), &mut |_, _, _| ());
            };
            take(nonce);
        } else {
            let mut now = Duration::ZERO;
            while !shows(&gossip, b"new") {
                now += Duration::from_millis(100);
                assert!(now < Duration::from_millis(2_300), "it waits no longer");
                gossip.tick(now, &mut |_, _, _| ());
            }
            assert!(now >= Duration::from_millis(1_900), "{now:?}: it waits");
        }
        assert!(shows(&gossip, b"new") && !shows(&gossip, b"old"));
        let events: Vec<_> = gossip.events().collect();
        assert!(events.contains(&Event::Removed { node: 2, key: (*b"old").into() }));
        let is_told = |event: &&Event| matches!(event, Event::BeganAgain { node: 2, .. });
        assert_eq!(events.iter().filter(is_told).count(), 1, "its process is another one");
    }
}
