//! What is lost by damage, how long it is known, and how a folder gets whole again.

use super::{
    damage::{filled, flip},
    *,
};
use crate::memory::{
    cases::cases,
    store::{
        damage::Lost,
        repair::repair,
        survey::{Found, survey},
    },
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What `coreflow doctor --memory` tells.
fn found(folder: &Folder) -> Vec<Found> {
    let survey = survey(folder.path()).expect("the folder is read");
    survey.partitions.into_iter().flat_map(|partition| partition.found).collect()
}

/// Damages the text of an item, in the record that has it.
fn spoil(folder: &Folder, text: &str) -> PathBuf {
    for file in folder.files() {
        let bytes = fs::read(&file).unwrap();
        let at = bytes.windows(text.len()).position(|window| window == text.as_bytes());
        if let Some(at) = at {
            flip(&file, at as u64 * 8);
            return file;
        }
    }
    panic!("{text:?} is in no file");
}

fn shorten(file: &Path, bytes: u64) {
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(bytes).unwrap();
}

/// Looks at all records, as a core does after a start.
pub fn look(partition: &mut Partition) {
    run(partition, |partition| match partition.look() {
        Step::Wait(pieces) => Step::Wait(pieces),
        Step::Done(worked) => Step::Done((!worked).then_some(())),
    });
}

/// The items that are there, which must be as they were at some time; those that are not must be told.
fn check(partition: &mut Partition, items: &BTreeMap<String, MemoryItem>) -> usize {
    let mut there = 0;
    for (place, wanted) in items.values().enumerate() {
        let is_told = partition.damages().count > 0;
        match get(partition, &wanted.key) {
            Ok(found) if found == *wanted => there += 1,
            Ok(found) => {
                let value = found.vector[0];
                let older = item(&wanted.key, value);
                assert!(is_told && found == older && value < 40.0, "item {place}: {found:?}");
            }
            Err(error) => assert!(is_told, "{error}"),
        }
    }
    there
}

#[test]
fn a_file_that_was_shortened_is_named_and_what_is_intact_is_there() {
    for (which, bytes) in [(0, 1000), (0, 0), (1, 2000), (1, 10), (2, 500)] {
        for has_checkpoint in [true, false] {
            let folder = Folder::new("short");
            let items = filled(&folder);
            if !has_checkpoint {
                fs::remove_file(folder.path().join("0000.ckpt")).unwrap();
            }
            let file = folder.files()[which].clone();
            shorten(&file, bytes);
            let short = format!("{}: it has {bytes} bytes and was made with 4096", file.display());
            let told: Vec<_> = found(&folder).iter().map(|it| it.damage.to_string()).collect();
            assert!(told.contains(&short), "{which} {bytes}: {told:?}");
            let (mut partition, store) = open(&settings(Some(&folder)));
            look(&mut partition);
            let told: Vec<_> = partition.damages().told.iter().map(ToString::to_string).collect();
            assert!(told.contains(&short), "{which} {bytes}: {told:?}");
            let there = check(&mut partition, &items);
            // The newest of half the items lie in the file that is cut at the most.
            assert!(there >= 5, "{which} {bytes} {has_checkpoint}: {there}");
            // It goes on, and a later start still knows.
            put(&mut partition, &item("later", 77.0)).unwrap();
            partition.close().unwrap();
            drop((partition, store));
            let (mut partition, _store) = open(&settings(Some(&folder)));
            assert!(partition.damages().count > 0);
            assert_eq!(get(&mut partition, "later"), Ok(item("later", 77.0)));
            assert_eq!(check(&mut partition, &items), there);
        }
    }
}

#[test]
fn a_live_record_that_a_checkpoint_covers_is_found_damaged_after_the_start() {
    let folder = Folder::new("covered");
    filled(&folder);
    spoil(&folder, "text of key-4 is 24");
    let (mut partition, store) = open(&settings(Some(&folder)));
    assert!(partition.is_looking(), "records are looked at because they were not read");
    look(&mut partition);
    assert_eq!(partition.damages().count, 1);
    assert_eq!(partition.len(), 19);
    let error = get(&mut partition, "key-4").unwrap_err();
    assert!(error.to_string().contains("space/key-4"), "{error}");
    partition.close().unwrap();
    drop((partition, store));
    // A later start knows it from the checkpoint, before any record is looked at.
    let (mut partition, store) = open(&settings(Some(&folder)));
    assert_eq!((partition.damages().count, partition.damages().lost().items), (1, 1));
    assert_eq!(get(&mut partition, "key-4").unwrap_err().code(), "unavailable");
    // Until it is stored again.
    assert_eq!(put(&mut partition, &item("key-4", 5.0)), Ok(true));
    assert!(partition.damages().lost().is_nothing());
    partition.close().unwrap();
    drop((partition, store));
    assert_eq!(open(&settings(Some(&folder))).0.damages().count, 0);
}

/// A store that was closed and, unless all is to be in its checkpoint, changed again before it was killed.
fn changed(folder: &Folder, is_closed: bool) -> BTreeMap<String, MemoryItem> {
    let mut items = filled(folder);
    if is_closed {
        return items;
    }
    let (mut partition, _store) = open(&settings(Some(folder)));
    for number in 15..25 {
        let item = item(&format!("key-{number}"), 60.0 + number as f32);
        put(&mut partition, &item).unwrap();
        items.insert(item.key.clone(), item);
    }
    delete(&mut partition, "key-3").unwrap();
    items.remove("key-3");
    let last = item("last", 99.0);
    put(&mut partition, &last).unwrap();
    items.insert(last.key.clone(), last);
    items
}

/// What a start knows to be lost once it has looked at all records.
pub fn lost_at_a_start(folder: &Folder) -> Lost {
    let (mut partition, _store) = open(&settings(Some(folder)));
    look(&mut partition);
    partition.damages().lost()
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn the_doctor_a_start_and_a_repair_count_what_is_lost_alike(
        is_closed in any::<bool>(),
        has_checkpoint in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..6),
        cut in prop::option::of((any::<prop::sample::Index>(), 0..5000_u64)),
    ) {
        let folder = Folder::new("alike");
        let items = changed(&folder, is_closed);
        if !has_checkpoint {
            fs::remove_file(folder.path().join("0000.ckpt")).unwrap();
        }
        let files = folder.files();
        for (file, bit) in flips {
            let file = file.get(&files);
            flip(file, bit.index(fs::metadata(file).unwrap().len() as usize * 8) as u64);
        }
        if let Some((file, bytes)) = cut {
            let file: &PathBuf = file.get(&files);
            shorten(file, bytes);
        }
        let by_doctor = survey(folder.path()).unwrap().lost();
        let other = Folder::new("alike-repaired");
        fs::create_dir_all(other.path()).unwrap();
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, other.path().join(path.file_name().unwrap())).unwrap();
        }
        let by_start = lost_at_a_start(&folder);
        prop_assert_eq!(by_doctor, by_start);
        // The start that was ended without a stop has noted what it found; so has the one after it.
        prop_assert_eq!(survey(folder.path()).unwrap().lost(), by_start);
        let repaired = repair(other.path(), 32).unwrap();
        prop_assert_eq!(repaired.lost(), by_doctor);
        let (mut partition, _store) = open(&settings(Some(&other)));
        let there = check_known(&mut partition, &items);
        let missing = (items.len() - there) as u64;
        // The record that deleted an item may be gone, too: then the item that it deleted counts as lost.
        let deleted = u64::from(!is_closed && by_doctor.unnamed > 0);
        prop_assert!(missing + deleted >= by_doctor.items, "{missing} are missing, {by_doctor}");
        let most = by_doctor.items + by_doctor.unnamed;
        prop_assert!(missing <= most || by_doctor.is_least, "{missing} are missing, {by_doctor}");
    }
}

