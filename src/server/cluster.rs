//! What is asked of a cluster: how it does, and changes of who belongs to it and who leads.

use super::params::{Fields, required};
use crate::{
    node::gateway::{
        Address, Agreement, Answer, Ask, Change, ChangeRefused, ClusterStatus, Gateway,
    },
    wire::{api::Error, id::PartitionIndex, msgpack::write, neighbours::Neighbour},
};
use std::{net::SocketAddr, rc::Rc, sync::Arc};

/// The highest number of a node, as in configurations.
const NODE_MAX: u64 = u32::MAX as u64;

/// A request about the cluster whose parameters are right.
#[derive(Debug)]
pub enum ClusterRequest {
    /// `cluster.status`
    Status,
    /// `cluster.join`
    Join {
        /// The node that is to become a member.
        node: u64,
        /// Where it can be reached.
        address: Address,
    },
    /// `cluster.leave`
    Leave(u64),
    /// `cluster.transfer`
    Transfer {
        /// The partition.
        partition: PartitionIndex,
        /// Who is to lead it.
        node: u64,
    },
}

/// What it is answered.
#[derive(Debug)]
pub enum ClusterReply {
    /// To `cluster.status`.
    Status(Arc<ClusterStatus>, Vec<Neighbour>),
    /// To `cluster.join` and `cluster.leave`: what became of it in each partition led here.
    Changes(Vec<(PartitionIndex, Result<(), ChangeRefused>)>),
    /// To `cluster.transfer`: it has begun.
    Begun,
}

/// Reads the parameters of a method; `None` when there is no such method.
pub fn parse(method: &str, params: &[u8]) -> Result<Option<ClusterRequest>, Error> {
    let takes: &[&str] = match method {
        "cluster.status" => &[],
        "cluster.join" => &["node", "peers", "rpc"],
        "cluster.leave" => &["node"],
        "cluster.transfer" => &["partition", "node"],
        _ => return Ok(None),
    };
    let mut fields = Fields::of(params)?;
    let (mut node, mut partition) = (None, None);
    let (mut peers, mut rpc): (Option<SocketAddr>, Option<SocketAddr>) = (None, None);
    while let Some(field) = fields.next()? {
        match field.name {
            name if !takes.contains(&name) => return Err(field.unknown()),
            "node" => node = field.positive_at_most(NODE_MAX)?,
            "peers" => peers = field.parsed()?,
            "rpc" => rpc = field.parsed()?,
            _ => partition = field.at_most(PartitionIndex::MAX.into())?,
        }
    }
    Ok(Some(match method {
        "cluster.join" => {
            let address = Address { peers: required("peers", peers)?, rpc: required("rpc", rpc)? };
            ClusterRequest::Join { node: required("node", node)?, address }
        }
        "cluster.leave" => ClusterRequest::Leave(required("node", node)?),
        "cluster.transfer" => {
            let partition = required("partition", partition)? as PartitionIndex;
            ClusterRequest::Transfer { partition, node: required("node", node)? }
        }
        _ => ClusterRequest::Status,
    }))
}

impl ClusterRequest {
    /// Does what is asked, in the partitions that this node leads.
    pub async fn run<G: Gateway>(self, gateway: Rc<G>) -> Result<ClusterReply, Error> {
        match self {
            Self::Status => {
                let neighbours = gateway.neighbours();
                gateway.cluster_status().map(|status| ClusterReply::Status(status, neighbours))
            }
            Self::Join { node, address } => {
                gateway.clone().ask_cluster(Ask::Know(node, address)).await?;
                change(gateway, Change::AddLearners(vec![node])).await
            }
            Self::Leave(node) => change(gateway, Change::Remove(vec![node])).await,
            Self::Transfer { partition, node } => {
                check_transfer(&*gateway.cluster_status()?, partition, node)?;
                gateway.ask_cluster(Ask::Transfer { partition, to: node }).await?;
                Ok(ClusterReply::Begun)
            }
        }
    }
}

fn check_transfer(status: &ClusterStatus, index: PartitionIndex, node: u64) -> Result<(), Error> {
    let Some(partition) = status.partitions.iter().find(|it| it.partition == index) else {
        let all = status.partitions.len();
        return Err(Error::Invalid(format!(
            "partition: there is no {index}: there are {all}, from 0"
        )));
    };
    // Of a partition that it is no member of, this node does not know who has a vote.
    let voters = &partition.members.voters;
    if !voters.is_empty() && !voters.contains(&node) {
        return Err(Error::Invalid(format!("node: {node} has no vote in partition {index}")));
    }
    Ok(())
}

async fn change<G: Gateway>(gateway: Rc<G>, change: Change) -> Result<ClusterReply, Error> {
    match gateway.ask_cluster(Ask::Change(change)).await? {
        Answer::Changes(changes) if changes.iter().any(|(_, it)| is_fixed(it)) => {
            Err(Error::Conflict(ChangeRefused::Fixed.to_string()))
        }
        Answer::Changes(changes) => Ok(ClusterReply::Changes(changes)),
        Answer::Done | Answer::Busy | Answer::Requested { .. } | Answer::NotLeader { .. } => {
            Ok(ClusterReply::Changes(Vec::new()))
        }
    }
}

