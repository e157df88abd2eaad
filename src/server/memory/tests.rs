//! What is asked of the memory, against a node of a few lines.

use super::{MemoryRequest, parse};
use crate::{
    server::testing::TestNode,
    wire::{api::Error, json, memory::FILTER_BYTES_MAX, msgpack::write},
};
use futures_lite::future::block_on;
use proptest::prelude::*;
use std::rc::Rc;

fn msgpack(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let document = json::Document::parse(&mut bytes, 1 << 20).expect("JSON");
    let mut out = Vec::new();
    json::to_msgpack(document.root(), &mut out);
    out
}

fn request(method: &str, params: &[u8]) -> Result<MemoryRequest, Error> {
    parse(method, params).map(|request| request.expect("there is such a method"))
}

/// The answer as JSON, or the error.
fn ask_bytes(node: &Rc<TestNode>, method: &str, params: &[u8]) -> Result<String, Error> {
    let reply = block_on(request(method, params)?.run(node.clone()))?;
    let (mut bytes, mut text) = (Vec::new(), Vec::new());
    reply.write(&mut bytes);
    json::from_msgpack(&bytes, &mut text).expect("an answer has a JSON form");
    Ok(String::from_utf8(text).expect("JSON is UTF-8"))
}

fn ask(node: &Rc<TestNode>, method: &str, params: &str) -> Result<String, Error> {
    ask_bytes(node, method, &msgpack(params))
}

fn refusal(method: &str, params: &str) -> String {
    match ask(&Rc::default(), method, params) {
        Err(Error::Invalid(text)) => text,
        Err(Error::TooLarge(text)) => format!("too large: {text}"),
        other => panic!("{method} {params}: {other:?}"),
    }
}

