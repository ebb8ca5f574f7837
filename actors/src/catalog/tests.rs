use super::*;
use crate::new_version::tests::{artifact, new_version};
use crate::notes::Notes;
use crate::route::Split;

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
        "version 1 of m is named by alias \"production\"; move the alias or remove it first: node models alias m production --remove"
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

fn edited(edit: Edit, at_unix_ms: u64) -> LogEntry {
    LogEntry::Edited { edit, at_unix_ms }
}

fn registered(key: &str) -> LogEntry {
    let (model, key, notes) = ("m".into(), key.into(), Notes::default());
    edited(Edit::RegisterModel { model, key, notes }, 5)
}

fn linked(key: &str, place: &str) -> LogEntry {
    let (model, key, place, run) = ("m".into(), key.into(), place.into(), None);
    edited(Edit::LinkVersion { model, key, place, run, notes: Notes::default() }, 6)
}

fn tagged(version: Option<u64>, key: &str, value: &str) -> LogEntry {
    let (key, value) = (key.into(), Some(value.into()));
    edited(Edit::Tag { model: "m".into(), version, key, value }, 7)
}

fn model_deleted() -> LogEntry {
    edited(Edit::DeleteModel { model: "m".into() }, 8)
}

#[test]
fn a_model_is_there_from_its_registration_on_and_served_from_its_first_version_on() {
    let mut catalog = catalog(&[registered("a")]);
    assert_eq!(found(&catalog, "latest"), Err(CatalogError::NoVersions { model: "m".into() }));
    assert_eq!(catalog.list(), []);
    assert_eq!(catalog.model_record("m").unwrap().created_unix_ms, 5);
    catalog.apply(&published("r", 1)).unwrap();
    assert_eq!(found(&catalog, "latest"), Ok(1));
    assert_eq!(catalog.model_record("m").unwrap().latest.unwrap().version, 1);
}

#[test]
fn a_model_is_registered_once_and_its_repeated_request_is_no_error() {
    let mut catalog = catalog(&[registered("a"), tagged(None, "k", "v")]);
    assert_eq!(catalog.apply(&registered("a")), Ok(()));
    assert_eq!(catalog.model_record("m").unwrap().tags["k"], "v");
    let refused = CatalogError::ModelExists { model: "m".into() };
    assert_eq!(catalog.apply(&registered("b")), Err(refused));
}

#[test]
fn a_version_that_lies_elsewhere_can_be_found_and_named_and_is_not_served() {
    let mut catalog = catalog(&[published("r", 1), linked("a", "s3://b/m")]);
    assert_eq!(catalog.apply(&linked("a", "s3://b/m")), Ok(()), "a repeated request");
    assert_eq!(catalog.next_version("m"), 3);
    let at = |version: &str| version.parse::<VersionRef>().unwrap();
    assert_eq!(catalog.resolve("m", &at("2")), Ok(2));
    assert_eq!(found(&catalog, "latest"), Ok(1), "the newest that can be served");
    let refused = found(&catalog, "2").unwrap_err();
    assert!(!refused.is_not_found() && refused.to_string().contains("s3://b/m"), "{refused}");
    let route = Route { splits: vec![Split { version: at("2"), weight: 1 }], shadow: None };
    let routed = |route| LogEntry::Routed { model: "m".into(), route: Some(route) };
    assert!(matches!(catalog.apply(&routed(route)), Err(CatalogError::Linked { .. })));
    catalog.apply(&aliased("best", 1)).unwrap();
    let route = Route { splits: vec![Split { version: at("best"), weight: 1 }], shadow: None };
    catalog.apply(&routed(route)).unwrap();
    let unserved = catalog.apply(&aliased("best", 2));
    assert!(matches!(unserved, Err(CatalogError::Routed { .. })), "{unserved:?}");
    catalog.apply(&aliased("other", 2)).unwrap();
    assert_eq!(catalog.version_record("m", &at("other")).unwrap().aliases, ["other"]);
    assert!(catalog.apply(&deleted(2)).is_err(), "an alias names it");
}