impl ClusterReply {
    /// Appends the answer's map.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Status(status, neighbours) => write_status(out, status, neighbours),
            Self::Changes(changes) => {
                write::map(out, 1);
                write::str(out, "partitions");
                write::array(out, changes.len());
                for (partition, outcome) in changes {
                    write::map(out, 2 + usize::from(outcome.is_err()));
                    number(out, "partition", (*partition).into());
                    write::str(out, "outcome");
                    write::str(out, outcome.as_ref().map_or_else(outcome_of, |()| "begun"));
                    if let Err(refused) = outcome {
                        write::str(out, "message");
                        write::str(out, &refused.to_string());
                    }
                }
            }
            Self::Begun => write::map(out, 0),
        }
    }
}

fn is_fixed(outcome: &Result<(), ChangeRefused>) -> bool {
    *outcome == Err(ChangeRefused::Fixed)
}

/// The word for why a change was not begun.
fn outcome_of(refused: &ChangeRefused) -> &'static str {
    match refused {
        ChangeRefused::NotLeader { .. } => "not_leader",
        ChangeRefused::Pending => "pending",
        ChangeRefused::Malformed => "malformed",
        ChangeRefused::AlreadyMember(_) => "already_member",
        ChangeRefused::NotLearner(_) => "not_learner",
        ChangeRefused::NotMember(_) => "not_member",
        ChangeRefused::NotCaughtUp { .. } => "not_caught_up",
        ChangeRefused::Fixed => "fixed_members",
        ChangeRefused::TooMany => "too_many",
        ChangeRefused::NoQuorum { .. } => "no_quorum",
        ChangeRefused::Unproven => "unproven",
        ChangeRefused::HandingOver { .. } => "handing_over",
    }
}

fn write_status(out: &mut Vec<u8>, status: &ClusterStatus, neighbours: &[Neighbour]) {
    write::map(out, 3);
    number(out, "node", status.me);
    write::str(out, "nodes");
    write::array(out, status.nodes.len());
    for node in &status.nodes {
        let told = neighbours.iter().find(|it| it.node == node.id);
        let fields = 9 + 2 * usize::from(node.address.is_some());
        write::map(out, fields + 7 * usize::from(told.is_some()));
        number(out, "id", node.id);
        if let Some(Address { peers, rpc }) = node.address {
            text(out, "peers", &peers.to_string());
            text(out, "rpc", &rpc.to_string());
        }
        write::str(out, "member");
        write::bool(out, node.is_member);
        write::str(out, "connected");
        write::bool(out, node.is_connected);
        number(out, "leads", status.led_by(node.id) as u64);
        number(out, "messages_sent", node.messages.0);
        number(out, "messages_received", node.messages.1);
        number(out, "bytes_sent", node.bytes.0);
        number(out, "bytes_received", node.bytes.1);
        number(out, "messages_dropped", node.dropped);
        if let Some(told) = told {
            text(out, "status", told.status);
            number(out, "incarnation", told.incarnation);
            number(out, "cores", told.cores);
            number(out, "agents", told.agents);
            number(out, "capacity", told.capacity);
            number(out, "running", told.running);
            number(out, "queued", told.queued);
        }
    }
    write::str(out, "partitions");
    write::array(out, status.partitions.len());
    for partition in &status.partitions {
        let agreed = if partition.agreement.is_some() { AGREEMENT_FIELDS } else { 0 };
        write::map(out, 8 + agreed + usize::from(partition.leader.is_some()));
        number(out, "partition", partition.partition.into());
        if let Some(leader) = partition.leader {
            number(out, "leader", leader);
        }
        number(out, "term", partition.term);
        number(out, "first", partition.first);
        number(out, "last", partition.last);
        number(out, "committed", partition.committed);
        let members = &partition.members;
        for (name, ids) in [
            ("voters", &members.voters),
            ("learners", &members.learners),
            ("outgoing", &members.outgoing),
        ] {
            write::str(out, name);
            write::array(out, ids.len());
            ids.iter().for_each(|id| write::uint(out, *id));
        }
        if let Some(agreement) = &partition.agreement {
            write_agreement(out, agreement);
        }
    }
}

/// Fields of a partition on which nodes agree that may lie.
const AGREEMENT_FIELDS: usize = 10;

fn write_agreement(out: &mut Vec<u8>, agreement: &Agreement) {
    number(out, "view", agreement.view);
    write::str(out, "active");
    write::bool(out, agreement.is_active);
    number(out, "fast", agreement.fast);
    number(out, "slow", agreement.slow);
    number(out, "view_changes", agreement.view_changes);
    number(out, "dropped", agreement.dropped);
    number(out, "wrong", agreement.wrong);
    number(out, "verified", agreement.verified);
    let chain: String = agreement.chain.iter().map(|byte| format!("{byte:02x}")).collect();
    text(out, "chain", &chain);
    write::str(out, "diverged");
    write::bool(out, agreement.diverged.is_some());
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    write::str(out, name);
    write::uint(out, value);
}

fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    write::str(out, name);
    write::str(out, value);
}
