//! A follower's log thread, with this thread in the place of its leader, its shard and its helper.

use super::*;
use crate::{
    consensus::{
        News,
        book::Book,
        cluster::{Cluster, Leaders},
        keeper::{After, Keeper, Pace, Parts},
        lane::{LaneLog, LaneSettings, Signals, lane},
        links::{Heard, LinkStatus, Links},
        notice::Notice,
        peers::NodeId,
        raft::{self, Limits, Restore, Settings},
        survey::SegmentSurvey,
        writer::Job,
    },
    runtime::doorbell::Doorbell,
};
use ::raft::eraftpb::{Entry, Message, MessageType};
use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

const LEADER: NodeId = 1;
const FOLLOWER: NodeId = 2;
const TERM: u64 = 2;

/// What comes from other nodes.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<VecDeque<Message>>>);

impl Links for Wire {
    fn receive(&mut self, _: Instant, hear: &mut dyn FnMut(Heard)) {
        self.0.borrow_mut().drain(..).for_each(|message| hear(Heard::Message(0, LEADER, message)));
    }

    fn send(&mut self, _: u16, _: &raft::Message) {}
    fn send_book(&mut self, _: NodeId, _: &Book) {}
    fn send_notice(&mut self, _: NodeId, _: Notice) {}
    fn flush(&mut self, _: Instant) {}
    fn set_peer(&mut self, _: Instant, _: NodeId, _: SocketAddr) {}
    fn remove_peer(&mut self, _: NodeId) {}

    fn status(&self, _: NodeId) -> LinkStatus {
        LinkStatus::default()
    }

    fn wait(&mut self, _: Instant, _: Option<Duration>, _: &Doorbell) {}

    fn pause(&mut self, _: Duration, _: &Doorbell) -> Instant {
        panic!("the helper makes segments in good time")
    }
}

struct Follower {
    keeper: Keeper<SimulatedDisk, Wire>,
    stop: Arc<AtomicBool>,
    disk: SimulatedDisk,
    wire: Wire,
    shard: LaneLog,
    jobs: Receiver<Job>,
    results: Sender<io::Result<()>>,
    now: Instant,
    /// The last entry that the leader sent, and its term.
    sent: (u64, u64),
    /// What the shard was told: the numbers of ended tasks, 0 where it began again.
    heard: Vec<u128>,
}

impl Follower {
    fn new() -> Self {
        let disk = SimulatedDisk::default();
        let (survey, _) = read(&disk);
        let mut writer = Writer::resume(disk.clone(), GEOMETRY, &survey, 7).expect("it works");
        while let Some(job) = writer.next_job() {
            writer.job_done(&job.run(&mut disk.clone(), SEGMENT_BYTES));
        }
        let limits = Limits { cache_bytes: 0, proposals: 9, proposal_bytes: 1 << 20 };
        let settings = Settings { node: FOLLOWER, seed: 1, tick_ms: 1000, limits, balance: false };
        let groups = vec![Restore::with_voters(0, &[1, 2, 3])];
        let bell = Doorbell::new().expect("there are descriptors");
        let signals =
            Arc::new(Signals { has_room: AtomicBool::new(true), move_before: AtomicU64::new(0) });
        let lane_settings = LaneSettings {
            block_bytes: 1000,
            record_bytes_max: 5000,
            bell: bell.clone(),
            signals: signals.clone(),
        };
        let (shard, end) = lane(0, &lane_settings, None, bell.clone());
        let (cluster, asked) = Cluster::new(Leaders::new(FOLLOWER, 1), bell.clone());
        let (wire, now) = (Wire::default(), Instant::now());
        let stop = Arc::new(AtomicBool::new(false));
        let ((jobs_end, jobs), (results, results_end)) = (channel(), channel());
        let keeper = Keeper::new(Parts {
            cluster,
            asked,
            links: wire.clone(),
            book: Book::default(),
            book_file: None,
            writer,
            disk: disk.clone(),
            engine: raft::Driver::new(settings, groups).expect("it is whole"),
            lanes: vec![end],
            told: vec![0],
            bell,
            stop: stop.clone(),
            signals,
            jobs: jobs_end,
            results: results_end,
            pace: Pace::default(),
            now,
        });
        let (sent, heard) = ((1, 1), Vec::new());
        Self { keeper, stop, disk, wire, shard, jobs, results, now, sent, heard }
    }

    /// A turn of the log thread and one of the shard.
    fn turn(&mut self) -> Result<After, Fatal> {
        self.now += Duration::from_millis(1);
        let after = self.keeper.turn(self.now)?;
        while let Ok(job) = self.jobs.try_recv() {
            let result = job.run(&mut self.disk, SEGMENT_BYTES);
            self.results.send(result).expect("the keeper is there");
        }
        while let Some(news) = self.shard.next_news() {
            match news {
                News::Foreign(foreign) => foreign
                    .records(|_, record| self.heard.push(record.id().random))
                    .expect("they can be read"),
                News::Follow { .. } => self.heard.push(0),
                news => panic!("{news:?}"),
            }
        }
        Ok(after)
    }

