//! Whose log a folder has.
//!
//! The log of a node of a cluster is that node's for its whole life: it says what the node has voted
//! for and what it has acknowledged to others. Under another number it would vote again on what it has
//! forgotten; alone it would accept what the others never hear of; and the log of a node that was alone
//! has tasks that the others do not have. So the folder tells, in a file beside the segments.

use super::{open::Seat, peers::NodeId};
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
}

impl Owner {
    /// `None` for a node that is alone.
    fn of(seat: &Seat) -> Option<Self> {
        let links = seat.links.as_ref()?;
        let partitions = seat.partitions.unwrap_or_default();
        Some(Self { node: seat.node, cluster: links.cluster, partitions })
    }

    fn to_text(self) -> String {
        let Self { node, cluster, partitions } = self;
        format!("node {node}\ncluster {cluster:032x}\npartitions {partitions}\n")
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        Some(Self {
            node: value("node")?.parse().ok()?,
            cluster: u128::from_str_radix(value("cluster")?, 16).ok()?,
            partitions: value("partitions")?.parse().ok()?,
        })
    }
}

/// Looks whether a folder's log is that of a seat, and says whose it is when it has none yet.
///
/// # Errors
/// It is another's, as a sentence with what to do; or the file cannot be read or written.
pub(super) fn claim(folder: &Path, seat: &Seat, has_log: bool) -> io::Result<Result<(), String>> {
    let file = folder.join(NAME);
    let kept = match fs::read_to_string(&file) {
        Ok(text) => Some(Owner::from_text(&text).ok_or_else(|| {
            let text = format!("{}: it does not say whose log this is", file.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(match (Owner::of(seat), kept) {
        (me, kept) if me == kept => Ok(()),
        (Some(me), None) if !has_log => {
            replace_file(&file, me.to_text().as_bytes())?;
            Ok(())
        }
        (Some(_), None) => {
            Err("it was begun by a node that was alone, whose tasks the other nodes do \
                                not have; begin the cluster with an empty folder (log.folder), and \
                                let the lone node's tasks end first"
                .into())
        }
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
    use crate::consensus::peers::{Config, Limits, Timing};

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
        fs::write(folder.join(NAME), "node three").expect("a disk");
        assert!(claim(&folder, &seat(3, 7, 12), true).is_err());
        fs::remove_dir_all(&folder).expect("it was made here");
    }
}
