//! Deadlines that pass, and what shortens them.

use super::*;

#[test]
fn a_server_whose_address_refuses_is_replaced_at_its_short_deadline_and_at_no_tick() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.lives.remove(&SERVERS[0]);
    let heard = world.now;
    let after = |ms| heard + Duration::from_millis(ms);
    let node = format!("{:?}", SERVERS[0]);
    assert!(world.training.called(&node, 1));
    assert_eq!(world.training.silence(after(20)), []);
    assert_eq!(world.training.next_loss(), Some(after(150)));
    assert_eq!(world.training.silence(after(150)), []);
    let raise = world.training.silence(after(151));
    assert!(matches!(raise[..], [Command::RaiseView { .. }]), "{raise:?}");
}

#[test]
fn a_coordinator_that_stood_still_waits_for_the_heartbeats_that_it_missed() {
    let mut world = World::with(CodecKind::None, 2, 1);
    let woken = world.now + Duration::from_secs(60);
    world.training.stood_still(Duration::from_secs(60), woken);
    assert_eq!(world.training.tick(woken), []);
    assert_eq!(world.training.status().lost, 0);
}
