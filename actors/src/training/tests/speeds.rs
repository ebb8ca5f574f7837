//! Slots that move from slow workers to fast ones.

use super::*;
use crate::messages::{Pace, ReportSpeed};

impl World {
    /// A second in which this worker took so many microseconds for a slot, and the step as long as
    /// two slots of the slowest.
    fn measures(&mut self, worker: u32, slot_us: u64) {
        let pace = Pace {
            steps: 10,
            slots: 20,
            computing_ns: 20 * slot_us * 1000,
            passed_ns: 10 * 2 * 4000 * 1000,
        };
        self.training.report_speed(ReportSpeed { worker: WorkerId(worker), pace }).unwrap();
    }

    fn one_is_slow(&mut self) {
        for _ in 0..12 {
            self.measures(0, 4000);
            self.measures(1, 1000);
            self.pass(1);
        }
    }
}

#[test]
fn slots_leave_a_slow_worker_in_a_view_that_goes_on() {
    let mut world = World::new(CodecKind::None);
    assert_eq!(world.spans(), [(0, 2), (2, 4)]);
    world.one_is_slow();
    assert_eq!(world.spans(), [(0, 1), (1, 4)]);
    let status = world.training.status();
    assert_eq!((status.view, status.rollbacks), (View(2), 0));
    let share = status.shares[0];
    assert_eq!((share.slots, share.slot_us), (1, Some(4000)));
    let told: Vec<String> = world.told.iter().map(Event::to_string).collect();
    let moved = "slots moved between 2 workers: worker-0 takes 4.0 times as long as the fastest";
    assert!(told.iter().any(|told| told.starts_with(moved)), "{told:?}");
}

#[test]
fn with_residuals_they_leave_it_at_the_next_checkpoint() {
    let mut world = World::new(CodecKind::TopK);
    world.one_is_slow();
    assert_eq!(world.spans(), [(0, 2), (2, 4)]);
    world.save(4);
    world.pass(2);
    assert_eq!(world.spans(), [(0, 1), (1, 4)]);
    assert_eq!(world.leases[&WorkerId(0)].rolled_back_to, Version(4));
}

#[test]
fn a_worker_that_starts_again_is_measured_anew() {
    let mut world = World::new(CodecKind::None);
    world.one_is_slow();
    world.lives.insert(WORKERS[0], 2);
    world.pass(1);
    assert_eq!(world.training.status().shares[0].slot_us, None);
    let stranger = ReportSpeed { worker: WorkerId(9), pace: Pace::default() };
    assert!(world.training.report_speed(stranger).is_err());
}

#[test]
fn nothing_moves_where_it_is_switched_off() {
    let mut world = World::new(CodecKind::None);
    world.training.config.rebalance = false;
    world.one_is_slow();
    assert_eq!((world.spans(), world.training.view), (vec![(0, 2), (2, 4)], View(1)));
}
