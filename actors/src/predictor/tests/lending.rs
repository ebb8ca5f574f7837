//! Two predictors with an instance each, over the same registry.

use super::*;
use crate::messages::{LendError, LendRun};
use crate::peers::Peers;

/// A runner whose runs begin at once, end when the gate is open, and are said to take a second each.
struct Gated {
    begun: watch::Sender<u32>,
    open: watch::Receiver<bool>,
}

impl Actor for Gated {
    type Context = Context<Self>;
}

impl Handler<RunModel> for Gated {
    type Result = ResponseFuture<Ran>;

    fn handle(&mut self, run: RunModel, _: &mut Self::Context) -> Self::Result {
        self.begun.send_modify(|runs| *runs += 1);
        let mut open = self.open.clone();
        Box::pin(async move {
            open.wait_for(|open| *open).await.unwrap();
            let answers = run.served.predict(run.requests);
            Ran { answers, took: Duration::from_secs(1) }
        })
    }
}

impl Handler<BuildModel> for Gated {
    type Result = Result<ServedModel, PredictError>;

    fn handle(&mut self, build: BuildModel, _: &mut Self::Context) -> Self::Result {
        ServedModel::new(&build.kinds, build.fetched, build.members)
    }
}

/// A node's predictor, its instance, and the models in its memory.
struct Node {
    predictor: Addr<Predictor>,
    gate: watch::Sender<bool>,
    begun: watch::Receiver<u32>,
    models: Models,
}

fn node(registry: &Addr<Registry>, peers: Peers) -> Node {
    let (find, fetch) = (registry.clone().recipient(), registry.clone().recipient());
    let mut parts = PredictorParts::new(toy_kinds(), watch::Sender::default(), find, fetch);
    let (gate, open) = watch::channel(true);
    let (runs, begun) = watch::channel(0);
    let runner = Gated { begun: runs, open }.start();
    let link = RunnerLink { run: runner.clone().recipient(), build: runner.recipient() };
    parts.runners = Runners::new(vec![link]);
    parts.peers = peers;
    let models = parts.models.clone();
    Node { predictor: Predictor::new(parts).start(), gate, begun, models }
}

impl Node {
    fn lends(&self) -> Peers {
        Peers::new(vec![self.predictor.clone().recipient::<LendRun>()])
    }

    /// Keeps its instance busy with a request, which is answered when the gate opens.
    async fn keep_busy(&mut self) -> tokio::task::JoinHandle<()> {
        self.gate.send_replace(false);
        let runs = *self.begun.borrow_and_update();
        let predictor = self.predictor.clone();
        let busy = tokio::task::spawn_local(async move {
            predictor.send(predict(VersionRef::Latest)).await.unwrap().unwrap();
        });
        self.begun.wait_for(|begun| *begun > runs).await.unwrap();
        busy
    }
}

async fn two_nodes() -> (Node, Node, Peers) {
    tokio::time::pause();
    let (registry, _) = start();
    let other = node(&registry, Peers::default());
    let peers = other.lends();
    let own = node(&registry, peers.clone());
    // Its first run: from now on it is known to take a second.
    assert_eq!(latest(&own.predictor).await, (1, 3.0));
    (own, other, peers)
}

#[actix_rt::test]
async fn what_no_instance_here_is_idle_for_runs_on_that_of_another_node() {
    let (mut own, other, peers) = two_nodes().await;
    assert_eq!(latest(&other.predictor).await, (1, 3.0));
    let busy = own.keep_busy().await;
    let sent = together(&own.predictor, [row([1.0, 2.0]), row([3.0, 4.0])]);
    let answers = answers(sent).await;
    let values: Vec<f32> = answers.iter().map(|one| one.as_ref().unwrap().values().0[0]).collect();
    assert_eq!((values, peers.lent()), (vec![3.0, 7.0], 1));
    assert_eq!(answers[0].as_ref().unwrap().run, Run { rows: 2, first: true });
    // What the model says no to is the answer there as it is here.
    let failed = own.predictor.send(row([13.0, 1.0])).await.unwrap().unwrap_err();
    assert!(matches!(failed, PredictError::Model { .. }), "{failed:?}");
    assert_eq!(*own.begun.borrow(), 2);
    own.gate.send_replace(true);
    busy.await.unwrap();
}

