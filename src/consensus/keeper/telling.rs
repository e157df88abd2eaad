//! What the log thread does with what is committed: blocks go back, entries of others are told,
//! what nobody needs is forgotten.

use super::{
    super::{
        damage::Damage,
        disk::Disk,
        engine::{Engine, Event, Fetch, Kind, Role, Stored},
        format::{BLOCK_HEAD_BYTES, segment_name},
        group::check_entry,
        lane::Told,
        links::Links,
        news::{Compacted, Foreign},
        notice::{Notice, Saying},
        place::Place,
        record::Record,
        writer::Fatal,
    },
    Held, Keeper, Proposed,
};
use crate::{
    planted::{self, Bug},
    wire::id::PartitionIndex,
};
use bytes::Bytes;
use std::{io, time::Duration};

/// Entries that a partition is told in one turn: they are read from the disk, and other nodes wait
/// meanwhile.
const FED_A_TURN: usize = 32;
/// How often leaders are told what this node wants of them.
const WANT_EVERY: Duration = Duration::from_millis(100);

impl<D: Disk, L: Links<E::Message>, E: Engine> Keeper<D, L, E> {
    pub(super) fn act(&mut self, partition: PartitionIndex, event: Event) -> Result<(), Fatal> {
        let lane = &mut self.lanes[usize::from(partition)];
        match event {
            Event::Committed { index, ticket: Some(ticket), place, .. } => {
                let is_next = lane.fed + 1 == index;
                lane.committed = index;
                match lane.proposed(ticket) {
                    Proposed::Block(mut block) => {
                        (block.generation, block.offset) = (place.generation, place.offset);
                        match is_next {
                            true => lane.end.tell(Told::Committed(block)),
                            false => lane.held.push_back((index, Held::Block(block))),
                        }
                    }
                    Proposed::Compaction { upto } => {
                        lane.is_compacting = false;
                        self.engine.compact(partition, upto);
                    }
                }
                if is_next {
                    self.lanes[usize::from(partition)].fed = index;
                }
            }
            Event::Committed { index, kind, data, place, .. } => {
                lane.committed = index;
                let is_next = lane.fed + 1 == index && !lane.end.is_waiting();
                if let Some(data) = data.filter(|_| is_next) {
                    self.feed_one(partition, index, kind, place, data);
                }
            }
            Event::Lost { ticket } => match lane.proposed(ticket) {
                Proposed::Block(block) => lane.end.tell(Told::Lost(block)),
                Proposed::Compaction { .. } => lane.is_compacting = false,
            },
            Event::Role(Role::Leader { term }) => {
                lane.crowned = Some(term);
                self.cluster.leaders.set(partition, Some(self.cluster.leaders.me()));
                self.status_at = None;
            }
            Event::Role(Role::Follower { leader }) => {
                lane.crowned = None;
                self.cluster.leaders.set(partition, leader);
                self.status_at = None;
                if lane.reign > 0 {
                    // What its shard has found to be not needed it has to find again.
                    self.engine.keep(partition);
                    let point = self.engine.begins_behind(partition);
                    lane.begin_again(point, false, E::NODES_MAY_LIE);
                }
            }
            Event::Installed { index } => {
                lane.committed = index;
                lane.begin_again(index, true, E::NODES_MAY_LIE);
            }
            Event::Membership(_) => self.meet_members(),
            Event::Read { context } => {
                if !self.settle_doubt(partition, context) {
                    let lane = &mut self.lanes[usize::from(partition)];
                    match lane.is_behind() {
                        true => lane.held.push_back((lane.committed, Held::Read(context))),
                        false => lane.end.tell(Told::Read(context)),
                    }
                }
            }
            // The shard follows now, or soon: it is told that.
            Event::ReadLost { context } => drop(lane.take_doubt(context)),
        }
        Ok(())
    }

