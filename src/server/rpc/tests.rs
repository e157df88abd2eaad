//! The door of MessagePack-RPC through a real socket.

mod bounds;
mod late;
mod lent;
mod long;
mod memory;
mod nodes;
mod tokens;

use super::serve_rpc;
use crate::{
    server::{
        Drain,
        testing::{AGENT, LIMITS, Socket, TestEngine, TestNode, with_server},
    },
    wire::{
        json,
        msgpack::{Reader, Scan, Scanner, write},
        secret::Secret,
    },
};
use async_io::Timer;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use std::{
    net::{Shutdown, SocketAddr},
    rc::Rc,
    time::Duration,
};

fn with_rpc<C: Future<Output = ()>>(client: impl FnOnce(SocketAddr, Rc<TestNode>, Rc<Drain>) -> C) {
    let serve = |stream, node, drain| serve_rpc(stream, node, LIMITS, TestEngine, drain, None);
    with_server(serve, client);
}

const TOKEN: &str = "0123456789abcdef";

/// A node that asks for [`TOKEN`].
fn with_token<C: Future<Output = ()>>(client: impl FnOnce(SocketAddr, Rc<TestNode>) -> C) {
    let serve = |stream, node, drain| {
        let token = Secret::parse(TOKEN.as_bytes()).ok();
        serve_rpc(stream, node, LIMITS, TestEngine, drain, token)
    };
    with_server(serve, |address, node, _| client(address, node));
}

