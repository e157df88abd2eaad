//! The limit of items holds for all partitions together.

use super::{Folder, delete, item, put, settings};
use crate::{
    memory::store::{Partition, Store, StoreSettings, partition_of},
    wire::api::Error,
};

const ITEMS_MAX: usize = 8;

fn part<'a>(store: &'a mut Store, key: &str) -> &'a mut Partition {
    let partition = partition_of("space", key, store.partitions.len() as u16);
    &mut store.partitions[usize::from(partition)]
}

fn count(store: &Store) -> usize {
    store.partitions.iter().map(Partition::len).sum()
}

fn refusal(store: &mut Store, key: &str) -> String {
    match part(store, key).put(&item(key, 1.0), 7) {
        Err(error @ Error::Full(_)) => {
            assert_eq!(error.retry_after_ms(), None, "waiting does not help");
            error.to_string()
        }
        other => panic!("{key} is not refused: {other:?}"),
    }
}

#[test]
fn a_full_memory_takes_what_is_there_again_and_refuses_by_name_what_is_not() {
    let folder = Folder::new("room");
    let settings = StoreSettings { partitions: 3, items_max: ITEMS_MAX, ..settings(Some(&folder)) };
    let mut store = Store::open(&settings).unwrap();
    // Keys of one partition only: it may have all the room there is.
    let keys: Vec<String> = (0..1000)
        .map(|number| format!("key-{number}"))
        .filter(|key| partition_of("space", key, 3) == 0)
        .take(ITEMS_MAX)
        .collect();
    for key in &keys {
        assert_eq!(put(part(&mut store, key), &item(key, 1.0)), Ok(false));
    }
    let others: Vec<String> = (0..20).map(|number| format!("other-{number}")).collect();
    for other in &others {
        let text = refusal(&mut store, other);
        assert!(text.contains(&format!("space/{other}")), "{text}");
        assert!(text.contains("It has 8 items, and memory.max_vectors is 8"), "{text}");
    }
    for key in &keys {
        assert_eq!(put(part(&mut store, key), &item(key, 2.0)), Ok(true), "{key} is there");
    }
    assert_eq!(count(&store), ITEMS_MAX);
    // A place that is free is free for every partition.
    assert_eq!(delete(part(&mut store, &keys[0]), &keys[0]), Ok(true));
    let far = others.iter().find(|key| partition_of("space", key, 3) == 2).expect("one of twenty");
    assert_eq!(put(part(&mut store, far), &item(far, 1.0)), Ok(false));
    refusal(&mut store, &keys[0]);
    store.partitions.iter_mut().for_each(|partition| partition.close().unwrap());
    drop(store);
    // What a start reads takes its room.
    let mut store = Store::open(&settings).unwrap();
    assert_eq!(count(&store), ITEMS_MAX);
    refusal(&mut store, &keys[0]);
    assert_eq!(put(part(&mut store, far), &item(far, 3.0)), Ok(true));
    store.partitions.iter_mut().for_each(|partition| partition.close().unwrap());
    drop(store);
    // A limit that was lowered is told beside what is there.
    let mut store = Store::open(&StoreSettings { items_max: 3, ..settings }).unwrap();
    let text = refusal(&mut store, &keys[0]);
    assert!(text.contains("It has 8 items, and memory.max_vectors is 3"), "{text}");
}

#[test]
fn a_limit_far_below_what_is_there_loses_nothing() {
    const ITEMS: usize = 20_000;
    let folder = Folder::new("room-lowered");
    let settings = StoreSettings { partitions: 1, items_max: ITEMS, ..settings(Some(&folder)) };
    let keys: Vec<String> = (0..ITEMS).map(|number| format!("key-{number}")).collect();
    let mut store = Store::open(&settings).unwrap();
    for keys in keys.chunks(500) {
        let partition = &mut store.partitions[0];
        for key in keys {
            while let Err(error) = partition.put(&item(key, 1.0), 7) {
                assert!(matches!(error, Error::Backpressure(_)), "{error}");
                partition.settle().unwrap();
            }
        }
        partition.settle().unwrap();
        let outcomes = std::iter::from_fn(|| partition.take_outcome());
        assert!(outcomes.map(|(_, outcome)| outcome).eq(keys.iter().map(|_| Ok(false))));
    }
    // Once with what a checkpoint says, and once with what all records say.
    for keeps_checkpoint in [true, false] {
        store.partitions.iter_mut().for_each(|partition| partition.close().unwrap());
        drop(store);
        if !keeps_checkpoint {
            std::fs::remove_file(folder.path().join("0000.ckpt")).unwrap();
        }
        store = Store::open(&StoreSettings { items_max: 8, ..settings.clone() }).unwrap();
        assert_eq!(store.partitions[0].len(), ITEMS);
        assert_eq!(store.partitions[0].damages().lost().items, 0);
        let text = refusal(&mut store, "another");
        assert!(text.contains("It has 20000 items, and memory.max_vectors is 8"), "{text}");
    }
}

#[test]
fn what_is_on_its_way_takes_room_once() {
    let settings = StoreSettings { partitions: 1, items_max: 2, ..settings(None) };
    let mut store = Store::open(&settings).unwrap();
    for value in 0..3 {
        // The same name again and again, before any of them is applied.
        while let Err(error) = part(&mut store, "a").put(&item("a", value as f32), value) {
            assert!(matches!(error, Error::Backpressure(_)), "{error}");
            store.partitions[0].settle().unwrap();
        }
    }
    store.partitions[0].settle().unwrap();
    let outcomes: Vec<_> = std::iter::from_fn(|| store.partitions[0].take_outcome()).collect();
    assert_eq!(outcomes, [(0, Ok(false)), (1, Ok(true)), (2, Ok(true))]);
    assert_eq!(put(part(&mut store, "b"), &item("b", 1.0)), Ok(false));
    refusal(&mut store, "c");
    assert_eq!(count(&store), 2);
}
