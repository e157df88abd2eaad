//! A start after a kill: what no checkpoint has is found before it is linked.

use super::*;

const BEFORE: usize = 60;
const BEHIND: usize = 300;

fn at(place: usize) -> MemoryItem {
    item(&format!("key-{place}"), place as f32)
}

/// Every item that is there is the nearest to itself, and none that is gone is found.
fn check(partition: &mut Partition, places: &[usize]) {
    for &place in places {
        let query = MemoryQuery { vector: at(place).vector, k: 1, ..MemoryQuery::default() };
        let hits = search(partition, query).unwrap();
        assert_eq!(hits[0].key, format!("key-{place}"));
    }
    let query = MemoryQuery { vector: at(0).vector, k: 1000, ..MemoryQuery::default() };
    assert_eq!(search(partition, query).unwrap().len(), places.len());
}

/// A step of what can wait; false when there is nothing of it.
fn tidy(partition: &mut Partition) -> bool {
    run(partition, |partition| match partition.tidy_some() {
        Step::Done(worked) => Step::Done(Some(worked)),
        Step::Wait(pieces) => Step::Wait(pieces),
    })
}

#[test]
fn what_no_checkpoint_has_is_found_before_it_is_linked() {
    let folder = Folder::new("late");
    let settings = StoreSettings { segment_bytes: 64 << 10, ..settings(Some(&folder)) };
    let (mut partition, store) = open(&settings);
    (0..BEFORE).for_each(|place| assert_eq!(put(&mut partition, &at(place)), Ok(false)));
    partition.close().unwrap();
    drop((partition, store));
    let (mut partition, store) = open(&settings);
    assert_eq!(partition.index().late(), 0, "all stands in the checkpoint");
    (BEFORE..BEHIND).for_each(|place| assert_eq!(put(&mut partition, &at(place)), Ok(false)));
    (0..BEHIND).step_by(7).for_each(|place| {
        delete(&mut partition, &format!("key-{place}")).unwrap();
    });
    let places: Vec<usize> = (0..BEHIND).filter(|place| place % 7 > 0).collect();
    // It is killed: nothing is sealed, and there is no other checkpoint.
    drop((partition, store));

    let (mut partition, store) = open(&settings);
    assert!(partition.index().late() > BEHIND / 2, "{} are late", partition.index().late());
    check(&mut partition, &places);
    // It stops before they are linked: they come the same way again.
    assert!(tidy(&mut partition));
    let late = partition.index().late() as u64;
    partition.save().unwrap();
    assert_eq!(partition.changes(), late, "what is not linked is not saved");
    partition.close().unwrap();
    drop((partition, store));
    let (mut partition, store) = open(&settings);
    assert!(partition.index().late() > BEHIND / 2, "{} are late", partition.index().late());
    check(&mut partition, &places);
    // While they are linked, changes go on.
    assert_eq!(put(&mut partition, &at(0)), Ok(false));
    assert_eq!(delete(&mut partition, "key-299"), Ok(true));
    let places: Vec<usize> = [0].into_iter().chain(places).filter(|place| *place != 299).collect();
    while tidy(&mut partition) {
        let query = MemoryQuery { vector: at(150).vector, k: 1, ..MemoryQuery::default() };
        assert_eq!(search(&mut partition, query).unwrap()[0].key, "key-150");
    }
    check(&mut partition, &places);
    partition.close().unwrap();
    drop((partition, store));
    let (mut partition, _store) = open(&settings);
    assert_eq!(partition.index().late(), 0);
    check(&mut partition, &places);
    // That ways lead to all of it is found out once.
    assert!(partition.has_to_tidy());
    let changes = partition.changes();
    while tidy(&mut partition) {}
    assert!(!partition.has_to_tidy());
    let mended = partition.index().stats().mended as u64;
    assert_eq!(
        partition.changes() - changes,
        mended,
        "the next checkpoint has what was linked again"
    );
}

/// What is left of many is found, at once where it is few, and when ways to it were looked for.
#[test]
fn what_mass_removal_leaves_is_found() {
    const ITEMS: usize = 1000;
    let (mut partition, _store) =
        open(&StoreSettings { segment_bytes: 64 << 10, ..settings(None) });
    let mut random = fastrand::Rng::with_seed(29);
    let vector = |_| (0..DIMENSION).map(|_| random.f32() - 0.5).collect();
    let vectors: Vec<Vec<f32>> = (0..ITEMS).map(vector).collect();
    for (at, vector) in vectors.iter().enumerate() {
        let item = MemoryItem { vector: vector.clone(), ..item(&format!("key-{at}"), 0.0) };
        assert_eq!(put(&mut partition, &item), Ok(false));
    }
    let mut left: Vec<usize> = (0..ITEMS).collect();
    random.shuffle(&mut left);
    for rest in [150, 60, 5, 1] {
        for at in left.drain(rest..) {
            assert_eq!(delete(&mut partition, &format!("key-{at}")), Ok(true));
        }
        if rest > 60 {
            assert!(partition.index().has_to_reach() && partition.has_to_tidy());
            while tidy(&mut partition) {}
            assert!(!partition.index().has_to_reach());
        }
        for &at in &left {
            let query = MemoryQuery { vector: vectors[at].clone(), k: 1, ..MemoryQuery::default() };
            let hits = search(&mut partition, query).unwrap();
            assert_eq!(hits[0].key, format!("key-{at}"), "of {rest}");
        }
    }
}

