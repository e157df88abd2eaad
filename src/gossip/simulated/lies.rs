//! What a node that knows the secret and lies may send.

use super::{World, address_of};
use crate::gossip::{
    NodeId, Status,
    datagram::{Change, Delta, Header, Known, Section},
};

impl World {
    /// Lets a host hear a lie of another about a third, of one of twelve kinds. Nothing happens when the
    /// liar does not run or nobody knows the victim.
    pub fn lie(&mut self, liar: NodeId, to: NodeId, victim: NodeId, kind: u8) {
        let Some(gossip) = self.gossip(liar) else { return };
        let Some(record) = gossip.roster.get(victim) else { return };
        let (mut claim, version) = (record.claim, record.version());
        let mut header = Header { cluster: 0, sender: liar, claim: gossip.my_claim() };
        let mut changes = Vec::new();
        let (mut from, mut to_version, mut floor, mut is_fresh) = (version, version, 0, true);
        let mut latest = None;
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
            // A floor that the map never reaches, an end that it never reaches, and whole lives.
            6 => (from, to_version, floor, is_fresh) = (0, 1, 1 << 40, false),
            7 => (to_version, latest, is_fresh) = (version + 1, Some(1 << 40), false),
            // The last two in the name of the victim.
            8..=11 => {
                claim.incarnation += 2 + u64::from(kind % 2);
                claim.generation = claim.incarnation;
                (from, to_version) = (0, 1);
                if kind > 9 {
                    header = Header { cluster: 0, sender: victim, claim };
                }
            }
            _ => claim.incarnation += 7,
        }
        let delta = Section::Delta(Delta {
            node: victim,
            claim,
            address: address_of(victim),
            is_fresh,
            is_cut: false,
            floor,
            from,
            to: to_version,
            latest: latest.unwrap_or(to_version.max(floor)),
            changes,
        });
        let known =
            vec![Known { node: victim, claim, version: version + u64::from(kind), check: 0 }];
        let digest = Section::Digest { first: 0, last: u64::MAX, known };
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        delta.write(&mut bytes);
        if kind < 6 {
            digest.write(&mut bytes);
        }
        self.inject(liar, to, &bytes);
    }
}
