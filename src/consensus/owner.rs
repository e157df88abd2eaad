//! Whose log a folder has.
//!
//! The log of a node of a cluster is that node's for its whole life: it says what the node has voted
//! for and what it has acknowledged to others. Under another number it would vote again on what it has
//! forgotten; alone it would accept what the others never hear of; and the log of a node that was alone
//! has tasks that the others do not have. Where nodes sign, what is in the log was signed for one life of
//! these very nodes, and says nothing in another. So the folder tells, in a file beside the segments.
//!
//! Invariants worth naming
//! - Nothing of a log is read or written before the folder was found to be this node's.

use super::{
    begun,
    format::segment_number,
    open::Seat,
    pbft::{Company, Terms},
    peers::NodeId,
};
use crate::{
    runtime::disk::replace_file,
    wire::{id::PartitionIndex, secret::bytes_of_hex},
};
use std::{fs, io, path::Path};

/// The file.
const NAME: &str = "owner";

/// A node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    node: NodeId,
    cluster: u128,
    partitions: PartitionIndex,
    protocol: Protocol,
    /// Where they sign; `None` of Raft, and of folders from before it was written down.
    life: Option<Life>,
}

/// What the signatures of nodes are bound to beside their cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Life {
    genesis: u128,
    generation: u64,
    terms: Terms,
    members: Vec<(NodeId, [u8; 32])>,
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

impl Life {
    fn of(company: &Company) -> Self {
        let (genesis, members) = (company.genesis(), company.members());
        Self { genesis, generation: company.generation, terms: company.terms, members }
    }

    fn to_text(&self) -> String {
        let Self { genesis, generation, terms, members } = self;
        let Terms { key_ttl_ms, payload_bytes_max } = terms;
        let mut text = format!(
            "generation {generation}\ngenesis {genesis:032x}\nterms {key_ttl_ms} {payload_bytes_max}\n"
        );
        for (node, key) in members {
            let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!("member {node} {key}\n");
        }
        text
    }

    fn from_lines<'a>(mut lines: impl Iterator<Item = &'a str>) -> Option<Self> {
        let generation = lines.next()?.strip_prefix("generation ")?.parse().ok()?;
        let genesis = u128::from_str_radix(lines.next()?.strip_prefix("genesis ")?, 16).ok()?;
        let (key_ttl_ms, payload_bytes_max) =
            lines.next()?.strip_prefix("terms ")?.split_once(' ')?;
        let terms = Terms {
            key_ttl_ms: key_ttl_ms.parse().ok()?,
            payload_bytes_max: payload_bytes_max.parse().ok()?,
        };
        let member = |line: &str| {
            let (node, key) = line.strip_prefix("member ")?.split_once(' ')?;
            Some((node.parse().ok()?, bytes_of_hex(key)?))
        };
        let members = lines.map(member).collect::<Option<_>>()?;
        Some(Self { genesis, generation, terms, members })
    }

    /// What of this life, in which a log was begun, is another one now.
    fn differs(&self, now: &Self) -> Option<String> {
        let ids = |life: &Self| life.members.iter().map(|(node, _)| *node).collect::<Vec<_>>();
        let list =
            |ids: &[NodeId]| ids.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
        if ids(self) != ids(now) {
            let (kept, now) = (list(&ids(self)), list(&ids(now)));
            return Some(format!("it was begun by the nodes {kept}, and the list has {now}"));
        }
        let changed = self.members.iter().zip(&now.members).find(|(kept, now)| kept != now);
        if let Some(((node, _), _)) = changed {
            return Some(format!("the public_key of node {node} was another one when it began"));
        }
        if self.generation != now.generation {
            return Some(format!(
                "it was begun with consensus.generation = {}, which is {} now",
                self.generation, now.generation
            ));
        }
        for (key, kept, now) in [
            ("key_ttl_ms", self.terms.key_ttl_ms, now.terms.key_ttl_ms),
            ("max_payload_bytes", self.terms.payload_bytes_max, now.terms.payload_bytes_max),
        ] {
            if kept != now {
                return Some(format!("it was begun with tasks.{key} = {kept}, which is {now} now"));
            }
        }
        let is_other = self.genesis != now.genesis;
        is_other.then(|| "another version of coreflow made its genesis".to_owned())
    }
}

impl Owner {
    /// `None` for a node that is alone.
    fn of(seat: &Seat) -> Option<Self> {
        let links = seat.links.as_ref()?;
        let company = seat.company.as_ref();
        Some(Self {
            node: seat.node,
            cluster: company.map_or(links.cluster, |company| company.cluster),
            partitions: seat.partitions.unwrap_or_default(),
            protocol: Protocol::of(seat),
            life: company.map(Life::of),
        })
    }