/// The items that are there as they were last.
fn check_known(partition: &mut Partition, items: &BTreeMap<String, MemoryItem>) -> usize {
    items.values().filter(|item| get(partition, &item.key).as_ref() == Ok(*item)).count()
}

#[test]
fn a_record_whose_head_is_damaged_is_told_once_with_its_name_and_hides_what_was_before() {
    for has_checkpoint in [true, false] {
        let folder = Folder::new("head");
        let items = filled(&folder);
        if !has_checkpoint {
            fs::remove_file(folder.path().join("0000.ckpt")).unwrap();
        }
        // The checksum of the record that has the newest of key-4.
        for file in folder.files() {
            let bytes = fs::read(&file).unwrap();
            let text = b"text of key-4 is 24";
            let Some(at) = bytes.windows(text.len()).position(|it| it == text) else { continue };
            let names = "space".len() + "key-4".len();
            flip(&file, (at - names - DIMENSION * 4 - 64) as u64 * 8);
        }
        let before = found(&folder);
        assert_eq!(before.len(), 1, "{before:?}");
        let told = before[0].damage.to_string();
        assert!(told.ends_with("a record is damaged; it is that of space/key-4"), "{told}");
        assert_eq!(survey(folder.path()).unwrap().lost().items, 1);
        for _ in 0..2 {
            let (mut partition, store) = open(&settings(Some(&folder)));
            look(&mut partition);
            assert_eq!((partition.damages().count, partition.damages().lost().items), (1, 1));
            assert_eq!(partition.damages().lost_told().next().unwrap().to_string(), told);
            let error = get(&mut partition, "key-4").unwrap_err();
            assert!(error.to_string().contains("space/key-4"), "{error}");
            assert_eq!(check(&mut partition, &items), 19);
            partition.close().unwrap();
            drop((partition, store));
            assert_eq!(found(&folder), before, "after a start it is told once, too");
        }
        let repaired = repair(folder.path(), 32).unwrap();
        assert_eq!((repaired.found, repaired.items), (before, 19));
    }
}

