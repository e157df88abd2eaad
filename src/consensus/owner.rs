//! Whose log a folder has.
//!
//! The log of a node of a cluster is that node's for its whole life: it says what the node has voted
//! for and what it has acknowledged to others. Under another number it would vote again on what it has
//! forgotten; alone it would accept what the others never hear of; and the log of a node that was alone
//! has tasks that the others do not have. So the folder tells, in a file beside the segments.

use super::{format::segment_number, open::Seat, peers::NodeId};
use crate::{runtime::disk::replace_file, wire::id::PartitionIndex};
use std::{fs, io, path::Path};

/// The file.
const NAME: &str = "owner";

/// A node of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    node: NodeId,
    cluster: u128,
    partitions: PartitionIndex,
    protocol: Protocol,
}

/// How the nodes of a cluster agree: their logs are not alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// They crash, and do nothing wrong.
    Raft,
    /// They may lie.
    Pbft,
}

impl Protocol {
    fn of(seat: &Seat) -> Self {
        if seat.company.is_some() { Self::Pbft } else { Self::Raft }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::Pbft => "pbft",
        }
    }
}

impl Owner {
    /// `None` for a node that is alone.
    fn of(seat: &Seat) -> Option<Self> {
        let links = seat.links.as_ref()?;
        let partitions = seat.partitions.unwrap_or_default();
        let protocol = Protocol::of(seat);
        Some(Self { node: seat.node, cluster: links.cluster, partitions, protocol })
    }

