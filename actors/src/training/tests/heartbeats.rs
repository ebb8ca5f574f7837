//! What a node tells of itself: its members, and what they train.

use super::*;

#[test]
fn a_node_with_other_data_is_refused_with_both_digests() {
    let mut world = World::new(CodecKind::None);
    let mut other = offer(world.training.job.clone());
    other.data.digest = "e".into();
    let heartbeat = Heartbeat {
        node: "stranger".into(),
        life: Incarnation(1),
        members: vec![(Member::Worker(WorkerId(1)), Incarnation(1))],
        number: 1,
        offer: Some(Box::new(other)),
    };
    let Heard { answer, commands, .. } = world.training.heartbeat(&heartbeat, world.now);
    let text = answer.unwrap_err().to_string();
    assert!(text.contains("data is e there, d elsewhere"), "{text}");
    assert_eq!(commands, []);
}

#[test]
fn a_heartbeat_is_news_where_somebody_comes_or_goes_or_offers_a_job() {
    let mut world = World::new(CodecKind::None);
    let (process, incarnation) = (Process::Server(0), Incarnation(1));
    let members: Vec<_> = process.members().into_iter().map(|m| (m, incarnation)).collect();
    let mut heartbeat = Heartbeat {
        node: format!("{process:?}"),
        life: incarnation,
        members,
        number: 1,
        offer: None,
    };
    let mut is_news =
        |heartbeat: &Heartbeat| world.training.heartbeat(heartbeat, world.now).is_news;
    assert!(!is_news(&heartbeat));
    heartbeat.members.pop();
    assert!(is_news(&heartbeat));
    assert!(!is_news(&heartbeat));
    heartbeat.members[0].1 = Incarnation(2);
    assert!(is_news(&heartbeat));
    heartbeat.offer = Some(Box::new(offer(job())));
    assert!(is_news(&heartbeat));
}

#[test]
fn a_node_with_its_data_elsewhere_trains_with_the_others() {
    let mut world = World::new(CodecKind::None);
    world.training.config.workers = 3;
    let mut job = world.training.job.clone();
    job.data.train = "/mnt/elsewhere/toy.csv".into();
    let heartbeat = Heartbeat {
        node: "new".into(),
        life: Incarnation(1),
        members: vec![(Member::Worker(WorkerId(2)), Incarnation(1))],
        number: 1,
        offer: Some(Box::new(offer(job))),
    };
    let Heard { answer, commands, .. } = world.training.heartbeat(&heartbeat, world.now);
    assert!(!answer.unwrap().offer_wanted);
    assert!(matches!(commands[..], [Command::RaiseView { .. }]), "{commands:?}");
}

#[test]
fn a_worker_counts_only_when_it_has_said_what_it_trains() {
    let mut world = World::new(CodecKind::None);
    world.training.config.workers = 3;
    let mut heartbeat = Heartbeat {
        node: "new".into(),
        life: Incarnation(1),
        members: vec![(Member::Worker(WorkerId(2)), Incarnation(1))],
        number: 1,
        offer: None,
    };
    let Heard { answer, commands, .. } = world.training.heartbeat(&heartbeat, world.now);
    assert!(answer.unwrap().offer_wanted);
    assert_eq!(commands, []);
    heartbeat.offer = Some(Box::new(offer(world.training.job.clone())));
    let Heard { answer, commands, .. } = world.training.heartbeat(&heartbeat, world.now);
    assert!(!answer.unwrap().offer_wanted);
    assert!(matches!(commands[..], [Command::RaiseView { .. }]), "{commands:?}");
}