#[test]
fn a_file_that_grew_loses_nothing() {
    for has_checkpoint in [true, false] {
        let folder = Folder::new("grown");
        let items = filled(&folder);
        if !has_checkpoint {
            fs::remove_file(folder.path().join("0000.ckpt")).unwrap();
        }
        for file in folder.files() {
            let bytes = fs::metadata(&file).unwrap().len();
            shorten(&file, bytes + 100);
        }
        let before = found(&folder);
        assert!(before.iter().all(|it| it.is_harmless) && !before.is_empty(), "{before:?}");
        let (mut partition, _store) = open(&settings(Some(&folder)));
        look(&mut partition);
        let damages = partition.damages();
        assert!(damages.count > 0, "it is told");
        assert!(damages.lost().is_nothing() && damages.lost_told().next().is_none());
        assert_eq!(check(&mut partition, &items), 20);
    }
}

#[test]
fn a_record_that_is_cut_in_its_padding_is_whole() {
    for key in ["key-19", "key-7"] {
        let folder = Folder::new("padding");
        let items = filled(&folder);
        let text = items[key].text.clone().unwrap();
        for file in folder.files() {
            let bytes = fs::read(&file).unwrap();
            let found = bytes.windows(text.len()).position(|it| it == text.as_bytes());
            let Some(at) = found else { continue };
            let end = at + text.len() + items[key].metadata.len();
            assert!(!end.is_multiple_of(64), "there is padding");
            shorten(&file, end as u64);
        }
        let by_doctor = survey(folder.path()).unwrap().lost();
        assert!(by_doctor.is_least, "nobody knows what was behind the end");
        assert_eq!(lost_at_a_start(&folder), by_doctor);
        let (mut partition, _store) = open(&settings(Some(&folder)));
        assert_eq!(get(&mut partition, key).as_ref(), Ok(&items[key]));
    }
}