#[test]
fn a_deleted_model_is_gone_with_all_that_was_said_of_it_and_its_numbers_stay_taken() {
    let before = [published("r", 1), tagged(None, "k", "v"), tagged(Some(1), "k", "v")];
    let mut catalog = catalog(&before);
    catalog.apply(&aliased("best", 1)).unwrap();
    catalog.apply(&model_deleted()).unwrap();
    assert!(found(&catalog, "1").unwrap_err().is_not_found());
    assert!(catalog.apply(&model_deleted()).unwrap_err().is_not_found());
    assert!(catalog.apply(&tagged(None, "k", "v")).is_err());
    let repeated = catalog.publication(&new_version("m", "r")).unwrap_err();
    assert!(matches!(repeated, CatalogError::RunDeleted { version: 1, .. }), "{repeated:?}");
    catalog.apply(&registered("b")).unwrap();
    catalog.apply(&published("s", 2)).unwrap();
    let record = catalog.model_record("m").unwrap();
    assert_eq!((record.tags.len(), record.aliases.len(), record.created_unix_ms), (0, 0, 5));
    assert_eq!(found(&catalog, "latest"), Ok(2));
}

#[test]
fn a_model_with_a_route_is_not_deleted() {
    let mut catalog = catalog(&[published("r", 1)]);
    let route =
        Route { splits: vec![Split { version: VersionRef::Latest, weight: 1 }], shadow: None };
    catalog.apply(&LogEntry::Routed { model: "m".into(), route: Some(route) }).unwrap();
    let refused = catalog.apply(&model_deleted()).unwrap_err();
    assert_eq!(refused.to_string(), "m has a route; remove it first: node models route m");
}

#[test]
fn notes_of_a_version_go_with_it_and_what_is_so_already_is_no_change() {
    let mut catalog = catalog(&[published("r", 1), published("s", 2), tagged(Some(1), "k", "v")]);
    let same =
        Edit::Tag { model: "m".into(), version: Some(1), key: "k".into(), value: Some("v".into()) };
    assert_eq!(catalog.outcome(&same), Ok(Outcome::Already(Some(1))));
    let absent = Edit::Tag { model: "m".into(), version: None, key: "none".into(), value: None };
    assert_eq!(catalog.outcome(&absent), Ok(Outcome::Already(None)));
    catalog.apply(&deleted(1)).unwrap();
    assert!(catalog.outcome(&same).unwrap_err().is_not_found());
}

#[test]
fn versions_beyond_the_newest_expire_but_none_that_has_a_name() {
    let mut catalog = Catalog::default();
    for version in 1..=5 {
        catalog.apply(&published(&format!("run-{version}"), version)).unwrap();
    }
    catalog.apply(&aliased("best", 2)).unwrap();
    assert_eq!(catalog.expired("m", 2), [1, 3]);
    assert_eq!(catalog.expired("m", 5), [0u64; 0]);
    assert_eq!(catalog.expired("none", 1), [0u64; 0]);
}

#[test]
fn a_search_finds_what_its_filter_says_in_order_and_in_pages() {
    let mut catalog = Catalog::default();
    for version in 1..=5 {
        catalog.apply(&published(&format!("run-{version}"), version)).unwrap();
        let kind = if version % 2 == 0 { "even" } else { "odd" };
        catalog.apply(&tagged(Some(version), "kind", kind)).unwrap();
    }
    let search = |filter: &str, order: &[&str], max, from| {
        let order = order.iter().map(|order| (*order).to_owned()).collect();
        let found = catalog.search_versions(&Search { filter: filter.into(), order, max, from });
        found.map(|page| {
            (page.found.iter().map(|found| found.version).collect::<Vec<_>>(), page.next)
        })
    };
    let up = ["version_number ASC"];
    assert_eq!(search("tags.kind = 'odd'", &up, 2, 0), Ok((vec![1, 3], Some(2))));
    assert_eq!(search("tags.kind = 'odd'", &up, 2, 2), Ok((vec![5], None)));
    assert_eq!(search("run_id IN ('run-2', 'run-4')", &[], 9, 0), Ok((vec![4, 2], None)));
    assert_eq!(search("metrics.loss < 0.6 AND version_number > 4", &[], 9, 0), Ok((vec![5], None)));
    assert_eq!(search("", &up, 9, 99), Ok((vec![], None)));
    assert!(search("", &["colour"], 9, 0).is_err());
    let models = Search { max: 9, ..Search::default() };
    assert_eq!(catalog.search_models(&models).unwrap().found.len(), 1);
}