    fn to_text(self) -> String {
        let Self { node, cluster, partitions, protocol } = self;
        let text = format!("node {node}\ncluster {cluster:032x}\npartitions {partitions}\n");
        match protocol {
            Protocol::Raft => text,
            Protocol::Pbft => text + "protocol pbft\n",
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let (node, cluster, partitions) = (value("node")?, value("cluster")?, value("partitions")?);
        Some(Self {
            node: node.parse().ok()?,
            cluster: u128::from_str_radix(cluster, 16).ok()?,
            partitions: partitions.parse().ok()?,
            protocol: match lines.next() {
                None => Protocol::Raft,
                Some("protocol pbft") => Protocol::Pbft,
                Some(_) => return None,
            },
        })
    }
}

/// What is said of the log of a node that was alone.
const LONE: &str = "it was begun by a node that was alone, whose tasks the other nodes do not have; \
                    begin the cluster with an empty folder (log.folder), and let the lone node's \
                    tasks end first";

fn read(file: &Path) -> io::Result<Option<Owner>> {
    match fs::read_to_string(file) {
        Ok(text) => Owner::from_text(&text).map(Some).ok_or_else(|| {
            let text = format!("{}: it does not say whose log this is", file.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// By which protocol a folder's log was written.
///
/// # Errors
/// The file cannot be read.
pub(super) fn protocol(folder: &Path) -> io::Result<Protocol> {
    Ok(read(&folder.join(NAME))?.map_or(Protocol::Raft, |owner| owner.protocol))
}

/// Looks whether a folder's log can be read by a seat's protocol, before it is.
///
/// # Errors
/// It was written by another, as a sentence with what to do; or the folder cannot be read.
pub(super) fn check(folder: &Path, seat: &Seat) -> io::Result<Result<(), String>> {
    let asked = Protocol::of(seat);
    Ok(match read(&folder.join(NAME))? {
        Some(kept) if seat.links.is_some() && kept.protocol != asked => Err(format!(
            "it was written by nodes that agree by {}, and consensus.protocol is \"{}\"; that never \
             changes: set it back, or begin another cluster with empty folders (log.folder)",
            kept.protocol.word(),
            asked.word()
        )),
        None if asked == Protocol::Pbft && has_segments(folder)? => Err(LONE.into()),
        _ => Ok(()),
    })
}

fn has_segments(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        if entry?.file_name().to_str().and_then(segment_number).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Looks whether a folder's log is that of a seat, and says whose it is when it has none yet.
///
/// # Errors
/// It is another's, as a sentence with what to do; or the file cannot be read or written.
pub(super) fn claim(folder: &Path, seat: &Seat, has_log: bool) -> io::Result<Result<(), String>> {
    let file = folder.join(NAME);
    let kept = read(&file)?;
    Ok(match (Owner::of(seat), kept) {
        (me, kept) if me == kept => Ok(()),
        (Some(me), None) if !has_log => {
            replace_file(&file, me.to_text().as_bytes())?;
            Ok(())
        }
        (Some(_), None) => Err(LONE.into()),
        (None, Some(kept)) => Err(format!(
            "it is that of node {} of a cluster; start it with that cluster's file and cluster.node \
             = {}, or set log.folder to another folder",
            kept.node, kept.node
        )),
        (Some(me), Some(kept)) if me.node != kept.node => Err(format!(
            "it is that of node {}, and this is node {} (cluster.node); set log.folder to another \
             folder",
            kept.node, me.node
        )),
        (Some(me), Some(kept)) if me.partitions != kept.partitions => Err(format!(
            "it began with {} partitions, and cluster.partitions is {}; that never changes",
            kept.partitions, me.partitions
        )),
        _ => Err("it is that of a cluster with another cluster.name, which never changes".into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::{
        pbft::{Company, Identity, Ring},
        peers::{Config, Limits, Timing},
    };

    fn seat(node: NodeId, cluster: u128, partitions: PartitionIndex) -> Seat {
        let links = Config {
            cluster,
            node,
            listen: "127.0.0.1:0".parse().expect("an address"),
            secret: None,
            signing: None,
            seed: 1,
            limits: Limits::default(),
            timing: Timing::default(),
        };
        Seat { node, partitions: Some(partitions), links: Some(links), ..Seat::alone() }
    }

    #[test]
    fn a_log_is_that_of_one_node_for_its_whole_life() {
        let folder = std::env::temp_dir().join(format!("coreflow-owner-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let claims = |seat: &Seat, has_log| claim(&folder, seat, has_log).expect("a disk");
        assert_eq!(claims(&Seat::alone(), true), Ok(()));
        let refused = claims(&seat(3, 7, 12), true).expect_err("a lone node's log");
        assert!(refused.contains("a node that was alone"), "{refused}");
        assert_eq!(claims(&seat(3, 7, 12), false), Ok(()), "it begins here");
        assert_eq!(claims(&seat(3, 7, 12), true), Ok(()));
        for (other, why) in [
            (Seat::alone(), "cluster.node = 3"),
            (seat(4, 7, 12), "of node 3"),
            (seat(3, 7, 11), "12 partitions"),
            (seat(3, 8, 12), "cluster.name"),
        ] {
            let refused = claims(&other, true).expect_err("it is another's");
            assert!(refused.contains(why), "{refused}");
        }
        assert_eq!(protocol(&folder).expect("a disk"), Protocol::Raft);
        let company = Some(Company {
            node: 3,
            identity: Identity::from_secret(&[3; 32]),
            ring: Ring::default(),
            cluster: 7,
            nodes: vec![1, 2, 3, 4],
        });
        let liar = Seat { company, ..seat(3, 7, 12) };
        assert_eq!(check(&folder, &seat(3, 7, 12)).expect("a disk"), Ok(()));
        let refused = check(&folder, &liar).expect("a disk").expect_err("another protocol");
        assert!(refused.contains("agree by raft, and consensus.protocol is \"pbft\""), "{refused}");
        fs::remove_file(folder.join(NAME)).expect("a disk");
        assert_eq!(check(&folder, &liar).expect("a disk"), Ok(()));
        assert_eq!(claims(&liar, false), Ok(()), "it begins here");
        assert_eq!(protocol(&folder).expect("a disk"), Protocol::Pbft);
        let refused =
            check(&folder, &seat(3, 7, 12)).expect("a disk").expect_err("another protocol");
        assert!(refused.contains("agree by pbft, and consensus.protocol is \"raft\""), "{refused}");
        fs::remove_file(folder.join(NAME)).expect("a disk");
        fs::write(folder.join("segment-000001.log"), "").expect("a disk");
        let refused = check(&folder, &liar).expect("a disk").expect_err("a lone node's log");
        assert!(refused.contains("a node that was alone"), "{refused}");
        fs::write(folder.join(NAME), "node three").expect("a disk");
        assert!(claim(&folder, &seat(3, 7, 12), true).is_err());
        fs::remove_dir_all(&folder).expect("it was made here");
    }
}