    /// Tells shards of committed entries that they were not told of, as fast as they take them, and
    /// that they lead when they were told all; whether there was anything.
    pub(super) fn feed(&mut self) -> Result<bool, Fatal> {
        let mut fed = false;
        for partition in 0..self.lanes.len() {
            fed |= self.feed_beside(partition as PartitionIndex)?;
            for _ in 0..FED_A_TURN {
                let lane = &self.lanes[partition];
                if lane.held.is_empty() && !lane.is_behind() || lane.end.is_waiting() {
                    break;
                }
                if !self.feed_next(partition as PartitionIndex)? {
                    break;
                }
                self.lanes[partition].end.flush();
                fed = true;
            }
            let lane = &mut self.lanes[partition];
            lane.end_anew();
            if let Some(reign) = lane.crowned.filter(|_| !lane.is_behind()) {
                // Everything before was committed before, and the shard has heard of it.
                (lane.crowned, lane.reign) = (None, reign);
                lane.end.tell(Told::Lead { reign });
            }
        }
        Ok(fed)
    }

    /// Tells the table that a shard goes on with, while it is told its log anew, what is committed meanwhile;
    /// whether there was anything.
    fn feed_beside(&mut self, partition: PartitionIndex) -> Result<bool, Fatal> {
        let mut fed = false;
        for _ in 0..FED_A_TURN {
            let Some(index) = self.lanes[usize::from(partition)].next_beside() else { break };
            if index <= self.engine.begins_behind(partition) {
                break;
            }
            let (kind, Stored { place, .. }) = self.stored(partition, index);
            let body = match self.engine.in_memory(partition, index) {
                Some(body) => body,
                None => self.read(partition, index)?,
            };
            let lane = &mut self.lanes[usize::from(partition)];
            lane.beside = Some(index);
            if kind == Kind::Normal && !body.is_empty() {
                lane.end.tell(Told::Beside(Foreign::new(body, place)));
                lane.end.flush();
            }
            fed = true;
        }
        Ok(fed)
    }

    /// Tells a shard the next entry; false when a point has replaced the log meanwhile. That is on
    /// its way to the disk, and the shard begins again behind it when it is there.
    fn feed_next(&mut self, partition: PartitionIndex) -> Result<bool, Fatal> {
        let lane = &mut self.lanes[usize::from(partition)];
        if lane.tell_held() {
            return Ok(true);
        }
        let index = lane.fed + 1;
        if index <= self.engine.begins_behind(partition) {
            return Ok(false);
        }
        let (kind, Stored { place, .. }) = self.stored(partition, index);
        let body = match self.engine.in_memory(partition, index) {
            Some(body) => body,
            None => self.read(partition, index)?,
        };
        self.feed_one(partition, index, kind, place, body);
        Ok(true)
    }

    fn feed_one(
        &mut self,
        partition: PartitionIndex,
        index: u64,
        kind: Kind,
        place: Place,
        body: Bytes,
    ) {
        self.lanes[usize::from(partition)].fed = index;
        if kind == Kind::Normal && !body.is_empty() && !self.compact(partition, index, &body) {
            let foreign = Foreign::new(body, place);
            self.lanes[usize::from(partition)].end.tell(Told::Foreign(foreign));
        }
    }

    /// What is known of an entry that is committed and not compacted.
    fn stored(&self, partition: PartitionIndex, index: u64) -> (Kind, Stored) {
        let stored = self.engine.stored(partition, index);
        stored.expect("what is committed and not compacted is stored")
    }

    /// Forgets the entries that a committed record says are not needed; whether it is one.
    /// Whoever wrote that did not know of entries from there on. Where nodes may lie the shard is asked
    /// first whether it needs them.
    fn compact(&mut self, partition: PartitionIndex, its_own: u64, body: &[u8]) -> bool {
        match Record::decode(body) {
            Ok((Record::Compacted { index, .. }, _)) => {
                let upto = index.min(its_own.saturating_sub(1));
                if !E::NODES_MAY_LIE {
                    self.engine.compact(partition, upto);
                } else if let Some(compacted) = self.whole_generations(partition, upto) {
                    self.lanes[usize::from(partition)].end.tell(Told::Compacted(compacted));
                }
                true
            }
            _ => false,
        }
    }