    fn send(&mut self, kind: MessageType, fill: impl FnOnce(&mut Message)) {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.from, message.to, message.term) = (LEADER, FOLLOWER, TERM);
        fill(&mut message);
        self.wire.0.borrow_mut().push_back(message);
    }

    /// The leader sends so many entries, each of which ends the task of its index, and that all are
    /// committed.
    fn append(&mut self, count: u64) {
        let (index, log_term) = self.sent;
        let entry = |index: u64| {
            let mut entry = Entry { index, term: TERM, ..Entry::default() };
            entry.data = encoded(ended(index.into(), &[index as u8; 200])).into();
            entry
        };
        let entries: Vec<_> = (index + 1..=index + count).map(entry).collect();
        self.sent = (index + count, TERM);
        self.send(MessageType::MsgAppend, |message| {
            (message.index, message.log_term, message.commit) = (index, log_term, index + count);
            message.entries = entries.into();
        });
    }

    /// The leader sends a point.
    fn install(&mut self, index: u64) {
        self.sent = (index, TERM);
        self.send(MessageType::MsgSnapshot, |message| {
            let metadata = message.mut_snapshot().mut_metadata();
            (metadata.index, metadata.term) = (index, TERM);
            metadata.mut_conf_state().voters = vec![1, 2, 3];
        });
    }
}

#[test]
fn a_point_that_replaces_a_log_of_which_the_shard_has_not_heard_all() {
    // However far the shard has come.
    for turns in 1..8 {
        let mut follower = Follower::new();
        follower.append(100);
        for _ in 0..turns {
            follower.turn().expect("the disk works");
        }
        let before = follower.heard.len();
        follower.install(500);
        follower.turn().expect("the disk works");
        follower.append(50);
        for _ in 0..10 {
            follower.turn().expect("the disk works");
        }
        let begun = follower.heard.iter().position(|number| *number == 0).expect("it began again");
        assert!(begun >= before);
        let first: Vec<u128> = (2..2 + begun as u128).collect();
        assert_eq!(follower.heard[..begun], first, "after {turns} turns");
        assert_eq!(follower.heard[begun + 1..], (501..=550).collect::<Vec<u128>>());
    }
}

#[test]
fn a_point_that_comes_with_entries_that_are_just_committed() {
    let mut follower = Follower::new();
    follower.append(40);
    follower.install(500);
    follower.append(5);
    for _ in 0..10 {
        follower.turn().expect("the disk works");
    }
    let begun = follower.heard.iter().position(|number| *number == 0).expect("it began again");
    assert_eq!(follower.heard[begun + 1..], (501..=505).collect::<Vec<u128>>());
}

#[test]
fn an_entry_that_rots_on_the_disk_is_named_and_told_to_nobody() {
    let mut follower = Follower::new();
    follower.append(100);
    while follower.heard.is_empty() {
        follower.turn().expect("the disk works");
    }
    assert!(follower.heard.len() < 90, "the rest is read from the disk later");
    // Of a body in the middle of an entry that the shard has not heard.
    let content = follower.disk.content(1);
    let body = content.windows(200).position(|bytes| bytes == [100; 200]).expect("it is there");
    follower.disk.flip(1, body + 77, 3);
    let fatal = (0..20).find_map(|_| follower.turn().err()).expect("the node ends");
    let text = fatal.to_string();
    assert!(text.contains("segment-000001.log at byte"), "{text}");
    assert!(text.contains("entry 100 of partition 0"), "{text}");
    assert!(!follower.heard.contains(&100));
}

#[test]
fn a_log_that_is_to_end_does_so_soon_whatever_others_go_on_to_send() {
    let mut follower = Follower::new();
    follower.append(10);
    follower.turn().expect("the disk works");
    follower.stop.store(true, Ordering::Release);
    let begun = follower.now;
    while follower.now - begun < Duration::from_secs(6) {
        follower.append(1);
        if follower.turn().expect("the disk works") == After::End {
            assert!(follower.heard.len() > 1000, "it went on until then");
            let found = |disk: &SimulatedDisk| {
                survey(&mut disk.clone(), &mut |_, _| ()).expect("it can be read")
            };
            assert!(found(&follower.disk).findings.is_empty());
            // The last group of a log that is sealed cannot be one that was cut off.
            let last = [follower.sent.0 as u8; 200];
            let place = |found: &SegmentSurvey| {
                let content = follower.disk.content(found.number);
                let body = content.windows(200).rposition(|bytes| bytes == last)?;
                Some((found.number, body))
            };
            let places =
                found(&follower.disk).segments.iter().filter_map(place).collect::<Vec<_>>();
            let (number, body) = *places.iter().max().expect("it is there");
            follower.disk.flip(number, body, 3);
            assert!(!found(&follower.disk).findings.is_empty());
            return;
        }
    }
    panic!("it goes on for ever");
}
