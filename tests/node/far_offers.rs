//! What nodes say before they send each other messages, and what is said that cannot be: a real node, and one
//! whose words are the test's.

use super::{
    WAIT,
    far::{Places, stop},
    far_said::{
        ANSWER, HAS_NOTHING, Pretended, Said, numbered, numbers, offer_of, offer_that, sum,
        unpacker, until, with_versions,
    },
};
use coreflow::{
    client::{Params, View},
    node::gateway::Gateway,
    wire::{
        api::Error,
        trunk::{Packer, Record},
    },
};
use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

#[test]
fn a_node_with_no_version_in_common_is_told_those_of_both_and_words_of_later_ones_are_passed_over()
{
    let places = Places::of("versions", 2);
    let far = places.start(2, |builder| builder);
    let near = places.start(1, |builder| builder);
    let mut later = Said::to(places.rpc_of(2));
    let refused = later.offer(with_versions(offer_of(900), 7, 9)).expect_err("none in common");
    for words in ["version 2", "versions 7 to 9", "node 1", "node 2"] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    let words = with_versions(offer_of(900), 2, 9).str("later", "words");
    let answer = later.offer(words).expect("version 2 is common");
    let answer = numbers(answer);
    assert_eq!((answer("version"), answer("taken")), (2, 0));
    until("the refusal is counted", || sum(&far, |core| core.far_refused) == 1);
    stop(near);
    stop(far);
}

#[test]
fn of_a_node_that_crashed_and_is_back_the_next_session_begins_with_what_it_cannot_have() {
    let world = Pretended::new("crash");
    let (pretender, target) = (&world.pretender, world.target);
    let send = |number| world.send(number);
    let call = || {
        let waits = world.handle.clone();
        thread::spawn(move || {
            waits.wait(move |gateway| gateway.call(target, b"x".to_vec(), WAIT.as_millis() as u64))
        })
    };
    let sent = || sum(&world.near, |core| core.far_sent);

    // The first life takes a connection, reads, and is gone before it says what it took.
    (0..10).for_each(|number| send(number).expect("the way is free"));
    let begun = call();
    until("the call is sent", || sent() == 11);
    let (mut first, offer) = pretender.offer();
    assert_eq!((offer("session"), offer("resumes")), (1, 0));
    first.answer(&HAS_NOTHING);
    let read = first.records(&mut unpacker(), 11);
    assert!(read.iter().filter(|(is_call, _)| !is_call).map(|(_, number)| *number).eq(0..10));
    drop(first);

    // Of what is said from here on no byte is written to it.
    let (mut second, offer) = pretender.offer();
    assert_eq!((offer("session"), offer("resumes")), (1, 1));
    (10..20).for_each(|number| send(number).expect("the way is free"));
    let rest = call();
    until("the call is kept", || sent() == 22);
    second.answer(&ANSWER);
    let lost = begun.join().expect("it does not panic").expect_err("nobody can answer");
    assert!(matches!(lost, Error::Uncertain(_)), "{lost}");

    let (mut next, offer) = pretender.offer();
    assert_eq!((offer("session"), offer("resumes"), offer("taken")), (2, 0, 0));
    next.answer(&HAS_NOTHING);
    let mut unpacker = unpacker();
    let read = next.records(&mut unpacker, 11);
    assert!(read.iter().filter(|(is_call, _)| !is_call).map(|(_, number)| *number).eq(10..20));
    let (_, correlation) = *read.iter().find(|(is_call, _)| *is_call).expect("the call");
    let mut packer = Packer::default();
    packer.took(unpacker.progress().frames, 0);
    packer.put(&Record::Reply { correlation, payload: b"y" });
    next.stream.write_all(packer.to_write()).expect("it listens");
    assert_eq!(rest.join().expect("it does not panic"), Ok(b"y".to_vec()));
    until("what was begun is counted", || sum(&world.near, |core| core.far_lost) == 10);
    drop(next);
    world.stop();
}

