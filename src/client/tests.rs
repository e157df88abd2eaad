//! The client against the server's own codec, and against a served connection.

use super::{Answer, Client, ClientError, Params, Refusal, View, connect, frame};
use crate::{
    server::{
        rpc::{frame as server, serve_rpc},
        testing::{LIMITS, TestEngine, with_server},
    },
    wire::{
        api::Error,
        id::TaskId,
        msgpack::{Scan, Scanner, write},
    },
};
use proptest::prelude::*;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(10);

/// Runs a blocking client on a thread of its own against a served node.
fn with_node(client: impl FnOnce(SocketAddr) + Send + 'static) {
    let serve = |stream, node, drain| serve_rpc(stream, node, LIMITS, TestEngine, drain, None);
    with_server(serve, |address, _, _| async move {
        blocking::unblock(move || client(address)).await;
    });
}

fn submit(payload: u64) -> Params {
    Params::new().str("type", "echo").with("payload", |out| write::uint(out, payload))
}

proptest! {
    #[test]
    fn the_server_reads_what_the_client_writes(
        msgid: u32, method in "[a-z.]{1,40}", name in ".{0,300}", number: u64,
    ) {
        let params = Params::new().str("name", &name).uint_if("number", Some(number));
        let mut bytes = Vec::new();
        frame::request(&mut bytes, msgid, &method, |out| params.write(out));
        prop_assert_eq!(Scanner::new(1 << 20).scan(&bytes), Scan::Complete(bytes.len()));
        let call = server::Call::parse(&bytes).unwrap();
        prop_assert_eq!((call.msgid, call.method), (Some(msgid), &*method));
        let fields = View::new(call.fields().unwrap());
        prop_assert_eq!(fields.get("name").and_then(View::str), Some(&*name));
        prop_assert_eq!(fields.get("number").and_then(View::uint), Some(number));
    }

    #[test]
    fn the_client_reads_what_the_server_writes(
        msgid: u32, partition: u16, random: u128, text in ".{0,200}", retry_after_ms: u64,
    ) {
        let id = TaskId { partition, random };
        let mut bytes = Vec::new();
        server::submitted(&mut bytes, msgid, id);
        let answer = Answer::parse(&bytes).unwrap();
        prop_assert_eq!(answer.msgid, Some(msgid));
        let read = answer.outcome.unwrap().get("id").and_then(View::str).unwrap();
        prop_assert_eq!(read.parse(), Ok(id));
        for error in [Error::StaleLease(text.clone()), Error::Backpressure(retry_after_ms)] {
            bytes.clear();
            server::refuse(&mut bytes, Some(msgid), &error);
            let refusal = Refusal::of(Answer::parse(&bytes).unwrap().outcome.unwrap_err());
            prop_assert_eq!(&refusal.code, error.code());
            prop_assert_eq!(&refusal.message, &error.to_string());
            prop_assert_eq!(refusal.retry_after_ms, error.retry_after_ms());
        }
    }

    #[test]
    fn no_bytes_make_the_client_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(Answer { outcome: Err(error) | Ok(error), .. }) = Answer::parse(&bytes) {
            let _ = Refusal::of(error);
        }
    }
}

#[test]
fn calls_are_answered_and_refusals_have_their_code() {
    with_node(|address| {
        let mut client = Client::connect(address, LIMIT).unwrap();
        let id = client.call("task.submit", &submit(7)).unwrap().get("id").unwrap().to_json();
        let id = id.unwrap().replace('"', "");
        let ended = client.call("task.result", &Params::new().str("id", &id)).unwrap();
        assert_eq!(ended.get("result").and_then(View::uint), Some(7));
        let error = client.call("task.submit", &Params::new().str("type", "echo"));
        let ClientError::Refused(refusal) = error.unwrap_err() else { panic!("not a refusal") };
        assert_eq!(refusal.code, "invalid");
        let full = Params::new().str("type", "full").value("payload", &[0xc0]);
        let error = client.call("task.submit", &full).unwrap_err();
        assert!(!error.is_uncertain(), "a refused request did nothing");
        let ClientError::Refused(refusal) = error else { panic!("not a refusal") };
        assert_eq!((&*refusal.code, refusal.retry_after_ms), ("backpressure", Some(50)));
        client.call("node.stats", &Params::new()).expect("the connection goes on");
    });
}

