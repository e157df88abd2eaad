//! The protocol without a transport, and over a pipe.

use super::{
    Headers, Response, Transport,
    decide::{Decision, decide},
    handle,
    stdio::serve_stdio,
    tools::{self, TOOLS},
};
use crate::{
    server::testing::{LIMITS, Socket, TestEngine, TestNode, listen},
    wire::json::{Document, Json},
};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future::block_on, io::split};
use std::{net::Shutdown, rc::Rc};

fn ask(text: &str, headers: Headers) -> (u16, String) {
    let node = Rc::new(TestNode::default());
    let message = text.as_bytes().chunks(100).map(<[u8]>::to_vec).collect();
    let Response { status, body } = block_on(handle(node, &TestEngine, message, headers, &LIMITS));
    (status, String::from_utf8(body.unwrap_or_default().concat()).unwrap())
}

fn legacy(text: &str) -> (u16, String) {
    ask(text, Headers::default())
}

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

fn modern_headers(method: &str, name: Option<&str>) -> Headers {
    Headers {
        protocol_version: Some("2026-07-28".into()),
        method: Some(method.into()),
        name: name.map(str::to_owned),
        repeated: None,
    }
}

fn modern(method: &str, params: &str, name: Option<&str>) -> (u16, String) {
    let text =
        format!(r#"{{"jsonrpc":"2.0","id":"a","method":"{method}","params":{{{META}{params}}}}}"#);
    ask(&text, modern_headers(method, name))
}

#[test]
fn initialize_agrees_on_a_version_that_both_speak() {
    for (offered, agreed) in [
        ("2025-11-25", "2025-11-25"),
        ("2025-06-18", "2025-06-18"),
        ("2025-03-26", "2025-03-26"),
        ("1999-01-01", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
    ] {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{offered}"}}}}"#
        );
        let (status, answer) = legacy(&text);
        assert_eq!(status, 200);
        assert!(answer.contains(&format!(r#""protocolVersion":"{agreed}""#)), "{answer}");
    }
}

#[test]
fn legacy_requests_need_no_stamp_and_get_none() {
    assert_eq!(
        legacy(r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#),
        (200, r#"{"jsonrpc":"2.0","id":7,"result":{}}"#.to_owned())
    );
    let (_, list) = legacy(r#"{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{}}"#);
    assert!(!list.contains("resultType"), "{list}");
    let (status, unknown) = legacy(r#"{"jsonrpc":"2.0","id":7,"method":"server/none"}"#);
    assert!(status == 200 && unknown.contains("-32601"), "{unknown}");
}

#[test]
fn tools_are_listed_with_schemas_that_are_json() {
    for (_, answer) in [
        legacy(r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#),
        modern("tools/list", "", None),
    ] {
        let mut text = answer.into_bytes();
        let document = Document::parse(&mut text, 1 << 20).unwrap();
        let tools: Vec<Json<'_, '_>> =
            document.root().get("result").unwrap().get("tools").unwrap().items().collect();
        assert_eq!(tools.len(), TOOLS.len());
        for tool in tools {
            let schema = tool.get("inputSchema").unwrap();
            let properties = schema.get("properties").unwrap();
            assert!(properties.is_object());
            for required in schema.get("required").unwrap().items() {
                assert!(properties.get(required.as_str().unwrap()).is_some());
            }
            assert!(!tool.get("description").unwrap().as_str().unwrap().contains("  "));
        }
    }
}

#[test]
fn a_task_can_be_created_with_every_field_that_its_schema_has_and_no_other() {
    let fields = [
        r#""type":"echo""#,
        r#""payload":null"#,
        r#""priority":"high""#,
        r#""timeout_ms":5"#,
        r#""max_attempts":2"#,
        r#""key":"k""#,
        r#""delay_ms":7"#,
        r#""durable":false"#,
    ];
    let mut schema = format!("{{{}}}", tools::find("task_create").unwrap().properties).into_bytes();
    let schema = Document::parse(&mut schema, 1 << 20).unwrap();
    for field in fields {
        let name = field.split('"').nth(1).unwrap();
        assert!(schema.root().get(name).is_some(), "{name} is not in the schema");
    }
    assert_eq!(schema.root().fields().count(), fields.len());
    let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"task_create","#;
    let (_, created) = legacy(&format!(r#"{call}"arguments":{{{}}}}}}}"#, fields.join(",")));
    assert!(created.contains(r#""isError":false"#), "{created}");
}

#[test]
fn modern_answers_carry_their_stamp_and_caching() {
    let (status, answer) = modern("server/discover", "", None);
    assert_eq!(status, 200);
    for part in [
        r#""resultType":"complete""#,
        r#""supportedVersions":["2026-07-28","2025-11-25","2025-06-18","2025-03-26"]"#,
        r#""io.modelcontextprotocol/serverInfo":{"name":"coreflow""#,
        r#""cacheScope":"public""#,
    ] {
        assert!(answer.contains(part), "{answer}");
    }
}

#[test]
fn a_modern_request_must_say_who_asks() {
    let headers = modern_headers("tools/list", None);
    let bare = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let (status, answer) = ask(bare, headers.clone());
    assert!(status == 400 && answer.contains("-32602"), "{answer}");
    let half = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    let (status, answer) = ask(half, headers.clone());
    assert!(status == 400 && answer.contains("clientCapabilities"), "{answer}");
}

#[test]
fn headers_that_contradict_the_body_are_refused() {
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{META},"name":"swarm_health"}}}}"#
    );
    let right = modern_headers("tools/call", Some("swarm_health"));
    assert_eq!(ask(&text, right.clone()).0, 200);
    for wrong in [
        Headers { protocol_version: None, ..right.clone() },
        Headers { method: Some("tools/list".into()), ..right.clone() },
        Headers { name: None, ..right.clone() },
        Headers { name: Some("task_create".into()), ..right.clone() },
        Headers { repeated: Some("mcp-name"), ..right.clone() },
    ] {
        let (status, answer) = ask(&text, wrong.clone());
        assert!(status == 400 && answer.contains("-32020"), "{wrong:?}: {answer}");
    }
    let decision = decide(&mut text.into_bytes(), Transport::Stdio, &LIMITS);
    assert!(matches!(decision, Decision::Call(_)), "stdio has no headers: {decision:?}");
}

#[test]
fn unknown_versions_are_told_the_known_ones() {
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2031-01-01","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let mut headers = modern_headers("tools/list", None);
    headers.protocol_version = Some("2031-01-01".into());
    let (status, answer) = ask(text, headers.clone());
    assert_eq!(status, 400);
    assert!(answer.contains("-32022") && answer.contains(r#""requested":"2031-01-01""#));
    let plain = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let (status, answer) = ask(plain, headers.clone());
    assert!(status == 400 && answer.contains("-32022"), "{answer}");
}

#[test]
fn unknown_methods_and_tools_are_protocol_errors() {
    let (status, answer) = modern("subscriptions/listen", "", None);
    assert!(status == 404 && answer.contains("-32601"), "{answer}");
    let (status, answer) = modern("tools/call", r#","name":"none""#, Some("none"));
    assert!(status == 400 && answer.contains("Unknown tool: none"), "{answer}");
    let (status, answer) = modern("tools/list", r#","cursor":"x""#, None);
    assert!(status == 400 && answer.contains("-32602"), "{answer}");
}

#[test]
fn what_a_tool_objects_to_is_its_result() {
    let arguments = |text: &str| {
        let params = format!(r#","name":"task_create","arguments":{text}"#);
        modern("tools/call", &params, Some("task_create"))
    };
    let (status, answer) = arguments(r#"{"type":"echo"}"#);
    assert_eq!(status, 200);
    let expected =
        r#""structuredContent":{"code":"invalid","message":"payload is missing"},"isError":true"#;
    assert!(answer.contains(expected), "{answer}");
    let (_, answer) = arguments(r#"{"type":"full","payload":null}"#);
    assert!(answer.contains(r#""retry_after_ms":50},"isError":true"#), "{answer}");
    let (_, answer) = arguments(r#"{"type":"echo","payload":null}"#);
    assert!(answer.contains(r#""isError":false"#), "{answer}");
    let (status, answer) = arguments("[]");
    assert!(status == 400 && answer.contains("-32602"), "{answer}");
}

#[test]
fn every_field_of_a_memory_tools_schema_is_one_of_its_method() {
    let value = |field: &str| match field {
        "vector" => "[1,0]",
        "metadata" | "filter" => r#"{"a":1}"#,
        "k" | "ef" | "limit" | "sample" => "1",
        "cursor" => r#""0""#,
        _ => r#""left""#,
    };
    for tool in TOOLS.iter().filter(|tool| tool.name.starts_with("memory_")) {
        let mut schema = format!("{{{}}}", tool.properties).into_bytes();
        let schema = Document::parse(&mut schema, 1 << 20).unwrap();
        let names = schema.root().fields().map(|(name, _)| name);
        // Vector and text exclude each other; a retrieved vector is a matter of yes and no.
        let names = names.filter(|name| *name != "vector" || tool.name != "memory_retrieve");
        let has_text = tool.properties.contains(r#""text""#);
        let given = names.filter(|name| *name != "vector" || !has_text);
        let given: Vec<_> = given.map(|name| format!(r#""{name}":{}"#, value(name))).collect();
        let call = format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{}","arguments":{{{}}}}}}}"#,
            tool.name,
            given.join(",")
        );
        let (_, answer) = legacy(&call);
        let absent = tool.name == "memory_retrieve" && answer.contains("nothing is stored as left");
        assert!(absent || answer.contains(r#""isError":false"#), "{call}: {answer}");
    }
}

#[test]
fn a_model_stores_and_finds_and_is_told_what_is_wrong() {
    let call = |name: &str, arguments: &str| {
        modern("tools/call", &format!(r#","name":"{name}","arguments":{arguments}"#), Some(name)).1
    };
    let stored = call("memory_store", r#"{"key":"a","text":"left","metadata":{"by":"me"}}"#);
    assert!(stored.contains(r#""structuredContent":{"key":"a","replaced":false},"isError":false"#));
    let wrong = call("memory_search", r#"{"text":"left","k":0}"#);
    let expected =
        r#"{"code":"invalid","message":"k must be an integer from 1 to 1000"},"isError":true"#;
    assert!(wrong.contains(expected), "{wrong}");
    let stats = call("memory_stats", "{}");
    assert!(stats.contains(r#""embedder":"exec""#), "{stats}");
}

#[test]
fn what_is_no_message_is_refused() {
    for (text, code) in [
        ("{", "-32700"),
        ("\u{1}", "-32700"),
        ("[]", "-32600"),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, "-32600"),
        ("7", "-32600"),
        (r#"{"id":1,"method":"ping"}"#, "-32600"),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, "-32600"),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, "-32600"),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, "-32600"),
        (r#"{"jsonrpc":"2.0","id":1}"#, "-32600"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, "-32602"),
    ] {
        let (status, answer) = legacy(text);
        assert!(status == 400 && answer.contains(code), "{text}: {answer}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(legacy(&deep[..60_000]).0, 400);
}

#[test]
fn notifications_and_responses_are_taken_without_an_answer() {
    for text in [
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
    ] {
        assert_eq!(legacy(text), (202, String::new()));
    }
}

/// Serves a pipe with these lines and hands out what comes back.
fn pipe(lines: &str) -> Vec<String> {
    let (listener, address) = listen();
    let mut answer = String::new();
    async_io::block_on(async {
        let mut client = Socket::connect(address).await.unwrap();
        let (reader, writer) = split(listener.accept().await.unwrap().0);
        client.write_all(lines.as_bytes()).await.unwrap();
        client.get_ref().shutdown(Shutdown::Write).unwrap();
        let node = Rc::new(TestNode::default());
        serve_stdio(reader, writer, node, LIMITS, TestEngine).await.unwrap();
        client.read_to_string(&mut answer).await.unwrap();
    });
    answer.lines().map(str::to_owned).collect()
}

#[test]
fn lines_are_answered_by_lines() {
    let long = "x".repeat(LIMITS.max_frame_bytes * 2);
    let answers = pipe(&format!(
        "{}\n\n{long}\nnonsense\n{}\n",
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"swarm_health"}}"#
    ));
    assert_eq!(answers[0], r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    assert!(answers[1].contains("-32600"), "{}", answers[1]);
    assert!(answers[2].contains("-32700"), "{}", answers[2]);
    assert!(answers[3].contains(r#""ready":true"#), "{}", answers[3]);
    assert_eq!(answers.len(), 4);
}

#[test]
fn a_cancelled_call_is_not_answered() {
    let id = "t0-00000000000000000000000000000000";
    let answers = pipe(&format!(
        "{}\n{}\n{}\n{}\n",
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"task_create","arguments":{"type":"echo","payload":1}}}"#,
        format_args!(
            r#"{{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{{"name":"task_result","arguments":{{"id":"{id}"}}}}}}"#
        ),
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#,
        r#"{"jsonrpc":"2.0","id":3,"method":"ping"}"#,
    ));
    assert!(answers.iter().all(|answer| !answer.contains(r#""id":2"#)), "{answers:?}");
    assert_eq!(answers.len(), 2);
}
