//! What other nodes ask, and what a cluster tells of itself.

use super::*;

#[test]
fn what_another_node_asks_is_done_here() {
    with_rpc(|address, node, _| async move {
        let mut client = Client::connect(address).await;
        let task = r#"{"type":"echo","payload":[7],"durable":true}"#;
        let answer = client.call("here.task.submit", task).await;
        assert_eq!(answer, format!(r#"[1,1,null,{{"id":"{FIRST}"}}]"#));
        assert_eq!(node.asked_here.get(), 1);
        let state = format!(
            r#""id":"{FIRST}","type":"echo","status":"done","priority":"normal","attempts":1"#
        );
        for (params, result) in [
            (format!(r#"{{"id":"{FIRST}","wait_ms":1}}"#), r#","result":[7]"#),
            (format!(r#"{{"id":"{FIRST}","result_bytes":2}}"#), r#","result":[7]"#),
            (format!(r#"{{"id":"{FIRST}","result_bytes":1}}"#), ""),
        ] {
            let answer = client.call("here.task.result", &params).await;
            assert_eq!(answer, format!("[1,1,null,{{{state}{result}}}]"));
        }
        client.call("here.task.submit", r#"{"type":"never","payload":1}"#).await;
        let page = client.call("here.task.list", r#"{"partition":0,"max":1}"#).await;
        assert_eq!(page, format!(r#"[1,1,null,{{"tasks":[{{{state}}}],"next":1}}]"#));
        let page = client.call("here.task.list", r#"{"partition":0,"from":1}"#).await;
        assert!(page.contains("never") && !page.contains("next"), "{page}");
        let refused = client.call("here.task.list", r#"{"cursor":"0.1"}"#).await;
        assert!(refused.contains("cursor is not a field"), "{refused}");
        for method in ["here.node.stats", "here.worker.fetch", "here.here.task.cancel", "here."] {
            let answer = client.call(method, "{}").await;
            assert!(answer.contains("there is no method here."), "{answer}");
        }
        assert_eq!(node.asked_here.get(), 7, "each that was right was for this node alone");
    });
}

#[test]
fn what_other_nodes_submit_is_not_joined_with_what_clients_do() {
    with_rpc(|address, node, _| async move {
        let mut client = Client::connect(address).await;
        let methods = ["task.submit", "here.task.submit", "here.task.submit", "task.submit"];
        let frames: Vec<u8> = methods
            .iter()
            .zip(0..)
            .flat_map(|(method, msgid)| request(msgid, method, r#"{"type":"echo","payload":1}"#))
            .collect();
        client.send(&frames).await;
        for _ in methods {
            assert!(client.answer().await.unwrap().contains("null,{\"id\""));
        }
        assert_eq!((node.submissions.get(), node.asked_here.get()), (3, 1));
    });
}

#[test]
fn a_cluster_tells_how_it_does_and_is_changed() {
    with_rpc(|address, _, _| async move {
        let mut client = Client::connect(address).await;
        let members = r#""voters":[1,2],"learners":[3],"outgoing":[]"#;
        let figures = r#""messages_sent":3,"messages_received":4,"bytes_sent":5,"bytes_received":6,"messages_dropped":7"#;
        let here = r#"{"id":1,"peers":"127.0.0.1:7452","rpc":"127.0.0.1:7453","member":true,"connected":true,"leads":1"#;
        let there = r#"{"id":2,"member":true,"connected":false,"leads":0"#;
        let nodes = format!("[{here},{figures}}},{there},{figures}}}]");
        let state = r#""term":2,"first":1,"last":9,"committed":8"#;
        let partitions = format!(
            r#"[{{"partition":0,"leader":1,{state},{members}}},{{"partition":1,{state},{members}}}]"#
        );
        let status = client.call("cluster.status", "{}").await;
        let expected =
            format!(r#"[1,1,null,{{"node":1,"nodes":{nodes},"partitions":{partitions}}}]"#);
        assert_eq!(status, expected);
        let join = r#"{"node":3,"peers":"127.0.0.1:1","rpc":"[::1]:2"}"#;
        assert_eq!(
            client.call("cluster.join", join).await,
            r#"[1,1,null,{"partitions":[{"partition":0,"outcome":"begun"},{"partition":1,"outcome":"already_member","message":"node 3 is a member already"}]}]"#
        );
        let leave = client.call("cluster.leave", r#"{"node":2}"#).await;
        assert!(leave.contains(r#""outcome":"no_quorum","message":"1 of 2 voters"#), "{leave}");
        let transfer = r#"{"partition":0,"node":2}"#;
        assert_eq!(client.call("cluster.transfer", transfer).await, "[1,1,null,{}]");
        let elsewhere = client.call("cluster.transfer", r#"{"partition":1,"node":2}"#).await;
        assert!(elsewhere.contains(r#""code":"not_leader""#), "{elsewhere}");
        assert!(elsewhere.contains(r#""leader":"127.0.0.1:7450""#), "{elsewhere}");
        for (method, params, message) in [
            ("cluster.status", r#"{"node":1}"#, "node is not a field"),
            (
                "cluster.join",
                r#"{"node":0,"peers":"127.0.0.1:1","rpc":"127.0.0.1:2"}"#,
                "node must",
            ),
            (
                "cluster.join",
                r#"{"node":3,"peers":"there","rpc":"127.0.0.1:2"}"#,
                "peers is not right",
            ),
            ("cluster.join", r#"{"node":3,"peers":"127.0.0.1:1"}"#, "rpc is missing"),
            ("cluster.leave", "{}", "node is missing"),
            ("cluster.leave", r#"{"node":3,"rpc":"127.0.0.1:2"}"#, "rpc is not a field"),
            ("cluster.transfer", r#"{"node":3,"partition":65536}"#, "partition must be at most"),
        ] {
            let answer = client.call(method, params).await;
            assert!(answer.contains(r#""code":"invalid""#) && answer.contains(message), "{answer}");
        }
    });
}