    /// The entries up to an index that fill generations: no more can be freed. `None` when there are
    /// none, or nothing but such as the shard was not told of.
    fn whole_generations(&self, partition: PartitionIndex, upto: u64) -> Option<Compacted> {
        let at = |index: u64| {
            let (_, Stored { place, .. }) = self.engine.stored(partition, index)?;
            Some(place.generation)
        };
        let generation = at(upto.saturating_add(1))?;
        // Whoever lies may say it of each entry.
        if at(self.engine.begins_behind(partition) + 1)? >= generation {
            return None;
        }
        let upto = upto.min(self.last_before(partition, generation)?);
        Some(Compacted { upto, generation })
    }

    /// The body of an entry, from the disk.
    fn read(&mut self, partition: PartitionIndex, index: u64) -> Result<Bytes, Fatal> {
        let (_, stored) = self.stored(partition, index);
        let body = self.read_stored(partition, index, stored);
        body.map_err(|source| Fatal::new("an entry of the log cannot be read", source))
    }

    /// Reads an entry's block, and believes nothing of it before all of it was checked.
    fn read_stored(
        &mut self,
        partition: PartitionIndex,
        index: u64,
        stored: Stored,
    ) -> io::Result<Bytes> {
        let Stored { place, bytes } = stored;
        let segment = self.writer.directory().segment(place.generation);
        let segment = segment.ok_or(io::ErrorKind::NotFound)?;
        let mut block = vec![0; BLOCK_HEAD_BYTES + bytes as usize];
        self.disk.read(segment, place.offset.into(), &mut block)?;
        let damaged = |damage: Damage| {
            let (file, offset) = (segment_name(segment), place.offset);
            let text = format!("{file} at byte {offset}, entry {index} of partition {partition}");
            io::Error::new(io::ErrorKind::InvalidData, format!("{text}: {damage}"))
        };
        check_entry(&block, partition, index).map_err(damaged)?;
        Ok(Bytes::from(block).slice(BLOCK_HEAD_BYTES..))
    }

    /// Reads entries for a follower. What is damaged is not given to others; where nodes may lie they have it
    /// of another one, and this node ends only when it needs the entry itself.
    ///
    /// # Errors
    /// They are damaged, and this node leads those who can have them of nobody else.
    pub(super) fn fetch(&mut self, fetch: &Fetch) -> Result<(), Fatal> {
        let partition = fetch.partition;
        let mut read = |(index, entry): (u64, &Stored)| {
            self.read_stored(partition, index, *entry).map_err(|error| (index, error))
        };
        let entries = (fetch.first..).zip(&fetch.entries);
        let data: Result<Vec<Bytes>, _> = entries.map(&mut read).collect();
        if let Err((index, error)) = &data {
            let is_damaged = error.kind() == io::ErrorKind::InvalidData;
            let damaged = is_damaged.then_some((partition, *index));
            if self.unreadable.is_to_say(damaged, self.now) {
                tracing::error!(
                    %error,
                    "entries cannot be read for another node: it is told nothing of them; when the log is \
                     damaged, stop this node, look with `coreflow doctor --log` and replace its folder as \
                     docs/tuning.md says"
                );
            }
        }
        let data = match data {
            Ok(data) => Some(data),
            Err((_, error)) if error.kind() == io::ErrorKind::InvalidData && !E::NODES_MAY_LIE => {
                return Err(Fatal::new("an entry of the log cannot be read", error));
            }
            // It is asked for again.
            Err(_) => None,
        };
        self.engine.fetched(fetch.partition, fetch.id, data);
        Ok(())
    }