#[test]
fn a_damaged_record_of_a_delete_loses_no_item() {
    let folder = Folder::new("delete");
    let (mut partition, store) = open(&settings(Some(&folder)));
    for key in ["one", "gone-1", "two"] {
        put(&mut partition, &item(key, 1.0)).unwrap();
    }
    delete(&mut partition, "gone-1").unwrap();
    put(&mut partition, &item("three", 3.0)).unwrap();
    partition.close().unwrap();
    drop((partition, store));
    fs::remove_file(folder.path().join("0000.ckpt")).unwrap();
    let file = folder.files()[0].clone();
    let bytes = fs::read(&file).unwrap();
    let name = b"spacegone-1\0";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    flip(&file, at as u64 * 8 + 8 * 12);
    assert_eq!(found(&folder).iter().map(|it| it.is_harmless).collect::<Vec<_>>(), [true]);
    let (mut partition, _store) = open(&settings(Some(&folder)));
    assert!(partition.damages().lost().is_nothing());
    assert_eq!((partition.damages().count, partition.len()), (1, 3));
    assert_eq!(get(&mut partition, "gone-1").unwrap_err().code(), "not_found");
}

#[test]
fn damage_of_what_was_replaced_is_harmless_and_a_repair_drops_it() {
    let folder = Folder::new("replaced");
    let items = filled(&folder);
    let file = spoil(&folder, "text of key-4 is 4");
    let before = found(&folder);
    assert_eq!(before.len(), 1);
    assert!(before[0].is_harmless && before[0].damage.file == file.display().to_string());
    let repaired = repair(folder.path(), 32).unwrap();
    assert_eq!((repaired.found, repaired.items), (before, 20));
    assert_eq!(found(&folder), []);
    let (mut partition, _store) = open(&settings(Some(&folder)));
    assert_eq!((partition.damages().count, check(&mut partition, &items)), (0, 20));
}

#[test]
fn a_damaged_checkpoint_is_told_and_a_repair_makes_another() {
    let folder = Folder::new("bad-checkpoint");
    let items = filled(&folder);
    flip(&folder.path().join("0000.ckpt"), 999);
    let before = found(&folder);
    assert_eq!(before.len(), 1);
    assert!(before[0].is_harmless && before[0].damage.to_string().contains("0000.ckpt"));
    repair(folder.path(), 32).unwrap();
    assert_eq!(found(&folder), []);
    let (mut partition, _store) = open(&settings(Some(&folder)));
    assert!(partition.is_looking(), "there is a checkpoint");
    assert_eq!(check(&mut partition, &items), 20);
}

#[test]
fn a_repair_of_what_is_whole_changes_nothing() {
    let folder = Folder::new("whole");
    filled(&folder);
    let read = || {
        let files = folder.files();
        files.into_iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>()
    };
    let before = read();
    let repaired = repair(folder.path(), 32).unwrap();
    assert_eq!((repaired.found, repaired.copied), (Vec::new(), 0));
    assert_eq!(read(), before);
}

#[test]
fn a_file_that_is_gone_is_done_without_after_a_repair() {
    for which in 0..3 {
        let folder = Folder::new("gone-repair");
        let items = filled(&folder);
        let file = folder.files()[which].clone();
        fs::remove_file(&file).unwrap();
        let repaired = repair(folder.path(), 32).unwrap();
        let told: Vec<_> = repaired.found.iter().map(|it| it.damage.to_string()).collect();
        assert!(told.contains(&format!("{}: it is missing", file.display())), "{told:?}");
        assert_eq!(found(&folder), [], "{which}: {told:?}");
        let (mut partition, _store) = open(&settings(Some(&folder)));
        assert_eq!(partition.len() as u64, repaired.items);
        let there = items.values().filter(|it| get(&mut partition, &it.key).as_ref() == Ok(*it));
        assert_eq!(there.count() as u64, repaired.items);
    }
}