#[test]
fn a_late_answer_is_not_taken_for_that_of_the_next_call() {
    with_node(|address| {
        let mut client = Client::connect(address, LIMIT).unwrap();
        let slow = Params::new().str("type", "slow").value("payload", &[0xc0]);
        let id = client.call("task.submit", &slow).unwrap().get("id").unwrap();
        let wait = Params::new().value("id", id.bytes()).uint_if("wait_ms", Some(5000));
        let error = client.call_within("task.result", &wait, Duration::from_millis(1));
        assert!(matches!(error, Err(ClientError::TimedOut(_))), "{error:?}");
        let id = client.call("task.submit", &submit(1)).unwrap().get("id").and_then(View::str);
        assert!(id.is_some_and(|id| id.starts_with("t0-")), "the answer of the submission");
        let again = client.call("task.result", &wait).unwrap();
        assert_eq!(again.get("status").and_then(View::str), Some("done"));
    });
}

#[test]
fn thousands_of_requests_under_way_are_all_answered_once() {
    const REQUESTS: u32 = 20_000;
    with_node(|address| {
        let (mut sender, mut receiver) = connect(address, LIMIT).unwrap();
        let mut answered = vec![false; REQUESTS as usize];
        let (mut sent, mut open) = (0, 0);
        while sent < REQUESTS || open > 0 {
            while sent < REQUESTS && open < 1000 {
                sender.push(sent, "task.submit", |out| submit(sent.into()).write(out));
                (sent, open) = (sent + 1, open + 1);
            }
            sender.flush().unwrap();
            assert!(receiver.fill(LIMIT).unwrap(), "no answer in time");
            while let Some(answer) = receiver.buffered().unwrap() {
                let msgid = answer.msgid.unwrap() as usize;
                assert!(answer.outcome.unwrap().get("id").is_some());
                assert!(!std::mem::replace(&mut answered[msgid], true), "{msgid} twice");
                open -= 1;
            }
        }
        assert!(answered.iter().all(|answered| *answered));
    });
}

#[test]
fn an_answer_of_megabytes_is_read_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let large = vec![7; 5 << 20];
    let sent = large.clone();
    let node = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for msgid in 1..=2 {
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            let mut bytes = Vec::new();
            write::array(&mut bytes, 4);
            write::uint(&mut bytes, 1);
            write::uint(&mut bytes, msgid);
            write::nil(&mut bytes);
            write::bin(&mut bytes, &sent);
            stream.write_all(&bytes).unwrap();
        }
    });
    let mut client = Client::connect(address, LIMIT).unwrap();
    for _ in 1..=2 {
        let result = client.call("any", &Params::new()).unwrap();
        assert_eq!(&result.bytes()[5..], large);
    }
    node.join().unwrap();
}

#[test]
fn what_is_no_answer_and_what_ends_are_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let node = thread::spawn(move || {
        for bytes in [&[0xc1][..], &[0x93, 1, 2, 3], b"HTTP/1.1 400 Bad Request\r\n", &[0x94, 1]] {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            stream.write_all(bytes).unwrap();
        }
    });
    let mut garbled = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(address, LIMIT).unwrap();
        let error = client.call("any", &Params::new()).unwrap_err();
        assert!(error.is_uncertain(), "{error}");
        garbled.push(matches!(error, ClientError::Garbled(_)));
    }
    node.join().unwrap();
    assert_eq!(garbled[..3], [true, true, true]);
    assert!(!garbled[3], "half an answer is a lost connection");
    let error = Client::connect(address, LIMIT).err().expect("nobody listens any more");
    assert!(matches!(error, ClientError::Unreachable { .. }) && !error.is_uncertain(), "{error}");
}