#[test]
fn what_is_stored_is_found_read_listed_and_deleted() {
    let node = Rc::default();
    let well = |method, params: &str| ask(&node, method, params).expect("well");
    let put = r#"{"key":"a","vector":[1,0],"namespace":"n","metadata":{"x":1}}"#;
    assert_eq!(well("memory.put", put), r#"{"key":"a","replaced":false}"#);
    assert_eq!(well("memory.put", put), r#"{"key":"a","replaced":true}"#);
    assert_eq!(
        well("memory.put", r#"{"key":"b","text":"right"}"#),
        r#"{"key":"b","replaced":false}"#
    );
    assert_eq!(
        well("memory.search", r#"{"text":"right","k":1}"#),
        r#"{"hits":[{"key":"b","namespace":"default","score":1.0,"text":"right","metadata":{}}]}"#
    );
    assert_eq!(
        well("memory.search", r#"{"vector":[0.5,0.25],"namespace":"n","filter":{"x":1}}"#),
        r#"{"hits":[{"key":"a","namespace":"n","score":0.5,"metadata":{"x":1}}]}"#
    );
    assert_eq!(
        well("memory.get", r#"{"key":"a","namespace":"n"}"#),
        r#"{"key":"a","namespace":"n","vector":[1.0,0.0],"metadata":{"x":1}}"#
    );
    assert_eq!(
        well("memory.retrieve", r#"{"key":"b"}"#),
        r#"{"key":"b","namespace":"default","text":"right","metadata":{}}"#
    );
    assert_eq!(
        well("memory.list", r#"{"limit":1}"#),
        r#"{"items":[{"key":"b","namespace":"default","text":"right","metadata":{}}],"cursor":"1"}"#
    );
    assert!(well("memory.list", r#"{"limit":1,"cursor":"1"}"#).contains(r#""key":"a""#));
    assert!(well("memory.stats", "{}").starts_with(
        r#"{"count":2,"dimension":2,"metric":"cosine","embedder":"exec","durable":true"#
    ));
    assert_eq!(well("memory.delete", r#"{"key":"b"}"#), r#"{"deleted":true}"#);
    assert_eq!(well("memory.delete", r#"{"key":"b"}"#), r#"{"deleted":false}"#);
    let gone = ask(&node, "memory.get", r#"{"key":"b"}"#).expect_err("it is gone");
    assert_eq!(gone.code(), "not_found");
}

#[test]
fn an_item_without_a_key_gets_one_of_its_own() {
    let node: Rc<TestNode> = Rc::default();
    for _ in 0..2 {
        let answer = ask(&node, "memory.put", r#"{"vector":[1,0],"key":null}"#).expect("well");
        assert!(answer.contains(r#""replaced":false"#), "{answer}");
    }
    assert_eq!(node.memory.borrow().len(), 2);
    assert!(node.memory.borrow().keys().all(|(_, key)| key.len() == 32));
}

#[test]
fn each_item_of_a_batch_is_stored_or_refused_by_itself() {
    let node: Rc<TestNode> = Rc::default();
    let batch = r#"{"items":[{"key":"a","text":"left"},{"key":"b","text":"up"},
        {"key":"c","vector":[0,2]},{"key":"d","vector":[1]},{"key":"full","vector":[1,1]},
        {"key":"e","vector":[1,1e99]},{"k":1},7]}"#;
    let answer = ask(&node, "memory.put_batch", batch).expect("well");
    let invalid = |text: &str| format!(r#"{{"error":{{"code":"invalid","message":"{text}"}}}}"#);
    let expected = [
        r#"{"key":"a","replaced":false}"#.to_owned(),
        invalid("neither left nor right"),
        r#"{"key":"c","replaced":false}"#.to_owned(),
        invalid("vector has 1 numbers, this memory's have 2 (memory.dimension)"),
        r#"{"error":{"code":"backpressure","message":"the node is full; nothing was accepted, try again in 50 ms","retry_after_ms":50}}"#.to_owned(),
        invalid("vector[1] is not finite in float32"),
        invalid(
            "k is not a field of this method, which has: key, vector, text, namespace, metadata",
        ),
        invalid("an item must be a map"),
    ];
    assert_eq!(answer, format!(r#"{{"results":[{}]}}"#, expected.join(",")));
    assert_eq!(node.puts.get(), 1, "what is well is stored at once");
    assert_eq!(
        ask(&node, "memory.put_batch", r#"{"items":[]}"#).as_deref(),
        Ok(r#"{"results":[]}"#)
    );
}

#[test]
fn bytes_of_float32_are_a_vector() {
    let node = Rc::default();
    let mut params = Vec::new();
    write::map(&mut params, 2);
    write::str(&mut params, "key");
    write::str(&mut params, "a");
    write::str(&mut params, "vector");
    let bytes: Vec<u8> = [0.5f32, -2.0].iter().flat_map(|number| number.to_le_bytes()).collect();
    write::bin(&mut params, &bytes);
    ask_bytes(&node, "memory.put", &params).expect("stored");
    assert_eq!(node.memory.borrow().values().next().expect("one").vector, [0.5, -2.0]);
    params.pop();
    params.pop();
    let at = params.len() - 7;
    params[at] = 6;
    let error = ask_bytes(&node, "memory.put", &params).expect_err("six bytes");
    assert_eq!(error.to_string(), "vector has 6 bytes, and a float32 has four");
}

#[test]
fn what_is_wrong_is_refused_with_the_field_and_the_reason() {
    let put = |params: &str| refusal("memory.put", params);
    assert_eq!(put("{}"), "vector or text is missing");
    assert!(put(r#"{"vector":[1,0],"text":"left"}"#).starts_with("vector and text are both there"));
    assert_eq!(
        put(r#"{"vector":[1,0],"colour":1}"#),
        "colour is not a field of this method, which has: key, vector, text, namespace, metadata"
    );
    assert_eq!(
        put(r#"{"vector":[1,0,0]}"#),
        "vector has 3 numbers, this memory's have 2 (memory.dimension)"
    );
    assert_eq!(put(r#"{"vector":[]}"#), "vector is empty");
    assert!(put(r#"{"vector":[1,"0"]}"#).starts_with("vector must be an array of numbers"));
    assert!(put(r#"{"vector":"AAAA"}"#).starts_with("vector must be an array of numbers"));
    assert_eq!(put(r#"{"vector":[1,1e300]}"#), "vector[1] is not finite in float32");
    assert!(put(r#"{"vector":[0,0]}"#).starts_with("vector is zero, and the cosine"));
    assert_eq!(put(r#"{"text":"up"}"#), "neither left nor right");
    assert_eq!(put(r#"{"text":""}"#), "text must not be empty");
    assert_eq!(put(r#"{"vector":[1,0],"key":""}"#), "key must not be empty");
    assert_eq!(put(r#"{"vector":[1,0],"metadata":[1]}"#), "metadata must be a map with text keys");
    assert_eq!(
        put(r#"{"vector":[1,0],"metadata":{"b":1,"a":{"b":2},"c":3,"b":1}}"#),
        "metadata has the key b twice"
    );
    let long = "x".repeat(257);
    assert_eq!(
        put(&format!(r#"{{"vector":[1,0],"key":"{long}"}}"#)),
        "too large: key is 257 bytes, the limit is 256"
    );
    assert!(put(&format!(r#"{{"vector":[1,0],"namespace":"{}"}}"#, &long[..65])).contains("64"));
    assert!(put(&format!(r#"{{"text":"{}"}}"#, "x".repeat(65537))).contains("the limit is 65536"));
    let many = "1,".repeat(4096);
    assert!(put(&format!(r#"{{"vector":[{many}1]}}"#)).contains("4097 numbers"));

    let search = |params: &str| refusal("memory.search", params);
    assert_eq!(search(r#"{"vector":[1,0],"k":0}"#), "k must be an integer from 1 to 1000");
    assert_eq!(search(r#"{"vector":[1,0],"k":1001}"#), "k must be an integer from 1 to 1000");
    assert_eq!(search(r#"{"vector":[1,0],"ef":5000}"#), "ef must be an integer from 1 to 4096");
    for k in ["1.5", "-1", "\"3\""] {
        let said = search(&format!(r#"{{"vector":[1,0],"k":{k}}}"#));
        assert_eq!(said, "k must be an integer from 1 to 1000");
    }
    assert_eq!(search(r#"{"k":5}"#), "vector or text is missing");
    assert_eq!(search(r#"{"vector":[1,0],"filter":7}"#), "filter must be a map with text keys");
    assert_eq!(search(r#"{"vector":[1,0],"filter":{"a":1,"a":1}}"#), "filter has the key a twice");
    assert_eq!(
        search(r#"{"vector":[1]}"#),
        "vector has 1 numbers, this memory's have 2 (memory.dimension)"
    );
    assert_eq!(search(r#"{"text":"up"}"#), "neither left nor right");

    assert_eq!(refusal("memory.get", "{}"), "key is missing");
    assert_eq!(
        refusal("memory.delete", r#"{"key":"a","vector":true}"#),
        "vector is not a field of this method, which has: key, namespace"
    );
    assert_eq!(refusal("memory.list", r#"{"limit":0}"#), "limit must be an integer from 1 to 1000");
    assert_eq!(refusal("memory.stats", r#"{"sample":5000}"#), "sample must be at most 1000");
    assert_eq!(refusal("memory.put_batch", r#"{"items":7}"#), "items must be an array of maps");
}

#[test]
fn metadata_have_a_thousand_fields_and_filters_some_kilobytes() {
    let node: Rc<TestNode> = Rc::default();
    let fields = |count: usize| {
        let fields: Vec<String> = (0..count).map(|at| format!(r#""{at}":1"#)).collect();
        format!(r#"{{"vector":[1,0],"metadata":{{{}}}}}"#, fields.join(","))
    };
    assert!(ask(&node, "memory.put", &fields(1024)).is_ok());
    let error = ask(&node, "memory.put", &fields(1025)).expect_err("too many");
    assert_eq!(error.to_string(), "metadata has 1025 fields; allowed: 1024");
    for count in [10, 1000] {
        let twice = fields(count).replace(r#""9":1"#, r#""9":1,"3":2"#);
        let error = ask(&node, "memory.put", &twice).expect_err("one key twice");
        assert_eq!(error.to_string(), "metadata has the key 3 twice", "{count} fields");
    }
    let search = |letters: usize| {
        let said = "x".repeat(letters);
        ask(&node, "memory.search", &format!(r#"{{"vector":[1,0],"filter":{{"a":"{said}"}}}}"#))
    };
    // A map of one field, its name and the head of the text are 6 bytes.
    assert!(search(FILTER_BYTES_MAX - 6).is_ok());
    let error = search(FILTER_BYTES_MAX - 5).expect_err("too long");
    assert_eq!(error.to_string(), "filter is 8193 bytes, the limit is 8192");
}

#[test]
fn not_a_number_is_refused_however_it_is_sent() {
    let node: Rc<TestNode> = Rc::default();
    for (number, place) in [(f32::NAN, 0), (f32::INFINITY, 1)] {
        let mut params = Vec::new();
        write::map(&mut params, 1);
        write::str(&mut params, "vector");
        write::array(&mut params, 2);
        let numbers = if place == 0 { [number, 1.0] } else { [1.0, number] };
        numbers.iter().for_each(|it| write::float32(&mut params, *it));
        let error = ask_bytes(&node, "memory.put", &params).expect_err("not finite");
        assert_eq!(error.to_string(), format!("vector[{place}] is not finite in float32"));
    }
}

proptest! {
    #[test]
    fn random_parameters_are_parsed_or_refused_and_never_panic(
        name in "(vector|text|key|namespace|metadata|items|k|ef|filter|limit|cursor|sample)",
        value in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut params = Vec::new();
        write::map(&mut params, 1);
        write::str(&mut params, &name);
        write::raw(&mut params, &value);
        for method in ["put", "put_batch", "get", "search", "delete", "list", "stats"] {
            let _ = parse(&format!("memory.{method}"), &params);
        }
    }
}
