//! Long requests, which are read aside.

use super::{AGENT, Client, request, with_rpc};
use crate::server::{rpc::connection::LONG_REQUEST, testing::LIMITS};

/// A message to an agent with a payload of so many letters.
fn send(msgid: u32, letters: usize) -> Vec<u8> {
    let payload = "x".repeat(letters);
    request(msgid, "agent.send", &format!(r#"{{"id":"{AGENT}","payload":"{payload}"}}"#))
}

#[test]
fn requests_begin_in_the_order_in_which_they_came_however_long_they_are() {
    with_rpc(|address, node, _| async move {
        let mut client = Client::connect(address).await;
        let lens = [LONG_REQUEST, 1, 2, LONG_REQUEST + 9000, LONG_REQUEST, 3];
        let frames = lens.iter().zip(0..).map(|(len, msgid)| send(msgid, *len));
        client.send(&frames.collect::<Vec<_>>().concat()).await;
        for msgid in 0..lens.len() {
            assert_eq!(client.answer().await.unwrap(), format!("[1,{msgid},null,{{}}]"));
        }
        let sent: Vec<usize> = node.sent.borrow().iter().map(Vec::len).collect();
        let heads = |len: &usize| len + if *len < 32 { 1 } else { 3 };
        assert_eq!(sent, lens.iter().map(heads).collect::<Vec<_>>());
    });
}

#[test]
fn a_long_request_with_many_values_is_refused_by_its_msgid() {
    with_rpc(|address, _, _| async move {
        let mut client = Client::connect(address).await;
        let numbers = "1,".repeat(LIMITS.max_frame_bytes - 1000);
        let frame = request(7, "memory.delete", &format!(r#"{{"key":"a","more":[{numbers}1]}}"#));
        assert!(frame.len() > LONG_REQUEST && frame.len() < LIMITS.max_frame_bytes);
        client.send(&[frame, request(8, "node.health", "{}")].concat()).await;
        let answer = client.answer().await.unwrap();
        assert!(answer.starts_with("[1,7,{") && answer.contains("more is not a field"), "{answer}");
        assert!(client.answer().await.unwrap().starts_with("[1,8,null,"));
    });
}

#[test]
fn long_bytes_that_are_no_call_end_the_connection() {
    with_rpc(|address, _, _| async move {
        let mut client = Client::connect(address).await;
        let mut frame = vec![0x94, 9, 7, 0xdb, 0, 0, 0x80, 0];
        frame.resize(8 + (32 << 10), b'x');
        frame.push(0x90);
        client.send(&frame).await;
        let answer = client.answer().await.unwrap();
        assert!(answer.contains("not a MessagePack-RPC"), "{answer}");
        assert_eq!(client.answer().await, None);
    });
}

#[test]
fn a_drain_and_a_client_that_ends_wait_for_a_long_request() {
    for ends in [true, false] {
        with_rpc(|address, node, drain| async move {
            let mut client = Client::connect(address).await;
            client.send(&send(5, LONG_REQUEST)).await;
            if ends {
                client.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
            }
            assert_eq!(client.answer().await.unwrap(), "[1,5,null,{}]");
            drain.begin();
            assert_eq!(client.answer().await, None);
            assert_eq!(node.sent.borrow().len(), 1);
        });
    }
}
