//! Data that lies elsewhere for each node, or elsewhere than before: what counts is what is in it.

use crate::support::{Ended, Job};

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits/digits.csv.gz");

/// A copy of the digits in a folder of its own; the argument that names it.
fn moved(job: &Job, folder: &str) -> String {
    let file = job.path(folder).join("digits.csv.gz");
    std::fs::create_dir_all(job.path(folder)).unwrap();
    std::fs::copy(DIGITS, &file).unwrap();
    format!("job.data.train={}", file.display())
}

fn assert_same_bits(got: &Ended, sets: &[&str]) {
    let calm = Job::embedded(sets).train().digest;
    assert!(got.stdout.contains(&calm), "not {calm}: {got}");
}

#[test]
fn nodes_with_their_data_in_different_folders_train_the_same() {
    let sets = ["job.epochs=2"];
    let job = Job::processes(2, 1, &sets);
    let names = ["ps-0", "worker-0", "worker-1"];
    let mut others = names.map(|name| {
        job.start(&["--set", &moved(&job, &format!("of {name}")), "run", "--name", name])
    });
    let mut main = job.start(&["run", "--name", "main", "--json"]);
    main.wait_for_line("\"digest\"");
    for worker in &mut others[1..] {
        worker.wait_for_line("last version evaluated");
    }
    assert_same_bits(&main.kill(), &sets);
}

#[test]
fn a_checkpoint_is_resumed_with_the_data_moved() {
    let sets = ["job.epochs=100", "checkpoint.every_steps=20"];
    let job = Job::embedded(&sets);
    let mut train = job.start(&["--set", &moved(&job, "first"), "train"]);
    train.wait_for_manifests(&job, 1);
    let killed = train.kill();
    assert_eq!(killed.status.code(), None, "it had ended: {killed}");

    std::fs::remove_dir_all(job.path("first")).unwrap();
    let ended = job.run(&["--set", &moved(&job, "second"), "train", "--json"]);
    assert!(ended.stderr.contains("newest checkpoint version=Some("), "{ended}");
    assert_same_bits(&ended, &sets);
}
