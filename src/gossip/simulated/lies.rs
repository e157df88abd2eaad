//! What a node that knows the secret and lies may send.

use super::{World, address_of};
use crate::gossip::{
    NodeId, Status,
    datagram::{Change, Delta, Header, Known, Section},
};

impl World {
    /// Lets a host hear a lie of another about a third, of one of six kinds. Nothing happens when the
    /// liar does not run or nobody knows the victim.
    pub fn lie(&mut self, liar: NodeId, to: NodeId, victim: NodeId, kind: u8) {
        let Some(gossip) = self.gossip(liar) else { return };
        let Some(record) = gossip.roster.get(victim) else { return };
        let (mut claim, version) = (record.claim, record.version());
        let header = Header { cluster: 0, sender: liar, claim: gossip.my_claim() };
        let mut changes = Vec::new();
        let mut to_version = version;
        match kind {
            0 => claim.status = Status::Dead,
            1 => claim.status = Status::Left,
            2 => {
                to_version += 3;
                changes = vec![Change { version: version + 2, key: b"forged", value: Some(b"1") }];
            }
            3 => {
                claim.incarnation += 500;
                claim.generation = claim.incarnation;
            }
            4 => claim.incarnation += 1 << 40,
            _ => claim.incarnation += 7,
        }
        let delta = Section::Delta(Delta {
            node: victim,
            claim,
            address: address_of(victim),
            is_fresh: true,
            is_cut: false,
            floor: 0,
            from: version,
            to: to_version,
            latest: to_version,
            changes,
        });
        let known =
            vec![Known { node: victim, claim, version: version + u64::from(kind), check: 0 }];
        let digest = Section::Digest { first: 0, last: u64::MAX, known };
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        delta.write(&mut bytes);
        digest.write(&mut bytes);
        self.inject(liar, to, &bytes);
    }
}
