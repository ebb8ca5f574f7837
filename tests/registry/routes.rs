//! Routes in the registry: kept in its log, and seen by its other registries.

use std::fs;

use actix::Addr;
use gradmesh_actors::messages::{ChangeError, FindRoute, RemoveAlias, SetRoute};
use gradmesh_actors::model_registry::ModelRegistry;
use gradmesh_actors::route::{Route, Split};

use crate::{alias, delete, entry, fresh, open, publish};

fn route(versions: &[(&str, u32)]) -> Route {
    let split = |(version, weight): &(&str, u32)| Split {
        version: version.parse().unwrap(),
        weight: *weight,
    };
    Route { splits: versions.iter().map(split).collect(), shadow: None }
}

async fn set(registry: &Addr<ModelRegistry>, route: Option<Route>) -> Result<(), ChangeError> {
    registry.send(SetRoute { model: "m".into(), route }).await.unwrap()
}

async fn found(registry: &Addr<ModelRegistry>) -> Option<Route> {
    let find = FindRoute { model: "m".into() };
    registry.send(find).await.unwrap().unwrap().route
}

#[actix_rt::test]
async fn a_route_holds_until_it_is_changed_and_is_there_after_a_restart() {
    let (folder, registry) = fresh();
    publish(&registry, "a").await.unwrap();
    publish(&registry, "b").await.unwrap();
    alias(&registry, "1").await.unwrap();
    assert_eq!(found(&registry).await, None);
    let split = route(&[("production", 95), ("2", 5)]);
    for _ in 0..2 {
        set(&registry, Some(split.clone())).await.unwrap();
    }
    // Said twice, it is one change.
    assert!(entry(folder.path(), 4).exists() && !entry(folder.path(), 5).exists());
    assert_eq!(found(&open(folder.path())).await, Some(split));
    let refused = delete(&registry).await.unwrap_err();
    assert!(refused.to_string().contains("\"production\""), "{refused}");
    let remove = || RemoveAlias { model: "m".into(), alias: "production".into() };
    let refused = registry.send(remove()).await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("is in its route"), "{refused}");
    assert!(!entry(folder.path(), 5).exists());
    set(&registry, None).await.unwrap();
    registry.send(remove()).await.unwrap().unwrap();
    assert_eq!(found(&registry).await, None);
}

#[actix_rt::test]
async fn a_route_that_leads_nowhere_is_refused_and_nothing_is_written() {
    let (folder, registry) = fresh();
    publish(&registry, "a").await.unwrap();
    for (wrong, says) in [
        (route(&[]), "0 versions"),
        (route(&[("1", 0)]), "no version of the route"),
        (route(&[("7", 1)]), "m has no version 7"),
        (route(&[("best", 1)]), "m has no alias \"best\""),
    ] {
        let refused = set(&registry, Some(wrong)).await.unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
    assert_eq!(fs::read_dir(folder.path().join("log")).unwrap().count(), 1);
    let unknown = registry.send(FindRoute { model: "none".into() }).await.unwrap().unwrap_err();
    assert!(unknown.to_string().starts_with("no model \"none\""), "{unknown}");
}

#[actix_rt::test]
async fn what_a_route_of_another_registry_names_is_not_deleted() {
    let (folder, first) = fresh();
    publish(&first, "a").await.unwrap();
    publish(&first, "b").await.unwrap();
    let second = open(folder.path());
    set(&second, Some(route(&[("1", 1), ("latest", 1)]))).await.unwrap();
    let refused = delete(&first).await.unwrap_err();
    assert_eq!(refused.to_string(), "version 1 of m is in its route; change the route first");
}
