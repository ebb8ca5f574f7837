use super::*;
use crate::new_version::tests::{artifact, new_version};

fn published(run: &str, version: u64) -> LogEntry {
    let description = new_version("m", run).numbered(version, artifact());
    LogEntry::Published { description }
}

fn aliased(alias: &str, version: u64) -> LogEntry {
    LogEntry::Aliased { model: "m".into(), alias: alias.into(), version }
}

fn deleted(version: u64) -> LogEntry {
    LogEntry::Deleted { model: "m".into(), version }
}

fn catalog(entries: &[LogEntry]) -> Catalog {
    Catalog::fold(entries).unwrap()
}

fn found(catalog: &Catalog, version: &str) -> Result<u64, CatalogError> {
    catalog.find("m", &version.parse().unwrap()).map(|found| found.version)
}

#[test]
fn latest_is_the_newest_version_that_was_not_deleted() {
    let catalog = catalog(&[published("a", 1), published("b", 2), deleted(2)]);
    assert_eq!(found(&catalog, "latest"), Ok(1));
}

#[test]
fn a_number_is_not_given_again_after_a_delete() {
    let catalog = catalog(&[published("a", 1), published("b", 2), deleted(2)]);
    assert_eq!(catalog.next_version("m"), 3);
    assert!(catalog.was_deleted("m", 2));
    assert!(!catalog.was_deleted("m", 3));
}

#[test]
fn an_alias_moves_to_the_version_it_was_set_to_last() {
    let entries = [published("a", 1), published("b", 2), aliased("best", 2), aliased("best", 1)];
    assert_eq!(found(&catalog(&entries), "best"), Ok(1));
}

#[test]
fn a_version_that_an_alias_names_can_not_be_deleted() {
    let mut catalog = catalog(&[published("a", 1), aliased("production", 1)]);
    let refused = catalog.apply(&deleted(1)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "version 1 of m is named by alias \"production\"; move or remove the alias first"
    );
    let removed = LogEntry::AliasRemoved { model: "m".into(), alias: "production".into() };
    catalog.apply(&removed).unwrap();
    assert_eq!(catalog.apply(&deleted(1)), Ok(()));
    assert_eq!(found(&catalog, "latest"), Err(CatalogError::NoVersions { model: "m".into() }));
    assert_eq!(catalog.list(), []);
}

#[test]
fn what_does_not_exist_is_answered_with_what_does() {
    let catalog = catalog(&[published("a", 1), published("b", 2), aliased("best", 2)]);
    let text = |model: &str, version: &str| {
        catalog.find(model, &version.parse().unwrap()).unwrap_err().to_string()
    };
    assert_eq!(text("n", "1"), "no model \"n\"; known models: m");
    assert_eq!(text("m", "7"), "m has no version 7; known versions: 2, 1");
    assert_eq!(text("m", "worst"), "m has no alias \"worst\"; known aliases: best");
}

#[test]
fn a_run_published_again_keeps_its_version() {
    let catalog = catalog(&[published("a", 1), published("b", 2)]);
    let again = catalog.publication(&new_version("m", "a"));
    assert_eq!(again, Ok(Publication::Already(1)));
    assert_eq!(catalog.publication(&new_version("m", "c")), Ok(Publication::New(3)));
    assert_eq!(catalog.find_run("m", "b").unwrap().version, 2);
}

#[test]
fn a_run_published_again_with_another_state_is_refused() {
    let catalog = catalog(&[published("a", 1)]);
    let mut other = new_version("m", "a");
    other.digest = "other".into();
    let refused = catalog.publication(&other).unwrap_err();
    assert!(matches!(refused, CatalogError::RunDiffers { version: 1, .. }), "{refused}");
}

#[test]
fn a_run_whose_version_was_deleted_is_not_published_again() {
    let catalog = catalog(&[published("a", 1), deleted(1)]);
    let refused = catalog.publication(&new_version("m", "a")).unwrap_err();
    assert!(matches!(refused, CatalogError::RunDeleted { version: 1, .. }), "{refused}");
}

#[test]
fn a_log_that_repeats_a_number_or_a_run_or_ends_the_numbers_does_not_fold() {
    let last = Catalog::fold(&[published("a", u64::MAX)]).unwrap_err();
    assert!(matches!(last, CatalogError::OutOfOrder { .. }));
    let again = Catalog::fold(&[published("a", 2), published("b", 2)]).unwrap_err();
    assert!(matches!(again, CatalogError::OutOfOrder { expected: 3, got: 2, .. }));
    let zero = Catalog::fold(&[published("a", 0)]).unwrap_err();
    assert!(matches!(zero, CatalogError::OutOfOrder { expected: 1, got: 0, .. }));
    let repeated = Catalog::fold(&[published("a", 1), published("a", 2)]).unwrap_err();
    assert!(matches!(repeated, CatalogError::RunTaken { version: 1, .. }));
}

fn routed(versions: &[(&str, u32)], shadow: Option<&str>) -> LogEntry {
    let split = |(version, weight): &(&str, u32)| crate::route::Split {
        version: version.parse().unwrap(),
        weight: *weight,
    };
    let route = Route {
        splits: versions.iter().map(split).collect(),
        shadow: shadow.map(|version| version.parse().unwrap()),
    };
    LogEntry::Routed { model: "m".into(), route: Some(route) }
}

#[test]
fn what_a_route_names_exists_for_as_long_as_it_does() {
    let mut catalog =
        catalog(&[published("a", 1), published("b", 2), published("c", 3), aliased("best", 1)]);
    let unknown = catalog.apply(&routed(&[("best", 9), ("7", 1)], None)).unwrap_err();
    assert!(unknown.to_string().starts_with("m has no version 7"), "{unknown}");
    catalog.apply(&routed(&[("best", 9), ("2", 1)], Some("3"))).unwrap();
    assert_eq!(catalog.list()[0].route, catalog.route("m").unwrap().cloned());
    for version in [2, 3] {
        let refused = catalog.apply(&deleted(version)).unwrap_err().to_string();
        assert_eq!(
            refused,
            format!("version {version} of m is in its route; change the route first")
        );
    }
    let removed = LogEntry::AliasRemoved { model: "m".into(), alias: "best".into() };
    assert!(matches!(catalog.apply(&removed), Err(CatalogError::Routed { .. })));
    catalog.apply(&LogEntry::Routed { model: "m".into(), route: None }).unwrap();
    assert_eq!(catalog.route("m"), Ok(None));
    assert_eq!(catalog.apply(&removed), Ok(()));
    assert_eq!(catalog.apply(&deleted(3)), Ok(()));
}

#[test]
fn the_last_version_is_not_deleted_while_the_route_says_latest() {
    let mut catalog = catalog(&[published("a", 1), published("b", 2)]);
    catalog.apply(&routed(&[("latest", 1)], None)).unwrap();
    assert_eq!(catalog.apply(&deleted(2)), Ok(()));
    assert!(matches!(catalog.apply(&deleted(1)), Err(CatalogError::Routed { .. })));
}
