//! Nothing passes before the token.

use super::*;

fn said(token: &str) -> String {
    format!(r#"{{"token":"{token}"}}"#)
}

#[test]
fn nothing_passes_before_the_token_and_everything_after_it() {
    with_token(|address, _| async move {
        let mut client = Client::connect(address).await;
        for method in ["task.submit", "node.health", "nonsense"] {
            let answer = client.call(method, r#"{"type":"echo"}"#).await;
            assert!(answer.starts_with(r#"[1,1,{"code":"unauthorized","#), "{answer}");
        }
        // A notification is not answered, and does not pass either.
        client.send(&msgpack(r#"[2,"task.submit",[{"type":"echo"}]]"#)).await;
        let answer = client.call("auth", &said("0123456789abcdeF")).await;
        assert!(answer.starts_with(r#"[1,1,{"code":"unauthorized","#), "{answer}");
        let answer = client.call("auth", "{}").await;
        assert_eq!(answer, r#"[1,1,{"code":"invalid","message":"token is missing"},null]"#);
        assert_eq!(client.call("auth", &said(TOKEN)).await, "[1,1,null,{}]");
        // The first task of the node: none came before.
        let answer = client.call("task.submit", r#"{"type":"echo","payload":1}"#).await;
        assert_eq!(answer, format!(r#"[1,1,null,{{"id":"{FIRST}"}}]"#));
    });
}

#[test]
fn requests_that_follow_the_token_in_one_piece_are_taken() {
    with_token(|address, _| async move {
        let mut client = Client::connect(address).await;
        let large = format!(r#"{{"type":"echo","payload":"{}"}}"#, "x".repeat(20_000));
        let both = [request(1, "auth", &said(TOKEN)), request(2, "task.submit", &large)].concat();
        client.send(&both).await;
        assert_eq!(client.answer().await.unwrap(), "[1,1,null,{}]");
        let answer = client.answer().await.unwrap();
        assert_eq!(answer, format!(r#"[1,2,null,{{"id":"{FIRST}"}}]"#));
    });
}

#[test]
fn guessing_ends_the_connection() {
    with_token(|address, _| async move {
        let mut client = Client::connect(address).await;
        for guess in 0..5 {
            let answer = client.call("auth", &said(&format!("guess-{guess}"))).await;
            assert!(answer.contains("that is not the token"), "{answer}");
        }
        let _ = client.stream.write_all(&request(1, "auth", &said(TOKEN))).await;
        assert_eq!(client.answer().await, None);
    });
}

#[test]
fn a_stranger_gets_neither_memory_nor_time() {
    with_token(|address, _| async move {
        let mut large = Client::connect(address).await;
        let field = format!(r#"{{"token":"{}"}}"#, "x".repeat(20_000));
        large.send(&request(7, "auth", &field)).await;
        let answer = large.answer().await.unwrap();
        assert!(answer.starts_with(r#"[1,7,{"code":"unauthorized","#), "{answer}");
        assert_eq!(large.answer().await, None);
        // A connection that says no token is closed after the stall timeout; one that did is not.
        let (mut silent, mut idle) =
            (Client::connect(address).await, Client::connect(address).await);
        assert_eq!(idle.call("auth", &said(TOKEN)).await, "[1,1,null,{}]");
        assert_eq!(silent.answer().await, None);
        assert!(idle.call("node.health", "{}").await.contains(r#""ready":true"#));
    });
}

#[test]
fn a_node_that_asks_for_no_token_takes_any() {
    with_rpc(|address, _, _| async move {
        let mut client = Client::connect(address).await;
        assert_eq!(client.call("auth", &said("anything")).await, "[1,1,null,{}]");
        assert!(client.call("auth", r#"{"tokens":1}"#).await.contains(r#""code":"invalid""#));
    });
}