#[test]
fn a_session_over_which_a_node_says_what_cannot_be_ends_at_once() {
    let world = Pretended::new("broken");
    let (pretender, target) = (&world.pretender, world.target);
    let send = |number| world.send(number);

    // To a node that dialled: that a frame was taken which it never sent.
    send(0).expect("the way is free");
    let (mut first, offer) = pretender.offer();
    assert_eq!(offer("session"), 1);
    first.answer(&HAS_NOTHING);
    assert_eq!(first.records(&mut unpacker(), 1), [(false, 0)]);
    let mut packer = Packer::default();
    packer.took(99, 0);
    packer.greet();
    first.stream.write_all(packer.to_write()).expect("it listens");
    until("it is counted", || sum(&world.near, |core| core.far_broken) == 1);
    until("a new session takes messages", || send(1).is_ok());
    let (mut second, offer) = pretender.offer();
    assert_eq!((offer("session"), offer("resumes")), (2, 0), "the session goes on");
    second.answer(&HAS_NOTHING);
    let mut heard = unpacker();
    assert_eq!(second.records(&mut heard, 1), [(false, 1)]);

    // To one that was dialled: a frame before which one is missing.
    let mut dials = Said::to(world.places.rpc_of(2));
    let answer = dials.offer(with_versions(offer_of(901), 2, 2)).expect("it is believed");
    assert_eq!(numbers(answer)("taken"), 0);
    let mut packer = Packer::default();
    packer.put(&Record::Full(target.agent));
    let bytes = packer.to_write().len();
    packer.wrote(bytes);
    packer.put(&Record::Room(target.agent));
    dials.stream.write_all(packer.to_write()).expect("it listens");
    assert!(dials.is_closed(), "the connection goes on");
    until("it is counted", || sum(&world.far, |core| core.far_broken) == 1);
    let mut again = Said::to(world.places.rpc_of(2));
    let answer = again.offer(with_versions(offer_that(901, 1), 2, 2)).expect("it is believed");
    assert!(View::new(&answer).get("taken").is_none(), "the session goes on");
    drop((second, dials, again));
    world.stop();
}

#[test]
fn a_node_that_knows_no_session_that_it_is_offered_is_given_up_in_bounded_time() {
    let world = Pretended::new("never");
    world.send(0).expect("the way is free");
    let deadline = Instant::now() + WAIT;
    let mut sessions = 0;
    while sum(&world.near, |core| core.far_lost) == 0 {
        assert!(Instant::now() < deadline, "it is dialled for ever: {sessions} sessions");
        let Ok((mut said, offer)) = world.pretender.offers.recv_timeout(Duration::from_millis(50))
        else {
            continue;
        };
        sessions += 1;
        let offer = numbers(offer);
        assert_eq!((offer("session"), offer("resumes")), (sessions, 0));
        said.answer(&ANSWER);
    }
    assert!(sessions > 1, "it is given up at once");
    until("each is counted", || sum(&world.near, |core| core.far_broken) == sessions);
    world.stop();
}

#[test]
fn a_session_goes_on_while_a_stranger_answers_for_its_node() {
    let world = Pretended::new("impostor");
    let pretender = &world.pretender;
    let send = |number| world.send(number);
    let dialled = || {
        let (said, offer) = pretender.offer();
        (said, (offer("session"), offer("resumes")))
    };
    send(0).expect("the way is free");
    let (mut node, offered) = dialled();
    assert_eq!(offered, (1, 0));
    node.answer(&HAS_NOTHING);
    let mut unpacker = unpacker();
    assert_eq!(node.records(&mut unpacker, 1), [(false, 0)]);
    drop(node);
    send(1).expect("the way is free");

    for code in ["conflict", "invalid", "not_found", "unauthorized"] {
        let (mut stranger, offered) = dialled();
        assert_eq!(offered, (1, 1), "{code} ended the session");
        stranger.refuse(code);
        assert!(stranger.is_told_nothing());
    }
    let no_version = numbered(&[ANSWER[0], ("taken", 1)]);
    let no_length = numbered(&[ANSWER[1], ("taken", 1)]);
    let other_version = numbered(&[ANSWER[0], ("version", 7), ("taken", 1)]);
    let odd_challenge = Params::new().bin("challenge", &[9; 31]);
    for (place, answer) in [no_version, no_length, other_version, odd_challenge].iter().enumerate()
    {
        let (mut stranger, offered) = dialled();
        assert_eq!(offered, (1, 1), "answer {place} ended the session");
        stranger.answer_with(answer.clone());
        assert!(stranger.is_told_nothing(), "answer {place} is believed");
        until("it is counted", || sum(&world.near, |core| core.far_refused) == place as u64 + 1);
    }
    let (mut stranger, offered) = dialled();
    assert_eq!(offered, (1, 1));
    stranger.stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("it listens");
    assert!(stranger.is_told_nothing());
    until("it is counted", || sum(&world.near, |core| core.far_refused) == 5);

    // The node is back.
    let (mut node, offered) = dialled();
    assert_eq!(offered, (1, 1));
    node.answer(&[ANSWER[0], ANSWER[1], ("taken", 1)]);
    assert_eq!(node.records(&mut unpacker, 1), [(false, 1)]);
    assert_eq!(sum(&world.near, |core| core.far_lost + core.far_broken), 0);
    drop(node);
    world.stop();
}