struct Client {
    stream: Socket,
    received: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self { stream: Socket::connect(address).await.unwrap(), received: Vec::new() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next answer, as JSON text; none when the connection ended.
    async fn answer(&mut self) -> Option<String> {
        loop {
            if let Scan::Complete(len) = Scanner::new(1 << 20).scan(&self.received) {
                let answer: Vec<u8> = self.received.drain(..len).collect();
                let mut text = Vec::new();
                json::from_msgpack(&answer, &mut text).unwrap();
                return Some(String::from_utf8(text).unwrap());
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece).await {
                Ok(0) | Err(_) => return None,
                Ok(len) => self.received.extend_from_slice(&piece[..len]),
            }
        }
    }

    async fn call(&mut self, method: &str, params: &str) -> String {
        self.send(&request(1, method, params)).await;
        self.answer().await.unwrap()
    }
}

fn msgpack(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let document = json::Document::parse(&mut bytes, 1 << 20).unwrap();
    let mut out = Vec::new();
    json::to_msgpack(document.root(), &mut out);
    out
}

fn request(msgid: u32, method: &str, params: &str) -> Vec<u8> {
    msgpack(&format!("[0,{msgid},\"{method}\",[{params}]]"))
}

const FIRST: &str = "t0-00000000000000000000000000000000";

#[test]
fn a_task_is_submitted_and_its_result_read() {
    with_rpc(|address, _, _| async move {
        let mut client = Client::connect(address).await;
        let answer = client.call("task.submit", r#"{"type":"echo","payload":{"n":[1,2]}}"#).await;
        assert_eq!(answer, format!(r#"[1,1,null,{{"id":"{FIRST}"}}]"#));
        let answer =
            client.call("task.result", &format!(r#"{{"id":"{FIRST}","wait_ms":1}}"#)).await;
        let status = r#""type":"echo","status":"done","priority":"normal","attempts":1"#;
        let result = format!(r#"{{"id":"{FIRST}",{status},"result":{{"n":[1,2]}}}}"#);
        assert_eq!(answer, format!("[1,1,null,{result}]"));
        let answer = client.call("task.status", &format!(r#"{{"id":"{FIRST}"}}"#)).await;
        assert_eq!(answer, format!(r#"[1,1,null,{{"id":"{FIRST}",{status}}}]"#));
    });
}

#[test]
fn every_method_answers_with_a_map() {
    with_rpc(|address, node, _| async move {
        let mut client = Client::connect(address).await;
        let agent = AGENT.to_string();
        for (method, params, expected) in [
            (
                "task.submit_batch",
                r#"{"tasks":[{"type":"echo","payload":1},{"type":"slow","payload":null}]}"#.into(),
                r#"{"ids":["t0-00000000000000000000000000000000","t0-00000000000000000000000000000001"]}"#
                    .to_owned(),
            ),
            ("task.cancel", format!(r#"{{"id":"{FIRST}"}}"#), r#"{"cancelled":false}"#.into()),
            ("agent.spawn", r#"{"type":"echo","name":"x"}"#.into(), format!(r#"{{"id":"{agent}"}}"#)),
            ("agent.stop", format!(r#"{{"id":"{agent}"}}"#), "{}".into()),
            ("agent.send", format!(r#"{{"id":"{agent}","payload":7}}"#), "{}".into()),
            (
                "agent.call",
                format!(r#"{{"id":"{agent}","payload":"x","timeout_ms":9}}"#),
                r#"{"result":"x"}"#.into(),
            ),
        ] {
            let answer = client.call(method, &params).await;
            assert_eq!(answer, format!("[1,1,null,{expected}]"), "{method}");
        }
        assert_eq!(*node.sent.borrow(), [vec![7]]);
        let agents = client.call("agent.list", "").await;
        assert!(agents.contains(r#""name":"first","state":"ready""#), "{agents}");
        let stats = client.call("node.stats", "{}").await;
        assert!(stats.contains(r#""totals":{"agents":2,"#), "{stats}");
    });
}

#[test]
fn wrong_parameters_are_named_and_the_connection_goes_on() {
    with_rpc(|address, _, _| async move {
        let mut client = Client::connect(address).await;
        for (method, params, code, message) in [
            ("task.submit", r#"{"payload":1}"#, "invalid", "type is missing"),
            ("task.submit", r#"{"type":"echo"}"#, "invalid", "payload is missing"),
            ("task.submit", r#"{"type":7,"payload":1}"#, "invalid", "type must be a string"),
            ("task.submit", r#"{"type":"echo","payload":1,"x":1}"#, "invalid", "x is not a field"),
            (
                "task.submit",
                r#"{"type":"echo","payload":1,"priority":"max"}"#,
                "invalid",
                "priority",
            ),
            (
                "task.submit",
                r#"{"type":"echo","payload":1,"timeout_ms":0}"#,
                "invalid",
                "timeout_ms",
            ),
            ("task.submit", r#"{"type":"echo","payload":1,"max_attempts":-1}"#, "invalid", "max_"),
            (
                "task.submit",
                r#"{"type":"echo","payload":1,"durable":1}"#,
                "invalid",
                "durable must be true or false",
            ),
            ("worker.fetch", "{}", "invalid", "worker.fetch comes after worker.register"),
            ("worker.register", r#"{"types":[],"capacity":1}"#, "invalid", "types must name"),
            ("worker.register", r#"{"types":["echo"],"capacity":0}"#, "invalid", "capacity"),
            ("task.submit_batch", r#"{"tasks":[{"type":"echo"}]}"#, "invalid", "tasks[0]: payload"),
            ("task.status", r#"{"id":"t0"}"#, "invalid", "id is not right: a task id is t"),
            ("task.status", "1,2", "invalid", "params must be an array with one map"),
            ("task.status", "1", "invalid", "parameters must be a map"),
            ("node.stats", r#"{"x":1}"#, "invalid", "x is not a field"),
            ("task.tidy", "{}", "not_found", "there is no method task.tidy"),
            ("task.list", r#"{"status":"lost"}"#, "invalid", "status must be queued"),
            ("task.submit", r#"{"type":"full","payload":1}"#, "backpressure", "try again in 50 ms"),
        ] {
            let answer = client.call(method, params).await;
            assert!(answer.starts_with(&format!(r#"[1,1,{{"code":"{code}""#)), "{answer}");
            assert!(answer.contains(message), "{answer}");
        }
        let answer = client.call("task.submit", r#"{"type":"full","payload":1}"#).await;
        assert!(answer.contains(r#""retry_after_ms":50"#), "{answer}");
        assert!(client.call("node.stats", "").await.contains("version"));
    });
}

#[test]
fn pipelined_submissions_share_a_visit_and_each_is_answered() {
    with_rpc(|address, node, _| async move {
        let mut client = Client::connect(address).await;
        let frames: Vec<u8> = (0..50)
            .flat_map(|msgid| request(msgid, "task.submit", r#"{"type":"echo","payload":1}"#))
            .collect();
        client.send(&frames).await;
        for msgid in 0..50 {
            let answer = client.answer().await.unwrap();
            assert!(answer.starts_with(&format!(r#"[1,{msgid},null,{{"id":"t0-"#)), "{answer}");
        }
        assert!(node.submissions.get() < 10, "{} submissions", node.submissions.get());
    });
}

#[test]
fn a_refused_neighbour_does_not_refuse_others() {
    with_rpc(|address, _, _| async move {
        let mut client = Client::connect(address).await;
        let task = |agent_type: &str| format!(r#"{{"type":"{agent_type}","payload":1}}"#);
        let frames: Vec<u8> = ["echo", "none", "none", "echo"]
            .iter()
            .zip(0..)
            .flat_map(|(agent_type, msgid)| request(msgid, "task.submit", &task(agent_type)))
            .collect();
        client.send(&frames).await;
        let mut answers = Vec::new();
        for _ in 0..4 {
            answers.push(client.answer().await.unwrap());
        }
        answers.sort();
        let refused: Vec<bool> = answers.iter().map(|a| a.contains("not_found")).collect();
        assert_eq!(refused, [false, true, true, false], "{answers:?}");
    });
}

#[test]
fn a_wait_does_not_hold_up_what_follows_it() {
    with_rpc(|address, _, _| async move {
        let mut client = Client::connect(address).await;
        client.call("task.submit", r#"{"type":"slow","payload":1}"#).await;
        client
            .send(&request(2, "task.result", &format!(r#"{{"id":"{FIRST}","wait_ms":9}}"#)))
            .await;
        client.send(&request(3, "node.stats", "")).await;
        assert!(client.answer().await.unwrap().starts_with("[1,3,"));
        assert!(client.answer().await.unwrap().starts_with("[1,2,"));
    });
}

#[test]
fn notifications_are_done_and_not_answered() {
    with_rpc(|address, node, _| async move {
        let mut client = Client::connect(address).await;
        client.send(&msgpack(r#"[2,"task.submit",[{"type":"echo","payload":1}]]"#)).await;
        client.send(&msgpack(r#"[2,"task.nonsense",[]]"#)).await;
        assert!(client.call("node.stats", "").await.starts_with("[1,1,null"));
        assert_eq!(node.tasks.borrow().len(), 1);
    });
}

#[test]
fn answers_are_messagepack_that_other_implementations_read() {
    with_rpc(|address, _, _| async move {
        let mut client = Client::connect(address).await;
        let mut frame = vec![0x94, 0];
        write::uint(&mut frame, u32::MAX.into());
        frame.extend_from_slice(&msgpack(r#""task.cancel""#));
        frame.extend_from_slice(&msgpack(&format!(r#"[{{"id":"{FIRST}"}}]"#)));
        client.send(&frame).await;
        client.answer().await.unwrap();
        client.send(&frame).await;
        let mut bytes = [0; 256];
        let len = client.stream.read(&mut bytes).await.unwrap();
        let mut reader = Reader::new(&bytes[..len]);
        assert_eq!((reader.array(), reader.uint()), (Ok(4), Ok(1)));
        assert_eq!(reader.uint(), Ok(u32::MAX.into()));
        assert_eq!(reader.map(), Ok(2));
    });
}
