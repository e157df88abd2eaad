//! What nodes prove to each other before they say anything, and to whom they say nothing: a real node, and
//! one whose words are the test's.

use super::{
    WAIT,
    far::{Places, addresses, some, stop},
    far_said::{
        HAS_NOTHING, Nobody, Pretended, Said, numbered, offer_of, sum, until, with_versions,
    },
    receive,
};
use coreflow::{
    client::{Params, View},
    node::{
        Node,
        gateway::{Gateway, Known},
    },
    shard::{
        agent::{Agent, Message, ReplyTo},
        context::Context,
    },
    wire::{api::Error, id::AgentAddress, secret::Secret},
};
use std::{
    io::ErrorKind,
    net::TcpListener,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Keeps a call, and answers it when a message comes.
struct Late {
    called: mpsc::Sender<()>,
    asked: Option<ReplyTo>,
}

impl Agent for Late {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        match message.reply_to() {
            Some(asked) => {
                self.asked = Some(asked);
                self.called.send(()).expect("the test waits");
            }
            None => context.reply(self.asked.take().expect("it was called"), b"late"),
        }
    }
}

/// A call of an agent of node 2, from node 1, that waits for its answer.
struct Called {
    near: Node,
    far: Node,
    late: AgentAddress,
    call: JoinHandle<Result<Vec<u8>, Error>>,
}

impl Called {
    fn new(places: &Places) -> Self {
        let (called, calls) = mpsc::channel();
        let far = places.start(2, |builder| {
            builder.agent("late", some(1), move || Late { called: called.clone(), asked: None })
        });
        let late = addresses(&far, 2, "late", 1)[0];
        let near = places.start(1, |builder| builder);
        let handle = near.handle();
        let call = thread::spawn(move || {
            handle.wait(move |gateway| gateway.call(late, b"x".to_vec(), WAIT.as_millis() as u64))
        });
        receive(&calls);
        Self { near, far, late, call }
    }

    /// Lets the agent answer, and waits for it; gives both nodes.
    fn until_answered(self) -> (Node, Node) {
        let late = self.late;
        let sent = self.near.handle().wait(move |gateway| gateway.send(late, b"answer".to_vec()));
        sent.expect("the way is free");
        assert_eq!(self.call.join().expect("it does not panic"), Ok(b"late".to_vec()));
        (self.near, self.far)
    }
}

#[test]
fn who_does_not_know_the_secret_ends_no_session_of_a_member() {
    let places = Places::of("secret", 2).with_secret("0123456789abcdef");
    let called = Called::new(&places);
    // In the name of each core that may have called, with no proof and with a wrong one.
    let mut answers = Vec::new();
    for core in 0..16 {
        let mut stranger = Said::to(places.rpc_of(2));
        answers.push(stranger.offer(offer_of(core)));
        let mut stranger = Said::to(places.rpc_of(2));
        answers.push(stranger.offer(with_versions(offer_of(core), 2, 2)));
        let proof = with_versions(offer_of(core), 2, 2).bin("proof", &[7; 32]);
        answers.push(stranger.offer(proof));
    }
    let (near, far) = called.until_answered();
    for answer in answers {
        match answer {
            Ok(answer) => assert!(View::new(&answer).get("taken").is_none(), "it was believed"),
            Err(refused) => {
                let why = ["secret_file", "version"].iter().any(|why| refused.contains(why));
                assert!(why, "{refused}");
            }
        }
    }
    until("refusals are counted", || sum(&far, |core| core.far_refused) == 32);
    assert_eq!(sum(&far, |core| core.far_broken) + sum(&near, |core| core.far_lost), 0);
    stop(near);
    stop(far);
}