#[test]
fn a_damaged_record_does_not_keep_segments_from_being_freed() {
    let folder = Folder::new("stuck");
    let (mut partition, _store) = open(&settings(Some(&folder)));
    put(&mut partition, &item("spoilt", 99.0)).unwrap();
    put(&mut partition, &item("kept", 98.0)).unwrap();
    // Its head cannot be read.
    flip(&folder.files()[0], 64 * 8 + 20 * 8);
    for round in 0..400 {
        put(&mut partition, &item(&format!("key-{}", round % 10), (round % 90) as f32)).unwrap();
        run(&mut partition, |partition| match partition.move_some() {
            Step::Wait(pieces) => Step::Wait(pieces),
            Step::Done(moved) => Step::Done(Some(moved)),
        });
        look(&mut partition);
    }
    partition.settle().unwrap();
    assert!(folder.files().len() <= 6, "{:?}", folder.files());
    assert_eq!(partition.damages().count, 1);
    assert_eq!(get(&mut partition, "spoilt").unwrap_err().code(), "unavailable");
    assert_eq!(get(&mut partition, "kept"), Ok(item("kept", 98.0)));
}

/// Something that happens to a file.
#[derive(Clone, Debug)]
enum Harm {
    Flip(prop::sample::Index, prop::sample::Index),
    Shorten(prop::sample::Index, prop::sample::Index),
    Remove(prop::sample::Index),
}

fn harm() -> impl Strategy<Value = Harm> {
    let index = || any::<prop::sample::Index>();
    prop_oneof![
        4 => (index(), index()).prop_map(|(file, bit)| Harm::Flip(file, bit)),
        2 => (index(), index()).prop_map(|(file, length)| Harm::Shorten(file, length)),
        1 => index().prop_map(Harm::Remove),
    ]
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn whatever_happened_to_the_files_a_repair_keeps_what_can_be_read_and_all_is_well_again(
        harms in prop::collection::vec(harm(), 1..6)
    ) {
        let folder = Folder::new("repair");
        let items = filled(&folder);
        let mut files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().path()).collect();
        files.sort();
        // All but the lock; the head and the list not both, which nobody could make again.
        files.retain(|file| !file.ends_with("lock") && !file.ends_with("head"));
        for harm in harms {
            match harm {
                Harm::Flip(file, bit) => {
                    let file = file.get(&files);
                    let bits = fs::metadata(file).map_or(0, |it| it.len()) * 8;
                    if bits > 0 {
                        flip(file, bit.index(bits as usize) as u64);
                    }
                }
                Harm::Shorten(file, length) => {
                    let file = file.get(&files);
                    let bytes = fs::metadata(file).map_or(0, |it| it.len());
                    if bytes > 0 {
                        shorten(file, length.index(bytes as usize) as u64);
                    }
                }
                Harm::Remove(file) => {
                    let _ = fs::remove_file(file.get(&files));
                }
            }
        }
        let before = found(&folder);
        let repaired = repair(folder.path(), 32).unwrap();
        prop_assert!(before.is_empty() || !repaired.found.is_empty());
        prop_assert_eq!(found(&folder), []);
        let (mut partition, _store) = open(&settings(Some(&folder)));
        look(&mut partition);
        prop_assert_eq!(partition.damages().count, 0);
        prop_assert!(repaired.found.is_empty() || repaired.items == partition.len() as u64);
        let mut wrong = 0;
        for wanted in items.values() {
            match get(&mut partition, &wanted.key) {
                Ok(found) if found == *wanted => {}
                Ok(found) => {
                    prop_assert_eq!(&found, &item(&wanted.key, found.vector[0]));
                    wrong += 1;
                }
                Err(error) => {
                    prop_assert_eq!(error.code(), "not_found");
                    wrong += 1;
                }
            }
        }
        prop_assert!(wrong == 0 || !before.is_empty(), "{wrong} are lost and nothing was told");
        put(&mut partition, &item("key-3", 55.0)).unwrap();
        prop_assert_eq!(get(&mut partition, "key-3"), Ok(item("key-3", 55.0)));
    }
}
