//! Bytes that are no message, clients that stall, vanish or never read, and drains.

use super::*;
use crate::server::testing::be_late;

#[test]
fn bytes_that_are_no_message_are_answered_and_end_the_connection() {
    with_rpc(|address, _, _| async move {
        let deep = [vec![0x91; 100], vec![0xc0]].concat();
        for bytes in [&[0xc1][..], b"GET / HTTP/1.1\r\n\r\n", &[0x91, 0xa1, 0xff], &deep] {
            let mut client = Client::connect(address).await;
            client.send(bytes).await;
            let answer = client.answer().await.unwrap();
            assert!(answer.starts_with(r#"[1,null,{"code":"invalid""#), "{answer}");
            assert_eq!(client.answer().await, None);
        }
    });
}

#[test]
fn a_frame_beyond_the_limit_is_refused_by_its_msgid() {
    with_rpc(|address, _, _| async move {
        let mut client = Client::connect(address).await;
        let payload = "x".repeat(LIMITS.max_frame_bytes);
        let task = format!(r#"{{"type":"echo","payload":"{payload}"}}"#);
        client.send(&request(9, "task.submit", &task)).await;
        let answer = client.answer().await.unwrap();
        assert!(answer.starts_with(r#"[1,9,{"code":"too_large""#), "{answer}");
        assert_eq!(client.answer().await, None);
        let mut client = Client::connect(address).await;
        let payload = "x".repeat(LIMITS.max_payload_bytes);
        let task = format!(r#"{{"type":"echo","payload":"{payload}"}}"#);
        let answer = client.call("task.submit", &task).await;
        assert!(answer.contains("too_large"), "{answer}");
        assert!(client.call("node.stats", "").await.contains("version"), "goes on");
    });
}

#[test]
fn a_client_that_stalls_in_a_frame_is_closed_and_an_idle_one_is_not() {
    with_rpc(|address, _, _| async move {
        let mut idle = Client::connect(address).await;
        let mut stalled = Client::connect(address).await;
        stalled.send(&[0x94, 0]).await;
        assert_eq!(stalled.answer().await, None);
        Timer::after(LIMITS.stall_timeout).await;
        assert!(idle.call("node.stats", "").await.contains("version"));
    });
}

#[test]
fn a_client_that_never_reads_is_bounded_and_closed() {
    with_rpc(|address, node, _| async move {
        let mut greedy = Client::connect(address).await;
        let payload = "x".repeat(LIMITS.max_payload_bytes / 2);
        let task = format!(r#"{{"type":"echo","payload":"{payload}"}}"#);
        greedy.call("task.submit", &task).await;
        let ask = request(1, "task.result", &format!(r#"{{"id":"{FIRST}"}}"#));
        // The node stops reading, so the client's writes stop too, until it is disconnected.
        while greedy.stream.write_all(&ask).await.is_ok() {}
        assert_eq!(Rc::strong_count(&node), 2, "nothing of the connection is left");
        let mut other = Client::connect(address).await;
        assert!(other.call("node.stats", "").await.contains("version"));
    });
}

#[test]
fn a_vanished_client_takes_its_waits_along() {
    with_rpc(|address, node, _| async move {
        let mut client = Client::connect(address).await;
        client.call("task.submit", r#"{"type":"never","payload":1}"#).await;
        let wait = format!(r#"{{"id":"{FIRST}","wait_ms":60000}}"#);
        client.send(&request(2, "task.result", &wait)).await;
        while node.waiting.get() == 0 {
            Timer::after(Duration::from_millis(1)).await;
        }
        drop(client);
        while node.waiting.get() > 0 {
            Timer::after(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn a_client_that_ends_its_side_still_gets_its_answers() {
    with_rpc(|address, _, _| async move {
        let mut client = Client::connect(address).await;
        client.call("task.submit", r#"{"type":"slow","payload":1}"#).await;
        let wait = format!(r#"{{"id":"{FIRST}","wait_ms":1}}"#);
        client.send(&request(2, "task.result", &wait)).await;
        client.stream.get_ref().shutdown(Shutdown::Write).unwrap();
        assert!(client.answer().await.unwrap().contains("done"));
        assert_eq!(client.answer().await, None);
    });
}

#[test]
fn a_drain_finishes_what_is_in_flight_and_closes() {
    with_rpc(|address, node, drain| async move {
        let mut idle = Client::connect(address).await;
        let mut busy = Client::connect(address).await;
        busy.call("task.submit", r#"{"type":"slow","payload":1}"#).await;
        let wait = format!(r#"{{"id":"{FIRST}","wait_ms":1}}"#);
        busy.send(&request(2, "task.result", &wait)).await;
        while node.waiting.get() == 0 {
            Timer::after(Duration::from_millis(1)).await;
        }
        drain.begin();
        busy.send(&request(3, "node.stats", "")).await;
        assert_eq!(idle.answer().await, None);
        assert!(busy.answer().await.unwrap().starts_with("[1,2,null"));
        assert_eq!(busy.answer().await, None);
    });
}

#[test]
fn more_requests_than_may_be_in_flight_are_all_answered() {
    with_rpc(|address, _, _| async move {
        let mut client = Client::connect(address).await;
        client.call("task.submit", r#"{"type":"slow","payload":1}"#).await;
        let wait = format!(r#"{{"id":"{FIRST}","wait_ms":1}}"#);
        let count = LIMITS.max_in_flight as u32 * 3;
        let frames: Vec<u8> =
            (0..count).flat_map(|msgid| request(msgid, "task.result", &wait)).collect();
        client.send(&frames).await;
        for _ in 0..count {
            assert!(client.answer().await.unwrap().contains("done"));
        }
    });
}

#[test]
fn frames_may_arrive_byte_by_byte() {
    with_rpc(|address, _, _| async move {
        let mut client = Client::connect(address).await;
        client.stream.get_ref().set_nodelay(true).unwrap();
        for byte in request(5, "node.stats", "") {
            client.send(&[byte]).await;
            futures_lite::future::yield_now().await;
        }
        assert!(client.answer().await.unwrap().starts_with("[1,5,null"));
    });
}

#[test]
fn all_that_holds_on_a_core_that_is_always_late() {
    be_late();
    bytes_that_are_no_message_are_answered_and_end_the_connection();
    a_frame_beyond_the_limit_is_refused_by_its_msgid();
    a_client_that_stalls_in_a_frame_is_closed_and_an_idle_one_is_not();
    a_client_that_never_reads_is_bounded_and_closed();
    a_vanished_client_takes_its_waits_along();
    a_client_that_ends_its_side_still_gets_its_answers();
    a_drain_finishes_what_is_in_flight_and_closes();
}