    fn to_text(&self) -> String {
        let Self { node, cluster, partitions, protocol, life } = self;
        let mut text = format!("node {node}\ncluster {cluster:032x}\npartitions {partitions}\n");
        if *protocol == Protocol::Pbft {
            text += "protocol pbft\n";
        }
        text + &life.as_ref().map(Life::to_text).unwrap_or_default()
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines().peekable();
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let (node, cluster, partitions) = (value("node")?, value("cluster")?, value("partitions")?);
        let protocol = match lines.next() {
            None => Protocol::Raft,
            Some("protocol pbft") => Protocol::Pbft,
            Some(_) => return None,
        };
        let life = match lines.peek() {
            None => None,
            Some(_) => Some(Life::from_lines(lines)?),
        };
        Some(Self {
            node: node.parse().ok()?,
            cluster: u128::from_str_radix(cluster, 16).ok()?,
            partitions: partitions.parse().ok()?,
            protocol,
            life,
        })
    }

    /// Why a log that this node began is not that of `me`, as a sentence with what to do.
    fn refuses(&self, me: Option<&Self>) -> Option<String> {
        let Self { node, protocol, .. } = self;
        let Some(me) = me else {
            let agree = match protocol {
                Protocol::Raft => "",
                Protocol::Pbft => " whose nodes agree by PBFT",
            };
            return Some(format!(
                "it is that of node {node} of a cluster{agree}; start it with that cluster's file \
                 and cluster.node = {node}, or set log.folder to another folder"
            ));
        };
        if *node != me.node {
            return Some(format!(
                "it is that of node {node}, and this is node {} (cluster.node); set log.folder to \
                 another folder",
                me.node
            ));
        }
        if *protocol != me.protocol {
            return Some(format!(
                "it was written by nodes that agree by {}, and consensus.protocol is \"{}\"; that \
                 never changes: set it back, or begin another cluster with empty folders \
                 (log.folder)",
                protocol.word(),
                me.protocol.word()
            ));
        }
        if self.partitions != me.partitions {
            return Some(format!(
                "it began with {} partitions, and cluster.partitions is {}; that never changes",
                self.partitions, me.partitions
            ));
        }
        if self.cluster != me.cluster {
            let text = "it is that of a cluster with another cluster.name, which never changes";
            return Some(text.into());
        }
        let differs = match (&self.life, &me.life) {
            (None, Some(_)) => {
                Some("an earlier version of coreflow began it, whose nodes signed less".to_owned())
            }
            (Some(kept), Some(now)) => kept.differs(now),
            (_, None) => None,
        };
        differs.map(|what| {
            format!(
                "{what}; what its nodes signed says nothing there: set it back, or begin another \
                 cluster with empty folders (log.folder) on all nodes and a higher \
                 consensus.generation"
            )
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

/// Looks whether a folder's log is that of a seat, before it is read: another one's may look damaged.
///
/// # Errors
/// It is another's, as a sentence with what to do; or the folder cannot be read.
pub(super) fn check(folder: &Path, seat: &Seat) -> io::Result<Result<(), String>> {
    let me = Owner::of(seat);
    Ok(match read(&folder.join(NAME))? {
        Some(kept) => match kept.refuses(me.as_ref()) {
            Some(why) => Err(why),
            None if has_segments(folder)? => Ok(()),
            // The file alone is what a start has left that went no further, or what was brought back.
            None => lost(seat)?.map_or(Ok(()), Err),
        },
        None if Protocol::of(seat) == Protocol::Pbft && has_segments(folder)? => Err(LONE.into()),
        None => lost(seat)?.map_or(Ok(()), Err),
    })
}

/// What is said of a folder without a log though its node has begun a log in this life.
fn lost(seat: &Seat) -> io::Result<Option<String>> {
    let (Some(company), Some(file)) = (&seat.company, &seat.begun_file) else { return Ok(None) };
    Ok(begun::has_begun(file, company.genesis())?.then(|| {
        format!(
            "there is none, and {} says that node {} has begun a log in this life of its cluster \
             (consensus.generation = {}): with a new one it would vote again on what it has \
             forgotten; bring the folder back, or let the others go on without this node, or begin \
             another life of the cluster with empty folders and a higher consensus.generation on all \
             nodes",
            file.display(),
            company.node,
            company.generation
        )
    }))
}

/// Notes beside a node's key that it has begun a log, once that has its first segment and before anything
/// is signed.
///
/// # Errors
/// The file cannot be read or written: if the folder were lost, nobody would notice.
pub(super) fn begin(seat: &Seat) -> io::Result<()> {
    let (Some(company), Some(file)) = (&seat.company, &seat.begun_file) else { return Ok(()) };
    begun::begin(file, company.genesis()).map_err(|error| {
        let text = format!(
            "{}: it cannot be noted beside the node's key that it has begun a log, so nobody would \
             notice if that were lost: {error}",
            file.display()
        );
        io::Error::new(error.kind(), text)
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

/// Says whose log a folder has that was checked, when it has none yet.
///
/// # Errors
/// It has one that a node began that was alone, as a sentence with what to do; or the file cannot be
/// read or written.
pub(super) fn claim(folder: &Path, seat: &Seat, has_log: bool) -> io::Result<Result<(), String>> {
    let file = folder.join(NAME);
    let Some(me) = Owner::of(seat) else { return Ok(Ok(())) };
    Ok(match read(&file)? {
        Some(_) => Ok(()),
        None if has_log => Err(LONE.into()),
        None => {
            replace_file(&file, me.to_text().as_bytes())?;
            Ok(())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::{
        pbft::{Identity, Ring},
        peers::{Config, Limits, Timing},
    };

    /// A folder of a test.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("coreflow-owner-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).expect("a folder");
            Self(path)
        }

        /// As a start does it, on a folder that has a log or not.
        fn start(&self, seat: &Seat, has_log: bool) -> Result<(), String> {
            check(&self.0, seat).expect("a disk")?;
            claim(&self.0, seat, has_log).expect("a disk")?;
            fs::write(self.segment(), "").expect("a disk");
            begin(seat).expect("a disk");
            Ok(())
        }

        fn segment(&self) -> std::path::PathBuf {
            self.0.join("segment-000001.log")
        }

        fn lose(&self) {
            fs::remove_dir_all(&self.0).expect("a disk");
            fs::create_dir_all(&self.0).expect("a disk");
        }

        fn refusal(&self, seat: &Seat) -> String {
            self.start(seat, true).expect_err("it is another's")
        }

        fn owner(&self) -> std::path::PathBuf {
            self.0.join(NAME)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

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

    /// One of nodes that sign, whose keys are made of these secrets.
    fn signing(nodes: [NodeId; 4], secrets: [u8; 4], generation: u64) -> Seat {
        let identities = secrets.map(|secret| Identity::from_secret(&[secret; 32]));
        let keys = nodes.into_iter().zip(&identities).map(|(node, it)| (node, it.public()));
        let company = Some(Company {
            node: 3,
            identity: identities[2].clone(),
            ring: Ring::new(keys).expect("keys"),
            cluster: 7,
            generation,
            nodes: nodes.to_vec(),
            terms: Terms { key_ttl_ms: 5, payload_bytes_max: 6 },
        });
        Seat { company, ..seat(3, 7, 12) }
    }

    #[test]
    fn a_log_is_that_of_one_node_for_its_whole_life() {
        let folder = Folder::new("raft");
        assert_eq!(folder.start(&Seat::alone(), true), Ok(()));
        let refused = folder.refusal(&seat(3, 7, 12));
        assert!(refused.contains("a node that was alone"), "{refused}");
        assert_eq!(folder.start(&seat(3, 7, 12), false), Ok(()), "it begins here");
        assert_eq!(folder.start(&seat(3, 7, 12), true), Ok(()));
        for (other, why) in [
            (Seat::alone(), "of node 3 of a cluster; start it with that cluster's file"),
            (seat(4, 7, 12), "of node 3"),
            (seat(3, 7, 11), "12 partitions"),
            (seat(3, 8, 12), "cluster.name"),
            (signing([1, 2, 3, 4], [1, 2, 3, 4], 1), "by raft, and consensus.protocol is \"pbft\""),
        ] {
            let refused = folder.refusal(&other);
            assert!(refused.contains(why), "{refused}");
        }
        assert_eq!(protocol(&folder.0).expect("a disk"), Protocol::Raft);
        fs::write(folder.owner(), "node three").expect("a disk");
        assert!(check(&folder.0, &seat(3, 7, 12)).is_err());
    }

    #[test]
    fn a_node_that_has_lost_its_log_begins_no_other_in_the_same_life() {
        let (key, log) = (Folder::new("lost-key"), Folder::new("lost-log"));
        let file = begun::file_of(&key.0.join("node.key"));
        let seat = |generation| {
            let seat = signing([1, 2, 3, 4], [1, 2, 3, 4], generation);
            Seat { begun_file: Some(file.clone()), ..seat }
        };
        for generation in [1, 2] {
            assert_eq!(log.start(&seat(generation), false), Ok(()), "it begins here");
            assert_eq!(log.start(&seat(generation), true), Ok(()), "and goes on");
            fs::remove_file(log.segment()).expect("a disk");
            assert!(log.refusal(&seat(generation)).contains("bring the folder back"));
            log.lose();
            for lost in 1..=generation {
                let refused = log.refusal(&seat(lost));
                assert!(refused.contains("bring the folder back"), "{refused}");
            }
        }
        // A log that an earlier version began is noted when it goes on.
        assert_eq!(log.start(&seat(3), false), Ok(()));
        fs::remove_file(&file).expect("a disk");
        assert_eq!(log.start(&seat(3), true), Ok(()));
        log.lose();
        assert!(log.refusal(&seat(3)).contains("node 3 has begun a log"));
    }

    #[test]
    fn a_start_that_went_no_further_than_the_owner_begins_again_and_none_begins_unnoted() {
        let log = Folder::new("half");
        let missing = log.0.join("no-such-folder").join("node.key");
        let seat = Seat {
            begun_file: Some(begun::file_of(&missing)),
            ..signing([1, 2, 3, 4], [1, 2, 3, 4], 1)
        };
        for _ in 0..2 {
            assert_eq!(check(&log.0, &seat).expect("a disk"), Ok(()));
            assert_eq!(claim(&log.0, &seat, false).expect("a disk"), Ok(()));
        }
        let error = begin(&seat).expect_err("there is no folder for it");
        assert!(error.to_string().contains("it cannot be noted"), "{error}");
    }

    #[test]
    fn the_log_of_nodes_that_sign_is_that_of_one_life_of_one_list_of_keys() {
        let folder = Folder::new("pbft");
        let own = signing([1, 2, 3, 4], [1, 2, 3, 4], 1);
        assert_eq!(folder.start(&own, false), Ok(()), "it begins here");
        assert_eq!(folder.start(&own, true), Ok(()));
        assert_eq!(protocol(&folder.0).expect("a disk"), Protocol::Pbft);
        let text = fs::read_to_string(folder.owner()).expect("a disk");
        assert_eq!(Owner::from_text(&text), Owner::of(&own));
        assert_eq!(Owner::from_text(&text).expect("it was read").to_text(), text);
        let mut renamed = own.clone();
        renamed.company.as_mut().expect("it signs").cluster = 8;
        let with_terms = |terms| {
            let mut other = own.clone();
            other.company.as_mut().expect("it signs").terms = terms;
            other
        };
        for (other, why) in [
            (Seat::alone(), "of a cluster whose nodes agree by PBFT; start it with that"),
            (seat(3, 7, 12), "by pbft, and consensus.protocol is \"raft\""),
            (
                signing([1, 2, 3, 5], [1, 2, 3, 4], 1),
                "nodes 1, 2, 3, 4, and the list has 1, 2, 3, 5",
            ),
            (signing([1, 2, 3, 4], [1, 9, 3, 4], 1), "public_key of node 2 was another one"),
            (signing([1, 2, 3, 4], [1, 2, 3, 4], 2), "consensus.generation = 1, which is 2 now"),
            (renamed, "cluster.name"),
            (
                with_terms(Terms { key_ttl_ms: 9, payload_bytes_max: 6 }),
                "tasks.key_ttl_ms = 5, which is 9 now",
            ),
            (
                with_terms(Terms { key_ttl_ms: 5, payload_bytes_max: 9 }),
                "tasks.max_payload_bytes = 6, which is 9 now",
            ),
        ] {
            let refused = folder.refusal(&other);
            assert!(refused.contains(why), "{refused}");
        }
        // As it was written before nodes signed for a life.
        let (before, _) = text.split_once("generation").expect("it says so");
        fs::write(folder.owner(), before).expect("a disk");
        assert!(folder.refusal(&own).starts_with("an earlier version of coreflow"));
        let (cut, _) = text.split_at(text.len() - 9);
        fs::write(folder.owner(), cut).expect("a disk");
        assert!(check(&folder.0, &own).is_err(), "a key that is cut off is no key");
        fs::remove_file(folder.owner()).expect("a disk");
        fs::write(folder.0.join("segment-000001.log"), "").expect("a disk");
        let refused = folder.refusal(&own);
        assert!(refused.contains("a node that was alone"), "{refused}");
    }
}
