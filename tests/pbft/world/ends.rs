//! Whether a run has come to its end, and what is open where it has not.

use super::World;

impl World {
    /// Whether all correct replicas have told something that was asked for after all was mended, and a
    /// primary has done its duty since.
    pub(super) fn are_all_there(&self) -> bool {
        (0..).zip(&self.marks).all(|(partition, mark)| {
            self.correct().all(|node| self.oracle.told(node.id, partition) >= *mark)
        }) && self.are_duties_done()
    }

    /// Whether all that correct clients asked for is done, and what tentative answers finished is
    /// committed as well: the commits may be on their way still when the last answer comes.
    pub(super) fn has_ended(&self) -> bool {
        self.askers.iter().all(|asker| asker.under_way() == 0)
            && self.correct().all(|node| node.shards.iter().all(|shard| shard.is_idle()))
            && (0..self.group.partitions).all(|partition| {
                self.correct().all(|node| self.oracle.open_tickets(node.id, partition) == 0)
            })
            && self.oracle.unkept().is_empty()
    }

    pub(super) fn what_is_open(&self) -> String {
        let clients = self.askers.iter().map(|asker| (asker.id, asker.under_way()));
        let clients: Vec<_> = clients.filter(|(_, open)| *open > 0).collect();
        let nodes = self.correct().flat_map(|node| {
            (0..self.group.partitions).map(|partition| {
                let driver = node.driver.as_ref().expect("all run");
                let status = driver.group(partition).expect("it exists").status();
                let shard = &node.shards[usize::from(partition)];
                format!(
                    "\n    {} in {partition}: told {} of {}, requests {}, reads {}, {status:?}",
                    node.id,
                    self.oracle.told(node.id, partition),
                    self.oracle.head(partition),
                    shard.requests.len(),
                    shard.reads.len(),
                )
            })
        });
        let (unkept, duties) = (self.oracle.unkept(), &self.duties);
        format!(
            "clients {clients:?}, {duties:?}, accepted and not there {unkept:?}{}",
            nodes.collect::<String>()
        )
    }
}