#[actix_rt::test]
async fn a_node_that_has_not_loaded_the_version_does_so_for_the_next_time() {
    let (mut own, other, peers) = two_nodes().await;
    let busy = own.keep_busy().await;
    assert_eq!(other.models.used().1, 0);
    let waits = actix_rt::spawn(own.predictor.send(row([3.0, 4.0])));
    while other.models.used().1 == 0 || peers.lent() > 0 {
        yield_now().await;
    }
    own.gate.send_replace(true);
    busy.await.unwrap();
    assert_eq!(waits.await.unwrap().unwrap().unwrap().values().0[0], 7.0);
    assert_eq!(peers.lent(), 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let busy = own.keep_busy().await;
    assert_eq!(latest(&own.predictor).await, (1, 3.0));
    assert_eq!(peers.lent(), 1);
    own.gate.send_replace(true);
    busy.await.unwrap();
}

#[actix_rt::test]
async fn a_node_whose_instance_is_busy_runs_nothing_of_others() {
    let (mut own, mut other, peers) = two_nodes().await;
    assert_eq!(latest(&other.predictor).await, (1, 3.0));
    let (busy, there) = (own.keep_busy().await, other.keep_busy().await);
    let waits = actix_rt::spawn(own.predictor.send(row([3.0, 4.0])));
    own.gate.send_replace(true);
    busy.await.unwrap();
    assert_eq!(waits.await.unwrap().unwrap().unwrap().values().0[0], 7.0);
    assert_eq!((peers.lent(), *other.begun.borrow()), (0, 2));
    other.gate.send_replace(true);
    there.await.unwrap();
}

#[actix_rt::test]
async fn a_version_of_another_digest_or_one_that_is_not_served_is_not_lent() {
    let (_own, other, _) = two_nodes().await;
    assert_eq!(latest(&other.predictor).await, (1, 3.0));
    let digest = new_version("m", "run").digest;
    let run = |digest: &str| {
        let (model, digest) = ("m".to_owned(), digest.to_owned());
        other.predictor.send(LendRun { model, version: 1, digest, requests: vec![row([1.0, 2.0])] })
    };
    assert!(run(&digest).await.unwrap().is_ok());
    let not_there = LendError::NotThere { model: "m".into(), version: 1 };
    assert_eq!(run("another").await.unwrap().unwrap_err(), not_there);
    other.predictor.send(UnloadModel { model: "m".into() }).await.unwrap().unwrap();
    assert_eq!(run(&digest).await.unwrap().unwrap_err(), not_there);
}

/// Takes what it is asked, and never says a word.
struct Silent;

impl Actor for Silent {
    type Context = Context<Self>;
}

impl Handler<LendRun> for Silent {
    type Result = ResponseFuture<Result<crate::messages::Lent, LendError>>;

    fn handle(&mut self, _: LendRun, _: &mut Self::Context) -> Self::Result {
        Box::pin(std::future::pending())
    }
}

#[actix_rt::test]
async fn what_a_silent_node_was_handed_is_run_here_and_it_is_left_alone_for_a_while() {
    tokio::time::pause();
    let (registry, _) = start();
    let peers = Peers::new(vec![Silent.start().recipient()]);
    let mut own = node(&registry, peers.clone());
    assert_eq!(latest(&own.predictor).await, (1, 3.0));
    let busy = own.keep_busy().await;
    let waits = actix_rt::spawn(own.predictor.send(row([3.0, 4.0])));
    own.begun.borrow_and_update();
    tokio::time::sleep(Duration::from_millis(1)).await;
    own.gate.send_replace(true);
    busy.await.unwrap();
    let began = Instant::now();
    assert_eq!(waits.await.unwrap().unwrap().unwrap().values().0[0], 7.0);
    // Half of the time that the request has.
    let waited = began.elapsed().as_secs_f64();
    assert!((4.9..5.1).contains(&waited), "{waited}");
    assert!(peers.try_borrow().is_none());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(peers.try_borrow().is_some());
}
