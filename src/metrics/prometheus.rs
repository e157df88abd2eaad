//! A node's counters as Prometheus reads them.

use crate::wire::{
    api::{AgreementStats, ClusterStats, CoreStats, GossipStats, LinkStats, NodeStats},
    memory::{MemoryPartition, MemoryStats},
};
use std::fmt::{Display, Write};

/// A figure of one core: name, type, help, value.
type CoreFigure = (&'static str, &'static str, &'static str, fn(&CoreStats) -> u64);

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

const CORE_FIGURES: [CoreFigure; 41] = [
    ("agents", GAUGE, "Agents that the core owns.", |core| core.agents),
    ("messages_delivered", COUNTER, "Messages delivered to agents.", |core| {
        core.messages_delivered
    }),
    ("messages_undeliverable", COUNTER, "Messages whose agent was gone.", |core| {
        core.messages_undeliverable
    }),
    ("far_sent", COUNTER, "Messages and calls sent to agents of other nodes.", |core| {
        core.far_sent
    }),
    ("far_received", COUNTER, "Messages and calls that came from other nodes.", |core| {
        core.far_received
    }),
    ("far_lost", COUNTER, "Messages to other nodes that may not have arrived.", |core| {
        core.far_lost
    }),
    ("far_broken", COUNTER, "Sessions with other nodes that said what cannot be.", |core| {
        core.far_broken
    }),
    (
        "far_refused",
        COUNTER,
        "Connections for messages that were refused: no proof, version or answer.",
        |core| core.far_refused,
    ),
    ("cache_hits", COUNTER, "Lookups of agents that the core's cache answered.", |core| {
        core.cache_hits
    }),
    ("cache_misses", COUNTER, "Lookups of agents that it did not answer.", |core| {
        core.cache_misses
    }),
    ("cache_evictions", COUNTER, "Answers that it gave up for others.", |core| {
        core.cache_evictions
    }),
    ("cache_expired", COUNTER, "Lookups of which its answer was too old.", |core| {
        core.cache_expired
    }),
    ("cache_invalidated", COUNTER, "Answers that other nodes' news made wrong.", |core| {
        core.cache_invalidated
    }),
    ("sends_refused", COUNTER, "Sends refused because a ring or a mailbox was full.", |core| {
        core.sends_refused
    }),
    ("batches_received", COUNTER, "Batches received over the mesh.", |core| core.batches_received),
    ("batch_buffers", COUNTER, "Buffers allocated because no used one had come back.", |core| {
        core.batch_buffers
    }),
    ("tasks_accepted", COUNTER, "Tasks accepted.", |core| core.tasks_accepted),
    ("tasks_refused", COUNTER, "Submissions refused with backpressure.", |core| core.tasks_refused),
    (
        "tasks_repeated",
        COUNTER,
        "Submissions that were the same as an earlier one, by their key.",
        |core| core.tasks_repeated,
    ),
    (
        "tasks_recovered",
        COUNTER,
        "Unended tasks that were found in the log at the start.",
        |core| core.tasks_recovered,
    ),
    ("tasks_queued", GAUGE, "Tasks waiting for an agent.", |core| core.tasks_queued),
    ("tasks_delayed", GAUGE, "Tasks waiting for their time.", |core| core.tasks_delayed),
    ("tasks_cold", GAUGE, "Tasks waiting whose payload is in the log alone.", |core| {
        core.tasks_cold
    }),
    ("tasks_running", GAUGE, "Tasks running.", |core| core.tasks_running),
    ("tasks_done", COUNTER, "Tasks that ended well.", |core| core.tasks_done),
    ("tasks_dead", COUNTER, "Tasks that died.", |core| core.tasks_dead),
    ("tasks_cancelled", COUNTER, "Tasks that were cancelled.", |core| core.tasks_cancelled),
    ("tasks_evicted", COUNTER, "Tasks that died because a full queue gave them up.", |core| {
        core.tasks_evicted
    }),
    ("attempts_failed", COUNTER, "Attempts that failed.", |core| core.attempts_failed),
    ("tasks_lent", COUNTER, "Attempts lent to other nodes.", |core| core.tasks_lent),
    ("tasks_lent_back", COUNTER, "Lent attempts that came back without having begun.", |core| {
        core.tasks_lent_back
    }),
    ("tasks_lent_lost", COUNTER, "Lent attempts of which nobody knows what became.", |core| {
        core.tasks_lent_lost
    }),
    ("tasks_borrowed", COUNTER, "Attempts of tasks of other nodes taken in.", |core| {
        core.tasks_borrowed
    }),
    ("dead_letters", GAUGE, "Dead letters kept.", |core| core.dead_letters),
    ("dead_letters_requeued", COUNTER, "Dead letters that were queued again.", |core| {
        core.dead_letters_requeued
    }),
    (
        "dead_letters_purged",
        COUNTER,
        "Dead letters forgotten because there were too many.",
        |core| core.dead_letters_purged,
    ),
    ("keys", GAUGE, "Keys remembered.", |core| core.keys),
    ("agents_started", COUNTER, "Agents started.", |core| core.agents_started),
    ("agents_restarted", COUNTER, "Agents started in the place of one that crashed.", |core| {
        core.agents_restarted
    }),
    ("agents_stopped_idle", COUNTER, "Agents stopped because they were idle.", |core| {
        core.agents_stopped_idle
    }),
    ("agent_panics", COUNTER, "Agents that panicked.", |core| core.agent_panics),
];

/// The counters in Prometheus' own text format, 0.0.4, which every version of it takes.
pub fn render(stats: &NodeStats, memory: Option<&MemoryStats>) -> String {
    let mut text = String::new();
    let node = [
        ("uptime_seconds", "Time since the node started.", stats.uptime_s),
        ("resident_bytes", "Resident memory of the process.", stats.resident_bytes),
        ("accepting", "Whether the node accepts work.", stats.accepting.into()),
    ];
    for (name, help, value) in node {
        head(&mut text, name, GAUGE, help);
        line(&mut text, format_args!("coreflow_{name}"), value);
    }
    for (name, kind, help, value) in CORE_FIGURES {
        let name = if kind == COUNTER { format!("{name}_total") } else { name.to_owned() };
        head(&mut text, &name, kind, help);
        for (index, core) in stats.cores.iter().enumerate() {
            let series = format_args!("coreflow_{name}{{core=\"{index}\"}}");
            line(&mut text, series, value(core));
        }
    }
    if let Some(cluster) = &stats.cluster {
        render_cluster(&mut text, cluster);
    }
    if let Some(memory) = memory {
        render_memory(&mut text, memory);
    }
    text
}

/// A figure of a link: name, type, help, value.
type LinkFigure = (&'static str, &'static str, &'static str, fn(&LinkStats) -> u64);

const LINK_FIGURES: [LinkFigure; 6] = [
    ("connected", GAUGE, "Whether messages flow.", |link| link.connected.into()),
    ("messages_sent", COUNTER, "Messages sent to the node.", |link| link.messages_sent),
    ("messages_received", COUNTER, "Messages from the node.", |link| link.messages_received),
    ("bytes_sent", COUNTER, "Bytes sent to the node.", |link| link.bytes_sent),
    ("bytes_received", COUNTER, "Bytes from the node.", |link| link.bytes_received),
    ("messages_dropped", COUNTER, "Messages dropped because too many waited.", |link| {
        link.messages_dropped
    }),
];

fn render_cluster(text: &mut String, cluster: &ClusterStats) {
    let ClusterStats { partitions, leads, leaderless, forwarded, not_leader, links, .. } = cluster;
    for (name, kind, help, value) in [
        ("cluster_partitions", GAUGE, "Partitions of the cluster.", partitions),
        ("cluster_leads", GAUGE, "Partitions that this node leads.", leads),
        ("cluster_leaderless", GAUGE, "Partitions without a known leader.", leaderless),
        ("cluster_forwarded_total", COUNTER, "Requests sent to other nodes.", forwarded),
        ("cluster_not_leader_total", COUNTER, "Requests answered not_leader.", not_leader),
    ] {
        head(text, name, kind, help);
        line(text, format_args!("coreflow_{name}"), *value);
    }
    for (name, kind, help, value) in LINK_FIGURES {
        let total = if kind == COUNTER { "_total" } else { "" };
        head(text, &format!("cluster_link_{name}{total}"), kind, help);
        for link in links {
            let node = link.node;
            let series = format_args!("coreflow_cluster_link_{name}{total}{{node=\"{node}\"}}");
            line(text, series, value(link));
        }
    }
    if let Some(gossip) = &cluster.gossip {
        render_gossip(text, gossip);
    }
    if let Some(agreement) = &cluster.agreement {
        render_agreement(text, agreement);
    }
}

fn render_agreement(text: &mut String, agreement: &AgreementStats) {
    let AgreementStats { fast, slow, view_changes, dropped, wrong, verified, diverged } = agreement;
    head(text, "pbft_finished_total", COUNTER, "Requests of this node that were finished.");
    for (path, count) in [("fast", fast), ("slow", slow)] {
        line(text, format_args!("coreflow_pbft_finished_total{{path=\"{path}\"}}"), *count);
    }
    for (name, kind, help, value) in [
        (
            "pbft_view_changes_total",
            COUNTER,
            "Views that replicas of this node left.",
            view_changes,
        ),
        (
            "pbft_dropped_total",
            COUNTER,
            "Messages of other nodes that were dropped: most came twice, or too late to be needed.",
            dropped,
        ),
        ("pbft_wrong_total", COUNTER, "Those of them that no correct node sends.", wrong),
        ("pbft_verified_total", COUNTER, "Signatures that were verified.", verified),
        ("pbft_diverged", GAUGE, "Partitions in which more nodes lie than can.", diverged),
    ] {
        head(text, name, kind, help);
        line(text, format_args!("coreflow_{name}"), *value);
    }
}

/// A figure of gossip: name, help, value.
type GossipFigure = (&'static str, &'static str, fn(&GossipStats) -> u64);

const GOSSIP_FIGURES: [GossipFigure; 17] = [
    ("rounds", "Rounds of gossip.", |it| it.rounds),
    ("quiet_rounds", "Rounds in which nothing was news, asked for or suspect.", |it| {
        it.quiet_rounds
    }),
    ("datagrams_sent", "Datagrams of gossip sent.", |it| it.datagrams_sent),
    ("datagrams_received", "Datagrams of gossip received.", |it| it.datagrams_received),
    ("bytes_sent", "Bytes of gossip sent.", |it| it.bytes_sent),
    ("bytes_received", "Bytes of gossip received.", |it| it.bytes_received),
    ("suspicions", "Silent nodes that this node accused.", |it| it.suspicions),
    ("deaths", "Nodes that became dead for this node.", |it| it.deaths),
    ("returns", "Suspects and dead that turned out to live.", |it| it.returns),
    ("refutations", "Accusations of this node that it refuted.", |it| it.refutations),
    ("resets", "Nodes of which too much was missed.", |it| it.resets),
    ("rebirths", "Times that others knew more of this node than it told.", |it| it.rebirths),
    ("late_rounds", "Rounds that began late.", |it| it.late_rounds),
    ("clock_jumps", "Times that the clock went back.", |it| it.clock_jumps),
    ("missed_events", "Changes of other nodes that were not taken in one by one.", |it| {
        it.missed_events
    }),
    ("facts_untold", "Facts of this node that could not be told.", |it| it.facts_untold),
    ("facts_refused", "Facts of other nodes that were refused.", |it| it.facts_refused),
];

fn render_gossip(text: &mut String, gossip: &GossipStats) {
    head(text, "cluster_nodes", GAUGE, "Nodes by what gossip knows of them.");
    for (status, nodes) in ["alive", "suspect", "dead", "left"].into_iter().zip(gossip.nodes) {
        line(text, format_args!("coreflow_cluster_nodes{{status=\"{status}\"}}"), nodes);
    }
    for (name, help, value) in GOSSIP_FIGURES {
        head(text, &format!("gossip_{name}_total"), COUNTER, help);
        line(text, format_args!("coreflow_gossip_{name}_total"), value(gossip));
    }
    head(
        text,
        "gossip_bytes_sent_of_total",
        COUNTER,
        "Bytes of gossip sent, by what they are for.",
    );
    for (kind, bytes) in &gossip.bytes_sent_of {
        let series = format_args!("coreflow_gossip_bytes_sent_of_total{{kind=\"{kind}\"}}");
        line(text, series, *bytes);
    }
    let left_out = "Agents of this node that other nodes are not told of: there are too many.";
    head(text, "gossip_agents_left_out", GAUGE, left_out);
    line(text, format_args!("coreflow_gossip_agents_left_out"), gossip.agents_left_out);
    head(text, "gossip_refused_total", COUNTER, "Parts of datagrams that were refused.");
    for (reason, count) in &gossip.refused {
        let series = format_args!("coreflow_gossip_refused_total{{reason=\"{reason}\"}}");
        line(text, series, *count);
    }
}

fn render_memory(text: &mut String, memory: &MemoryStats) {
    let sum = |figure: fn(&MemoryPartition) -> u64| memory.partitions.iter().map(figure).sum();
    let ages = memory.partitions.iter().filter_map(|partition| partition.checkpoint_age_s);
    let figures: [(&str, &str, &str, u64); 8] = [
        ("memory_vectors", GAUGE, "Vectors in pattern memory.", memory.count),
        ("memory_vectors_dead", GAUGE, "Deleted vectors that still take room in the index.", {
            sum(|partition| partition.dead)
        }),
        (
            "memory_vectors_unlinked",
            GAUGE,
            "Vectors that each search compares until they are linked.",
            { sum(|partition| partition.unlinked) },
        ),
        ("memory_resident_bytes", GAUGE, "Memory that the index takes.", memory.bytes_resident),
        ("memory_disk_bytes", GAUGE, "Bytes of the files of pattern memory.", memory.bytes_on_disk),
        ("memory_changes_since_checkpoint", GAUGE, "Changes that a start reads again.", {
            sum(|partition| partition.changes_since_checkpoint)
        }),
        ("memory_checkpoint_age_seconds", GAUGE, "Time since the oldest last checkpoint.", {
            ages.max().unwrap_or(0)
        }),
        ("memory_damaged_total", COUNTER, "Damaged records that were met.", memory.damaged_count),
    ];
    for (name, kind, help, value) in figures {
        head(text, name, kind, help);
        line(text, format_args!("coreflow_{name}"), value);
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail.
    let _ = write!(text, "# HELP coreflow_{name} {help}\n# TYPE coreflow_{name} {kind}\n");
}

fn line(text: &mut String, series: impl Display, value: u64) {
    let _ = writeln!(text, "{series} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_end_in_total_and_cores_are_labels() {
        let core = |done| CoreStats { tasks_done: done, tasks_queued: 3, ..CoreStats::default() };
        let cores = vec![core(7), core(8)];
        let stats = NodeStats { uptime_s: 5, accepting: true, cores, ..NodeStats::default() };
        let text = render(&stats, None);
        for expected in [
            "# TYPE coreflow_uptime_seconds gauge\ncoreflow_uptime_seconds 5\n",
            "coreflow_accepting 1\n",
            "# HELP coreflow_tasks_done_total Tasks that ended well.\n\
             # TYPE coreflow_tasks_done_total counter\n\
             coreflow_tasks_done_total{core=\"0\"} 7\ncoreflow_tasks_done_total{core=\"1\"} 8\n",
            "coreflow_tasks_queued{core=\"1\"} 3\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(text.ends_with('\n'));
        assert!(!text.contains("cluster"), "a node that is alone has none");
    }

    #[test]
    fn a_cluster_has_figures_of_its_own_and_nodes_are_labels() {
        let link = |node, connected| LinkStats {
            node,
            connected,
            bytes_sent: node * 10,
            ..LinkStats::default()
        };
        let links = vec![link(2, true), link(3, false)];
        let cluster = ClusterStats { partitions: 12, leads: 4, links, ..ClusterStats::default() };
        let text = render(&NodeStats { cluster: Some(cluster), ..NodeStats::default() }, None);
        for expected in [
            "# TYPE coreflow_cluster_leads gauge\ncoreflow_cluster_leads 4\n",
            "# TYPE coreflow_cluster_forwarded_total counter\ncoreflow_cluster_forwarded_total 0\n",
            "coreflow_cluster_link_connected{node=\"2\"} 1\ncoreflow_cluster_link_connected{node=\"3\"} 0\n",
            "# TYPE coreflow_cluster_link_bytes_sent_total counter\n\
             coreflow_cluster_link_bytes_sent_total{node=\"2\"} 20\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }

    #[test]
    fn pattern_memory_is_summed_over_its_partitions() {
        let partition = |dead, checkpoint_age_s| MemoryPartition {
            dead,
            checkpoint_age_s,
            ..MemoryPartition::default()
        };
        let partitions = vec![partition(1, Some(7)), partition(2, Some(9)), partition(3, None)];
        let memory = MemoryStats { count: 5, partitions, ..MemoryStats::default() };
        let text = render(&NodeStats::default(), Some(&memory));
        for expected in [
            "# TYPE coreflow_memory_vectors gauge\ncoreflow_memory_vectors 5\n",
            "coreflow_memory_vectors_dead 6\n",
            "coreflow_memory_checkpoint_age_seconds 9\n",
            "# TYPE coreflow_memory_damaged_total counter\ncoreflow_memory_damaged_total 0\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(!render(&NodeStats::default(), None).contains("memory_"));
    }
}
