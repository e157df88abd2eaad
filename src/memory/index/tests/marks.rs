//! A walk sees its own marks and none of the walks before it.

use super::super::marks::Marks;

#[test]
fn marks_do_not_outlive_their_walk_when_the_counter_runs_over() {
    let mut marks = Marks::default();
    for walk in 0..600_u32 {
        marks.begin(600);
        // Each node is marked by one walk in a while, so old marks of all ages lie about.
        for slot in [walk, walk / 2, 0] {
            let expected = slot != 0 && (slot == walk || slot == walk / 2);
            let first = marks.first_visit(slot);
            if expected {
                assert!(first, "walk {walk} saw slot {slot} before it came there");
            }
            assert!(!marks.first_visit(slot));
        }
    }
}

#[test]
fn marks_grow_with_the_nodes() {
    let mut marks = Marks::default();
    for nodes in [1, 5, 100] {
        marks.begin(nodes);
        assert!((0..nodes as u32).all(|slot| marks.first_visit(slot)));
    }
}