#[test]
fn who_answers_for_a_member_and_does_not_prove_the_secret_is_told_nothing() {
    let places = Places::of("stranger", 2).with_secret("0123456789abcdef");
    // Who passes on what the node proves gets as far as the offer.
    let secret = Secret::parse(b"0123456789abcdef").expect("sixteen bytes");
    let world = Pretended::at(places, Some(Known::new(2, secret)));
    let challenge = || Params::new().bin("challenge", &[9; 32]);
    let heard = || numbered(&HAS_NOTHING);
    // With no proof asked and none given, with one asked and none given, and with a wrong one.
    let strangers = [
        vec![heard()],
        vec![challenge(), heard()],
        vec![challenge(), heard().bin("proof", &[9; 32])],
    ];
    for (place, answers) in strangers.into_iter().enumerate() {
        until("the node is dialled", || world.send(0).is_ok());
        let (mut said, first) = receive(&world.pretender.offers);
        let words = answers.len();
        let mut challenges = vec![first];
        for (word, answer) in answers.into_iter().enumerate() {
            said.answer_with(answer);
            if word + 1 < words {
                challenges.push(said.asked());
            }
        }
        assert!(said.is_told_nothing(), "stranger {place} is believed");
        for offer in &challenges {
            let own = View::new(offer).get("challenge").and_then(View::bin);
            assert_eq!(own.expect("it asks for a proof").len(), 32);
        }
        let refused = place as u64 + 1;
        until("the refusal is counted", || sum(&world.near, |core| core.far_refused) == refused);
        until("it is counted as lost", || sum(&world.near, |core| core.far_lost) == refused);
    }
    world.stop();
}

const TOKEN: &str = "the-token-of-all-clients";

#[test]
fn who_takes_requests_at_the_address_of_a_member_is_not_told_the_token() {
    let mut places = Places::of("token", 2).with_token(TOKEN).with_secret("0123456789abcdef");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    places.say_rpc_of(2, listener.local_addr().expect("it listens"));
    let far = places.start(2, |builder| builder.agent("late", some(1), || Nobody));
    let near = places.start(1, |builder| builder);
    let target: AgentAddress = addresses(&far, 2, "late", 1)[0];
    let handle = near.handle();
    listener.set_nonblocking(true).expect("a socket");
    // Without an answer, and with every one that a stranger can make up.
    let made_up = || Params::new().bin("challenge", &[9; 32]).bin("proof", &[9; 32]);
    for answer in [None, Some(Params::new()), Some(made_up())] {
        let send = || handle.wait(move |gateway| gateway.send(target, b"x".to_vec()));
        until("the node is dialled", || send().is_ok());
        let deadline = Instant::now() + WAIT;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "it is not dialled");
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
        };
        stream.set_nonblocking(false).expect("a socket");
        let mut stranger = Said::new(stream);
        let first = stranger.value().expect("it says something");
        let mut heard = first.clone();
        let parts: Vec<View<'_>> = View::new(&first).items().collect();
        stranger.msgid = parts[1].uint().expect("a request");
        if let Some(answer) = answer {
            stranger.answer_with(answer);
        }
        heard.extend(std::iter::from_fn(|| stranger.value()).flatten());
        let says = |word: &[u8]| heard.windows(word.len()).any(|part| part == word);
        assert!(!says(TOKEN.as_bytes()), "the token is said");
        assert!(!says(b"here."), "a request is said");
        assert!(says(b"auth") && says(b"challenge"), "it asks for a proof");
    }
    stop(near);
    stop(far);
}

#[test]
fn nodes_that_ask_for_a_token_prove_the_secret_to_each_other_and_talk() {
    let places = Places::of("proven", 2).with_token(TOKEN).with_secret("0123456789abcdef");
    let (near, far) = Called::new(&places).until_answered();
    // A node's proof is of no use to a client, who says the token.
    let mut stranger = Said::to(places.rpc_of(2));
    let refused = stranger.offer(with_versions(offer_of(0), 2, 2)).expect_err("no token was said");
    assert!(refused.contains("asks for a token"), "{refused}");
    assert_eq!(sum(&near, |core| core.far_refused + core.far_lost), 0);
    stop(near);
    stop(far);
}
