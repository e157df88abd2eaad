//! Whatever happens in whatever order: the table agrees with the model.

use super::{
    world::{Order, TYPES, World},
    *,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Submit(Order),
    Reserve(usize),
    Commit(usize),
    Start(u16),
    Complete(usize),
    Fail(usize, bool),
    Extend(usize),
    GiveBack(usize),
    Late(usize),
    Cancel(usize),
    Pass(u64),
    Requeue(usize),
    Warm(usize, usize),
    Move(usize, bool),
    Restart,
}

fn order() -> impl Strategy<Value = Order> {
    let delay_ms = prop_oneof![4 => Just(0_u64), 1 => 1_u64..300];
    let key = prop_oneof![3 => Just(None), 1 => (0_u8..5).prop_map(Some)];
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.1), any::<bool>());
    (0..TYPES, 0_usize..4, delay_ms, key, flags).prop_map(
        |(type_index, priority, delay_ms, key, (transient, watched, reserved))| Order {
            type_index,
            // Long queues are where cold tasks are.
            priority: [1, 1, 1, priority][priority],
            delay_ms,
            key,
            transient,
            watched,
            reserved,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let pick = any::<usize>;
    prop_oneof![
        10 => order().prop_map(Step::Submit),
        1 => (1_usize..3).prop_map(Step::Reserve),
        8 => (1_usize..6).prop_map(Step::Commit),
        6 => (0..TYPES).prop_map(Step::Start),
        3 => pick().prop_map(Step::Complete),
        3 => (pick(), any::<bool>()).prop_map(|(pick, retry)| Step::Fail(pick, retry)),
        1 => pick().prop_map(Step::Extend),
        1 => pick().prop_map(Step::GiveBack),
        1 => pick().prop_map(Step::Late),
        2 => pick().prop_map(Step::Cancel),
        2 => (0_u64..200).prop_map(Step::Pass),
        1 => pick().prop_map(Step::Requeue),
        5 => (0_usize..5, pick()).prop_map(|(ask, pick)| Step::Warm(ask, pick)),
        1 => (0_usize..5, any::<bool>()).prop_map(|(part, free)| Step::Move(part, free)),
        1 => Just(Step::Restart),
    ]
}

fn take(world: &mut World, step: &Step) {
    match *step {
        Step::Submit(ref order) => world.submit(order),
        Step::Reserve(count) => world.reserve(count),
        Step::Commit(count) => world.commit(count),
        Step::Start(type_index) => drop(world.start(type_index)),
        Step::Complete(pick) => world.complete(pick),
        Step::Fail(pick, retry) => world.fail(pick, retry),
        Step::Extend(pick) => world.extend(pick),
        Step::GiveBack(pick) => world.give_back(pick),
        Step::Late(pick) => world.late(pick),
        Step::Cancel(pick) => world.cancel(pick),
        Step::Pass(ms) => world.pass(ms),
        Step::Requeue(pick) => world.requeue(pick),
        Step::Warm(ask, pick) => world.warm(ask, pick),
        Step::Move(part, free) => world.move_forward(part, free),
        Step::Restart => world.restart(),
    }
}

proptest! {
    /// A task ends once; it is in one place until then; counts agree; queues are in order, also
    /// with cold tasks; a stale lease changes nothing; what is needed of the log is known; and
    /// what the log has is there again after a restart, with its keys.
    #[test]
    fn the_table_agrees_with_the_model(
        steps in prop::collection::vec(step(), 0..300),
        policy in 0_usize..3,
    ) {
        let limits = TableLimits {
            queue_primary: 6,
            queue_overflow: 24,
            retry: RetryPolicy { base_ms: 20, max_ms: 60 },
            drop_policy: DropPolicy::ALL[policy],
            keys_max: 4,
            ..LIMITS
        };
        let mut world = World::new(limits);
        for step in &steps {
            take(&mut world, step);
            world.check();
        }
        world.drain();
    }
}