    /// Compacts the partitions' logs and frees segments, when the writer asks for it.
    pub(super) fn clean(&mut self) -> Result<(), Fatal> {
        let target = self.writer.move_before();
        self.tell_owed(target);
        for partition in 0..self.lanes.len() {
            let target = target.max(self.lanes[partition].wanted);
            if target > 0 {
                self.propose_compaction(partition as PartitionIndex, target);
            }
        }
        if target == 0 {
            return Ok(());
        }
        let begins_behind = |partition: usize| {
            let partition = partition as PartitionIndex;
            let first = self.engine.stored(partition, self.engine.begins_behind(partition) + 1);
            first.is_none_or(|(_, stored)| stored.place.generation >= target)
        };
        let last = self.lanes.len() - 1;
        let looked_at = if planted::has(Bug::EarlyRelease) { last } else { last + 1 };
        if (0..looked_at).all(begins_behind) {
            // Points and hard states must not lie in what is freed.
            self.engine.restate();
            self.round()?;
            self.writer.release(target);
        } else if self.want_at <= self.now {
            self.want_at = self.now + WANT_EVERY;
            (0..self.lanes.len()).for_each(|partition| self.tell_wanted(partition as _, target));
        }
        Ok(())
    }

    /// Tells who leads a partition up to where its log must be compacted before this node's old
    /// segments can be freed. Nodes write the same entries into different segments, so a leader
    /// that has compacted all that it needs may have to go on for others, who would be full for ever.
    fn tell_wanted(&mut self, partition: PartitionIndex, target: u64) {
        let leader = self.cluster.leaders.of(partition);
        let Some(leader) = leader.filter(|leader| *leader != self.cluster.leaders.me()) else {
            return;
        };
        if let Some(index) = self.last_before(partition, target) {
            self.links.send_notice(leader, Notice { partition, saying: Saying::Wanted { index } });
        }
    }

    /// A follower wants a partition to be compacted: its shard is asked to move what lives there.
    pub(super) fn want(&mut self, partition: PartitionIndex, index: u64) {
        let Some(lane) = self.lanes.get_mut(usize::from(partition)).filter(|lane| lane.reign > 0)
        else {
            return;
        };
        let stored = self.engine.stored(partition, index.min(lane.fed));
        // What is compacted already is not wanted any more.
        let Some((_, stored)) = stored else { return };
        let newest = self.writer.generation();
        let mut wanted = (stored.place.generation + 1).min(newest);
        if E::NODES_MAY_LIE {
            // Who follows has about the same in about as many segments: its oldest part is not in the
            // newer half here.
            let first = self.engine.stored(partition, self.engine.begins_behind(partition) + 1);
            let oldest = first.map_or(newest, |(_, first)| first.place.generation);
            wanted = wanted.min(oldest.midpoint(newest));
            if wanted <= lane.wanted || self.now < lane.heeds_at {
                return;
            }
            lane.heeds_at = self.now + self.pace.heed_every;
        }
        lane.wanted = lane.wanted.max(wanted);
    }

    /// The last entry of a partition, told to its shard, before which everything lies below a
    /// generation; `None` when its log begins behind that.
    fn last_before(&self, partition: PartitionIndex, target: u64) -> Option<u64> {
        let fed = self.lanes[usize::from(partition)].fed;
        let is_old = |index: &u64| {
            self.engine
                .stored(partition, *index)
                .is_some_and(|(_, stored)| stored.place.generation < target)
        };
        (self.engine.begins_behind(partition) + 1..=fed).take_while(is_old).last()
    }

    fn propose_compaction(&mut self, partition: PartitionIndex, target: u64) {
        let lane = &self.lanes[usize::from(partition)];
        if lane.reign == 0 || lane.is_compacting || lane.moved < target {
            return;
        }
        let Some(index) = self.last_before(partition, target) else {
            self.lanes[usize::from(partition)].wanted = 0;
            return;
        };
        let mut data = Vec::new();
        Record::Compacted { partition, index }.encode(&mut data);
        let ticket = self.last_ticket + 1;
        if self.engine.propose(partition, data.into(), ticket).is_ok() {
            self.last_ticket = ticket;
            let lane = &mut self.lanes[usize::from(partition)];
            lane.is_compacting = true;
            lane.under_way.push_back((ticket, Proposed::Compaction { upto: index }));
        }
    }
}