/// Damage of many items stands in a checkpoint that is written in steps, and is known after a start.
#[test]
fn many_lost_items_are_written_in_steps_and_known_again() {
    let folder = Folder::new("many-lost");
    let settings = StoreSettings { segment_bytes: 64 << 10, ..settings(Some(&folder)) };
    let (mut partition, store) = open(&settings);
    const ITEMS: usize = 1200;
    (0..ITEMS).for_each(|place| assert_eq!(put(&mut partition, &at(place)), Ok(false)));
    partition.close().unwrap();
    drop((partition, store));
    for file in folder.files() {
        let mut bytes = fs::read(&file).unwrap();
        let places: Vec<usize> = bytes
            .windows(8)
            .enumerate()
            .filter(|(_, it)| *it == b"text of ")
            .map(|it| it.0)
            .collect();
        places.into_iter().for_each(|place| bytes[place] ^= 1);
        fs::write(&file, bytes).unwrap();
    }
    let (mut partition, store) = open(&settings);
    run(&mut partition, |partition| match partition.look() {
        Step::Done(worked) => Step::Done((!worked).then_some(())),
        Step::Wait(pieces) => Step::Wait(pieces),
    });
    assert_eq!((partition.len(), partition.damages().lost().items), (0, ITEMS as u64));
    let mut checkpoint = super::super::checkpoint::Checkpoint::begin(&mut partition);
    let mut steps = 0;
    while partition.is_frozen {
        assert!(checkpoint.step(&mut partition).is_none());
        steps += 1;
    }
    assert!(steps > 6, "{steps} steps for {ITEMS} damaged records");
    partition.abandon_checkpoint();
    partition.save().unwrap();
    drop((partition, store));
    let (partition, _store) = open(&settings);
    assert_eq!((partition.len(), partition.damages().lost().items), (0, ITEMS as u64));
}

/// Items that lie far from all before them and near each other get codes that tell them apart, from their records; so do those of a
/// checkpoint that was written before codes were around more than one centre.
#[test]
fn far_items_are_coded_anew_from_their_records() {
    const DIMENSIONS: usize = 32;
    const ITEMS: usize = 240;
    let folder = Folder::new("far");
    let settings =
        StoreSettings { dimension: DIMENSIONS, segment_bytes: 64 << 10, ..settings(Some(&folder)) };
    let (mut partition, store) = open(&settings);
    let mut random = fastrand::Rng::with_seed(3);
    let items: Vec<MemoryItem> = (0..ITEMS)
        .map(|at| {
            let place = [0.0, 1000.0][at % 2];
            let vector = (0..DIMENSIONS).map(|of| place * (of % 3) as f32 + random.f32()).collect();
            MemoryItem { vector, ..item(&format!("key-{at}"), 0.0) }
        })
        .collect();
    let check = |partition: &mut Partition| {
        // What is searched for is a little beside an item: the code of the item itself would be found in any case.
        let nearest = items.iter().filter(|item| {
            let beside = |(of, value): (usize, &f32)| value + 0.1 * (of % 2) as f32;
            let query: Vec<f32> = item.vector.iter().enumerate().map(beside).collect();
            let hits = partition.index.search(&query, 1, 50, |_| true).unwrap();
            let place = partition.place_of(hits[0].row).unwrap();
            partition.log.read(place).unwrap().key() == item.key
        });
        nearest.count()
    };
    // A program that coded nothing anew.
    items.iter().for_each(|item| assert_eq!(put(&mut partition, item), Ok(false)));
    assert!(partition.has_to_tidy() && check(&mut partition) < ITEMS);
    partition.close().unwrap();
    drop((partition, store));

    let (mut partition, store) = open(&settings);
    assert!(partition.has_to_tidy(), "some are found to be coarse");
    while tidy(&mut partition) {}
    assert_eq!(check(&mut partition), ITEMS);
    let changes = partition.changes();
    assert!(changes > 0, "the next checkpoint has them");
    partition.close().unwrap();
    drop((partition, store));

    let (mut partition, _store) = open(&settings);
    while tidy(&mut partition) {}
    assert!(partition.changes() <= 3, "hardly one was missed");
    assert_eq!(check(&mut partition), ITEMS);
}
