//! A training that still runs, which a predictor follows.

use super::*;

#[actix_rt::test]
async fn the_state_of_a_running_training_is_the_newest_version_and_no_other() {
    let registry = Registry { newest: 1, away: false, fetched: Vec::new() }.start();
    let (find, fetch) = (registry.clone().recipient(), registry.clone().recipient());
    let mut parts = PredictorParts::new(toy_kinds(), watch::Sender::default(), find, fetch);
    let (training, followed) = watch::channel(None);
    parts.followed = Some(followed);
    let predictor = Predictor::new(parts).start();
    assert_eq!(latest(&predictor).await, (1, 3.0));
    let state = |step: u64| {
        let mut description = new_version("m", "next").numbered(0, artifact());
        description.steps = step;
        let tensors = vec![vec![step as f32; 2].into()];
        let fetched = FetchedModel { description, tensors, file: None };
        Some(Arc::new(ServedModel::new(&toy_kinds(), fetched, Vec::new()).unwrap()))
    };
    for step in [100, 200] {
        training.send_replace(state(step));
        let answer = predictor.send(predict(VersionRef::Latest)).await.unwrap().unwrap();
        assert_eq!(answer.version.to_string(), format!("step-{step}"));
        assert_eq!(answer.values().0[0], 3.0 * step as f32);
    }
    let one = predictor.send(predict(VersionRef::Number(1))).await.unwrap().unwrap();
    assert_eq!((one.version.number(), one.values().0[0]), (1, 3.0));
    let other = Predict { model: "other".into(), ..predict(VersionRef::Latest) };
    assert_eq!(predictor.send(other).await.unwrap().unwrap().version.number(), 1);

    predictor.send(UnloadModel { model: "m".into() }).await.unwrap().unwrap();
    let unloaded = predictor.send(predict(VersionRef::Latest)).await.unwrap();
    assert_eq!(unloaded, Err(PredictError::Unloaded { model: "m".into() }));
    predictor.send(LoadModel { model: "m".into() }).await.unwrap().unwrap();
    assert_eq!(latest(&predictor).await, (0, 600.0));
    training.send_replace(None);
    assert_eq!(latest(&predictor).await, (1, 3.0));
}
