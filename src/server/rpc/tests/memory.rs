//! Pattern memory through the door: order, batches, long ones.

use super::*;
use crate::server::rpc::connection::LONG_REQUEST;

#[test]
fn changes_of_one_item_take_effect_in_their_order_however_long_their_texts_take() {
    with_rpc(|address, node, _| async move {
        let mut client = Client::connect(address).await;
        let long = format!("{}left", " ".repeat(1000));
        let slow = |key: &str| format!(r#"{{"key":"{key}","text":"{long}"}}"#);
        let named = |key: &str, rest: &str| format!(r#"{{"key":"{key}",{rest}}}"#);
        let mut bytes = Vec::new();
        for (msgid, method, params) in [
            (0, "memory.put", slow("a")),
            (1, "memory.put", slow("b")),
            (2, "memory.put", slow("c")),
            (3, "memory.get", r#"{"key":"nothing"}"#.to_owned()),
            (4, "memory.put", named("a", r#""text":"right""#)),
            (5, "memory.put", named("b", r#""vector":[0,1]"#)),
            (6, "memory.delete", r#"{"key":"c"}"#.to_owned()),
            (7, "memory.put", named("d", r#""text":"right""#)),
        ] {
            bytes.extend(request(msgid, method, &params));
        }
        client.send(&bytes).await;
        let mut answers = Vec::new();
        for _ in 0..8 {
            answers.push(client.answer().await.unwrap());
        }
        let place =
            |id| answers.iter().position(|it| it.starts_with(&format!("[1,{id},"))).unwrap();
        assert!(place(7) < place(0), "what is of another item waits for nothing: {answers:?}");
        assert!(place(6) > place(2) && answers[place(6)].contains("true"), "{answers:?}");
        let memory = node.memory.borrow();
        let vector = |key: &str| {
            memory.get(&("default".to_owned(), key.to_owned())).map(|it| it.vector.clone())
        };
        assert_eq!(vector("a"), Some(vec![0.0, 1.0]));
        assert_eq!(vector("b"), Some(vec![0.0, 1.0]));
        assert_eq!(vector("c"), None);
    });
}

#[test]
fn puts_that_follow_each_other_are_stored_at_once_and_answered_by_themselves() {
    with_rpc(|address, node, _| async move {
        let mut client = Client::connect(address).await;
        let mut puts = Vec::new();
        for (msgid, params) in [
            (1, r#"{"key":"a","vector":[1,0]}"#),
            (2, r#"{"key":"full","vector":[1,0]}"#),
            (3, r#"{"key":"b","vector":[1,0,0]}"#),
            (4, r#"{"key":"a","vector":[0,1]}"#),
            (6, r#"{"key":"t","text":"left"}"#),
            (7, r#"{"key":"u","text":"up"}"#),
        ] {
            puts.extend(request(msgid, "memory.put", params));
        }
        puts.extend(request(5, "memory.search", r#"{"vector":[0,1],"k":9}"#));
        client.send(&puts).await;
        let mut answers = Vec::new();
        for _ in 0..7 {
            answers.push(client.answer().await.unwrap());
        }
        answers.sort();
        assert_eq!(answers[0], r#"[1,1,null,{"key":"a","replaced":false}]"#);
        assert!(answers[1].contains(r#""code":"backpressure""#), "{}", answers[1]);
        assert!(answers[2].contains("vector has 3 numbers"), "{}", answers[2]);
        assert_eq!(answers[3], r#"[1,4,null,{"key":"a","replaced":true}]"#);
        assert!(answers[4].contains(r#""hits":[{"key":"a""#), "{}", answers[4]);
        assert_eq!(answers[5], r#"[1,6,null,{"key":"t","replaced":false}]"#);
        assert!(answers[6].contains("neither left nor right"), "{}", answers[6]);
        assert_eq!(node.puts.get(), 2, "those with a vector, and those with a text");
    });
}

#[test]
fn a_long_batch_is_read_aside_and_its_answer_comes_whole() {
    with_rpc(|address, _, _| async move {
        let mut client = Client::connect(address).await;
        let said = "s".repeat(300);
        let item = |key: usize| {
            let vector = if key == 7 { "[1]" } else { "[1,0]" };
            format!(r#"{{"key":"key-{key}","vector":{vector},"metadata":{{"said":"{said}"}}}}"#)
        };
        let items: Vec<String> = (0..150).map(item).collect();
        let batch =
            request(1, "memory.put_batch", &format!(r#"{{"items":[{}]}}"#, items.join(",")));
        assert!(batch.len() > LONG_REQUEST);
        // In front of it and behind it others, in one piece of the stream.
        let mut bytes = request(0, "memory.put", r#"{"key":"first","vector":[0,1]}"#);
        bytes.extend(&batch);
        bytes.extend(request(2, "memory.get", r#"{"key":"key-149"}"#));
        client.send(&bytes).await;
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(client.answer().await.unwrap());
        }
        answers.sort();
        assert_eq!(answers[0], r#"[1,0,null,{"key":"first","replaced":false}]"#);
        assert_eq!(answers[1].matches(r#""replaced":false"#).count(), 149, "{}", answers[1]);
        assert_eq!(answers[1].matches("vector has 1 numbers").count(), 1, "{}", answers[1]);
        let order = answers[1].find(r#""key":"key-148""#) < answers[1].find(r#""key":"key-149""#);
        assert!(order && answers[1].starts_with("[1,1,null,"), "{}", answers[1]);
        // What is long is handed over whole, in its place among others.
        let mut bytes = request(3, "memory.search", r#"{"vector":[1,0],"k":120}"#);
        bytes.extend(request(4, "memory.get", r#"{"key":"first"}"#));
        client.send(&bytes).await;
        for _ in 0..2 {
            let answer = client.answer().await.unwrap();
            let hits = answer.matches(r#""said":"sss"#).count();
            assert_eq!(hits, if answer.starts_with("[1,3,") { 120 } else { 0 }, "{answer}");
        }
        for (params, message) in [
            (format!(r#"{{"items":{{"a":"{}"}}}}"#, "x".repeat(40_000)), "items must be an array"),
            (format!(r#"{{"items":[],"more":"{}"}}"#, "x".repeat(40_000)), "more"),
            (format!(r#"{{"items":["{}"]}}"#, "x".repeat(40_000)), "an item must be a map"),
        ] {
            let answer = client.call("memory.put_batch", &params).await;
            assert!(answer.contains(message), "{answer:.200}");
        }
    });
}
