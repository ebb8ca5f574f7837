//! Requests that name no version, and shadows beside them.

use super::*;

/// Says one route of every model.
struct Router {
    route: watch::Receiver<Option<Route>>,
    asked: watch::Sender<u32>,
}

impl Actor for Router {
    type Context = Context<Self>;
}

impl Handler<FindRoute> for Router {
    type Result = Result<FoundRoute, FindError>;

    fn handle(&mut self, _: FindRoute, _: &mut Self::Context) -> Self::Result {
        self.asked.send_modify(|asked| *asked += 1);
        Ok(FoundRoute { route: self.route.borrow().clone() })
    }
}

fn half(shadow: Option<&str>) -> Route {
    let split = |version: &str| Split { version: version.parse().unwrap(), weight: 1 };
    let shadow = shadow.map(|version| version.parse().unwrap());
    Route { splits: vec![split("1"), split("2")], shadow }
}

fn keyed(key: &str) -> Predict {
    Predict { routed: Some(key.to_owned()), ..row([1.0, 2.0]) }
}

/// Three versions, a route, and a predictor that may know the log of the registry.
async fn start_routed(
    route: &watch::Sender<Option<Route>>,
    log: Option<LogFeed>,
) -> (Addr<Predictor>, watch::Receiver<u32>, Shadows) {
    let (registry, _) = start();
    registry.send(Change(3, false)).await.unwrap();
    let (find, fetch) = (registry.clone().recipient(), registry.recipient());
    let (asked, asks) = watch::channel(0);
    let router = Router { route: route.subscribe(), asked }.start();
    let mut parts = PredictorParts::new(toy_kinds(), watch::Sender::default(), find, fetch);
    parts.find_route = Some(router.recipient());
    parts.log = log;
    let shadows = parts.shadows.clone();
    (Predictor::new(parts).start(), asks, shadows)
}

async fn version_of(predictor: &Addr<Predictor>, request: Predict) -> u64 {
    predictor.send(request).await.unwrap().unwrap().version.number()
}

#[actix_rt::test]
async fn a_request_that_names_no_version_gets_the_one_that_its_key_has_in_the_route() {
    let route = watch::Sender::new(Some(half(None)));
    let (predictor, _, _) = start_routed(&route, None).await;
    let mut versions = std::collections::BTreeSet::new();
    for key in 0..20 {
        let key = key.to_string();
        let version = version_of(&predictor, keyed(&key)).await;
        assert_eq!(version_of(&predictor, keyed(&key)).await, version);
        let chosen = half(None).choose(key.as_bytes()).unwrap().to_string();
        assert_eq!(chosen, version.to_string());
        versions.insert(version);
    }
    assert_eq!(Vec::from_iter(versions), [1, 2]);
    // Without a key both have their part; and a version that is named is not routed.
    let mut versions = std::collections::BTreeSet::new();
    for _ in 0..40 {
        versions.insert(version_of(&predictor, keyed("")).await);
    }
    assert_eq!(Vec::from_iter(versions), [1, 2]);
    assert_eq!(version_of(&predictor, row([1.0, 2.0])).await, 3);
    route.send_replace(None);
    assert_eq!(version_of(&predictor, keyed("a")).await, 3);
}

#[actix_rt::test]
async fn a_route_is_not_asked_for_again_where_the_log_has_not_moved() {
    let route = watch::Sender::new(Some(half(None)));
    let seen = |entries| Some(LogSeen { entries, at: Instant::now() });
    let (log, feed) = watch::channel(seen(1));
    let (predictor, asks, _) = start_routed(&route, Some(feed)).await;
    let sent = together(&predictor, (0..8).map(|_| keyed("a")));
    assert!(answers(sent).await.iter().all(Result::is_ok));
    version_of(&predictor, keyed("b")).await;
    assert_eq!(*asks.borrow(), 1);
    route.send_replace(None);
    log.send_replace(seen(2));
    assert_eq!(version_of(&predictor, keyed("b")).await, 3);
    assert_eq!(*asks.borrow(), 2);
}

#[actix_rt::test]
async fn a_shadow_is_asked_the_same_and_answers_nobody() {
    let route = watch::Sender::new(Some(half(Some("3"))));
    let (predictor, _, shadows) = start_routed(&route, None).await;
    for key in 0..5 {
        assert!(version_of(&predictor, keyed(&key.to_string())).await < 3);
    }
    // It goes behind, but it goes.
    let compared = || shadows.counts().first().map_or(0, |(_, _, counts)| counts.rows);
    let all = async {
        while compared() < 5 {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("the shadow is asked");
    let [(model, version, counts)] = &shadows.counts()[..] else { panic!("one shadow") };
    assert_eq!((model.as_str(), version.as_str()), ("m", "3"));
    // Version n answers n times the sum.
    assert_eq!(*counts, ShadowCounts { failed: 0, rows: 5, agreed: 0 });
}

#[actix_rt::test]
async fn requests_that_wait_for_a_route_are_no_more_than_a_queue_has() {
    let route = watch::Sender::new(None);
    let (registry, _) = start();
    let (find, fetch) = (registry.clone().recipient(), registry.recipient());
    let (asked, _asks) = watch::channel(0);
    let router = Router { route: route.subscribe(), asked }.start();
    let mut parts = PredictorParts::new(toy_kinds(), watch::Sender::default(), find, fetch);
    parts.find_route = Some(router.recipient());
    parts.batching.queue = 2;
    let predictor = Predictor::new(parts).start();
    let sent = together(&predictor, (0..5).map(|_| keyed("a")));
    let full = PredictError::Full { model: "m".into(), limit: 2 };
    let answers = answers(sent).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2);
    assert!(answers.iter().filter_map(|answer| answer.as_ref().err()).all(|e| *e == full));
}
