//! Flipped bits in what a process left that was killed: what was acknowledged is there, or told as lost.

use super::{
    damage::{filled, flip},
    losses::{look, lost_at_a_start},
    model::{Action, World, action},
    *,
};
use crate::memory::{
    cases::cases,
    store::{repair::repair, survey::survey},
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What each key may stand for: what the last acknowledged change left, or what a later one asked for.
fn allowed(world: &World) -> BTreeMap<String, BTreeSet<Option<i8>>> {
    let mut allowed: BTreeMap<String, BTreeSet<Option<i8>>> = BTreeMap::new();
    for (key, value) in &world.base {
        allowed.insert(key.clone(), [Some(*value)].into());
    }
    for (place, (key, value)) in world.changes.iter().enumerate() {
        let values = allowed.entry(key.clone()).or_insert_with(|| [None].into());
        if place < world.acknowledged {
            values.clear();
        }
        values.insert(*value);
    }
    allowed
}

/// All files in a folder but those without which a start is refused, and the lock.
fn files(folder: &Folder) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let matters = |path: &PathBuf| {
        path.extension().is_some_and(|it| it == "rec" || it == "ckpt" || it == "mark")
    };
    let mut files: Vec<_> = entries.filter(matters).collect();
    files.sort();
    files
}

fn copy(folder: &Folder) -> Folder {
    let other = Folder::new("copy");
    fs::create_dir_all(other.path()).unwrap();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, other.path().join(path.file_name().unwrap())).unwrap();
    }
    other
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn after_a_kill_and_flipped_bits_what_was_acknowledged_is_there_or_told_as_lost(
        actions in prop::collection::vec(action(), 1..80),
        sectors in any::<u64>(),
        has_checkpoint in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..5),
    ) {
        let folder = Folder::new("tail");
        let mut world = World::new(&folder);
        actions.into_iter().for_each(|action| world.act(action));
        world.act(Action::Apply);
        world.kill(sectors);
        world.partition = None;
        let allowed = allowed(&world);
        if !has_checkpoint {
            fs::remove_file(folder.path().join("0000.ckpt")).ok();
        }
        let files = files(&folder);
        for (file, bit) in flips.iter().filter(|_| !files.is_empty()) {
            let file = file.get(&files);
            flip(file, bit.index(fs::metadata(file).unwrap().len() as usize * 8) as u64);
        }
        let by_doctor = survey(folder.path()).unwrap().lost();
        prop_assert!(by_doctor.is_nothing() || !flips.is_empty());
        let repaired = copy(&folder);
        prop_assert_eq!(repair(repaired.path(), 32).unwrap().lost(), by_doctor);
        prop_assert_eq!(lost_at_a_start(&folder), by_doctor);
        prop_assert_eq!(lost_at_a_start(&folder), by_doctor);
        prop_assert_eq!(survey(folder.path()).unwrap().lost(), by_doctor);
        prop_assert!(survey(repaired.path()).unwrap().lost().is_nothing());
        for folder in [&folder, &repaired] {
            let (mut partition, _store) = open(&settings(Some(folder)));
            look(&mut partition);
            let mut wrong = 0;
            for (key, values) in &allowed {
                let is_well = match get(&mut partition, key) {
                    Ok(found) => {
                        let value = found.vector[0] as i8;
                        prop_assert_eq!(&found, &item(key, value.into()));
                        values.contains(&Some(value))
                    }
                    Err(error) => error.code() == "not_found" && values.contains(&None),
                };
                wrong += u64::from(!is_well);
            }
            let told = by_doctor.items + by_doctor.unnamed;
            prop_assert!(wrong <= told || by_doctor.is_least, "{wrong} are wrong, {by_doctor}");
        }
    }
}

#[test]
fn nothing_is_lost_with_the_seal_behind_the_last_record() {
    for has_checkpoint in [true, false] {
        for starts in [0, 2] {
            let folder = Folder::new("seal");
            let items = filled(&folder);
            for _ in 0..starts {
                open(&settings(Some(&folder))).0.close().unwrap();
            }
            if !has_checkpoint {
                fs::remove_file(folder.path().join("0000.ckpt")).unwrap();
            }
            let file = folder.files().into_iter().rfind(|file| end_of(file) > 64).unwrap();
            for byte in 0..64 {
                let bit = (end_of(&file) - 64 + byte) * 8;
                flip(&file, bit);
                let lost = survey(folder.path()).unwrap().lost();
                assert!(lost.is_nothing(), "byte {byte} of the seal: {lost}");
                flip(&file, bit);
            }
            flip(&file, (end_of(&file) - 64) * 8);
            assert!(lost_at_a_start(&folder).is_nothing());
            let (mut partition, _store) = open(&settings(Some(&folder)));
            assert!(items.values().all(|item| get(&mut partition, &item.key).as_ref() == Ok(item)));
        }
    }
}

/// Where the last unit of a file ends that is no zeros.
fn end_of(file: &Path) -> u64 {
    let bytes = fs::read(file).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    last as u64 / 64 * 64 + 64
}
