//! Attempts that are lent to a worker of the connection.

use super::*;

#[test]
fn attempts_that_are_lent_do_not_keep_a_connection_from_being_read() {
    with_rpc(|address, _, _| async move {
        let mut client = Client::connect(address).await;
        let payload = "p".repeat(30_000);
        let mut bytes = Vec::new();
        for msgid in 1..=6 {
            let run = format!(
                r#"{{"id":"{FIRST}","lease":{msgid},"type":"never","attempt":1,"priority":"normal","timeout_ms":60000,"payload":"{payload}"}}"#
            );
            bytes.extend(request(msgid, "here.run", &run));
        }
        assert!(bytes.len() > 2 * LIMITS.max_frame_bytes);
        bytes.extend(request(9, "node.health", "{}"));
        client.send(&bytes).await;
        let answer = client.answer().await.expect("what comes after them is read");
        assert!(answer.starts_with("[1,9,null,"), "{answer}");
        // Nor do many; what is too much is sent back.
        let mut bytes = Vec::new();
        for msgid in 10..10 + LIMITS.max_in_flight as u32 {
            let run = format!(
                r#"{{"id":"{FIRST}","lease":{msgid},"type":"never","attempt":1,"priority":"normal","timeout_ms":60000,"payload":1}}"#
            );
            bytes.extend(request(msgid, "here.run", &run));
        }
        bytes.extend(request(999, "node.health", "{}"));
        client.send(&bytes).await;
        let mut refused = 0;
        loop {
            let answer = client.answer().await.expect("what comes after them is read");
            if answer.starts_with("[1,999,null,") {
                break;
            }
            assert!(answer.contains("backpressure"), "{answer}");
            refused += 1;
        }
        assert_eq!(refused, 6, "as many more as were under way before");
    });
}

#[test]
fn results_of_lent_attempts_that_wait_are_bounded() {
    with_rpc(|address, node, _| async move {
        let mut client = Client::connect(address).await;
        let attempts = |from: u32, count: u32| {
            let mut bytes = Vec::new();
            for msgid in from..from + count {
                let run = format!(
                    r#"{{"id":"{FIRST}","lease":{msgid},"type":"later","attempt":1,"priority":"normal","timeout_ms":60000,"payload":1}}"#
                );
                bytes.extend(request(msgid, "here.run", &run));
            }
            bytes
        };
        let count = LIMITS.max_in_flight as u32;
        let most = 8 * LIMITS.write_buffer_bytes / LIMITS.max_payload_bytes;
        node.result_bytes.set(LIMITS.max_payload_bytes);
        // All begin, for nobody knows yet how large their results are; then all end at once.
        client.send(&attempts(1, count)).await;
        client.send(&request(999, "node.health", "{}")).await;
        let answer = client.answer().await.expect("what comes after them is read");
        assert!(answer.starts_with("[1,999,null,"), "{answer:.200}");
        let ring = || {
            let bells: Vec<_> = node.attempts.borrow_mut().drain(..).collect();
            bells.into_iter().for_each(|bell| bell.send(()).expect("an attempt waits for its end"));
        };
        ring();
        let (mut kept, mut given_up) = (0, 0);
        for _ in 0..count {
            let answer = client.answer().await.expect("each attempt is answered");
            match answer.contains(r#""retry":true"#) {
                true => given_up += usize::from(answer.contains("is given up")),
                false => kept += usize::from(answer.contains("rrr")),
            }
        }
        assert_eq!(kept + given_up, count as usize, "each with its result, or as failed");
        assert!((most - 1..=most).contains(&kept), "{kept} results were kept, {most} fit");
        // From now on no more begin than would fit; the others are told to come back.
        client.send(&attempts(100, count)).await;
        client.send(&request(999, "node.health", "{}")).await;
        let mut refused = 0;
        loop {
            let answer = client.answer().await.expect("what comes after them is read");
            if answer.starts_with("[1,999,null,") {
                break;
            }
            assert!(answer.contains("backpressure"), "{answer:.200}");
            refused += 1;
        }
        let begun = node.attempts.borrow().len();
        assert_eq!(refused + begun, count as usize);
        assert!((most - 1..=most).contains(&begun), "{begun} began");
        ring();
        for _ in 0..begun {
            let answer = client.answer().await.expect("each attempt is answered");
            assert!(answer.contains("rrr"), "no result is given up: {answer:.200}");
        }
        // Small ones let more begin again.
        node.result_bytes.set(1);
        for round in 0..4 {
            client.send(&attempts(200 + 100 * round, count)).await;
            client.send(&request(999, "node.health", "{}")).await;
            while !client.answer().await.expect("an answer").starts_with("[1,999,") {}
            let begun = node.attempts.borrow().len();
            ring();
            for _ in 0..begun {
                client.answer().await.expect("each attempt is answered");
            }
            if begun == count as usize {
                return;
            }
        }
        panic!("small results do not make room");
    });
}