#[test]
fn a_page_ends_where_its_texts_would_be_too_many_and_the_next_one_goes_on() {
    let mut catalog = Catalog::default();
    let long = "x".repeat(crate::notes::TEXT_MAX);
    for version in 1..=100 {
        catalog.apply(&published(&format!("run-{version}"), version)).unwrap();
        catalog.apply(&tagged(Some(version), "long", &long)).unwrap();
    }
    let (mut from, mut pages, mut found) = (Some(0), 0, 0);
    while let Some(at) = from {
        let search = Search { max: 1000, from: at, ..Search::default() };
        let page = catalog.search_versions(&search).unwrap();
        (from, pages, found) = (page.next, pages + 1, found + page.found.len());
    }
    assert_eq!((pages, found), (3, 100));
}

/// A version of `whole` that is made of version 1 of `m`.
fn made_of_m(catalog: &Catalog) -> LogEntry {
    let mut new = new_version("whole", "run");
    let part = catalog.find("m", &VersionRef::Number(1)).unwrap();
    new.made_of = vec![part.as_member()];
    LogEntry::Published { description: new.numbered(1, artifact()) }
}

#[test]
fn what_another_version_is_made_of_stays_as_long_as_that_one() {
    let mut catalog = catalog(&[published("a", 1), published("b", 2), published("c", 3)]);
    catalog.apply(&made_of_m(&catalog)).unwrap();
    let used = "version 1 of m is a part of version 1 of whole; delete that first";
    assert_eq!(catalog.apply(&deleted(1)).unwrap_err().to_string(), used);
    let all = LogEntry::Edited { edit: Edit::DeleteModel { model: "m".into() }, at_unix_ms: 1 };
    assert_eq!(catalog.apply(&all).unwrap_err().to_string(), used);
    assert_eq!(catalog.expired("m", 1), [2]);
    catalog.apply(&LogEntry::Deleted { model: "whole".into(), version: 1 }).unwrap();
    assert_eq!(catalog.expired("m", 1), [1, 2]);
    assert_eq!(catalog.apply(&deleted(1)), Ok(()));
    assert_eq!(catalog.apply(&all), Ok(()));
}

#[test]
fn a_model_that_goes_with_all_versions_gives_its_parts_free() {
    let mut catalog = catalog(&[published("a", 1), published("b", 2)]);
    catalog.apply(&made_of_m(&catalog)).unwrap();
    let whole = Edit::DeleteModel { model: "whole".into() };
    catalog.apply(&LogEntry::Edited { edit: whole, at_unix_ms: 1 }).unwrap();
    assert_eq!(catalog.apply(&deleted(1)), Ok(()));
}

#[test]
fn parts_that_are_not_there_or_are_others_are_refused() {
    let one = catalog(&[published("a", 1)]);
    let LogEntry::Published { description } = made_of_m(&one) else { unreachable!() };
    let mut new = NewVersion::from(description.clone());
    assert_eq!(one.publication(&new), Ok(Publication::New(1)));
    assert!(matches!(Catalog::default().publication(&new), Err(CatalogError::NoModel { .. })));
    new.made_of[0].digest = "other".into();
    let refused = one.publication(&new).unwrap_err().to_string();
    assert_eq!(
        refused,
        "whole is made of version 1 of m with state other; that version has state here"
    );
    let entry = LogEntry::Published { description: new.numbered(1, artifact()) };
    assert!(matches!(one.check(&entry), Err(CatalogError::OtherPart { .. })));
}
