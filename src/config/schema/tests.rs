use super::super::lookup::{Place, SHORTHANDS, place, tables};
use super::*;

#[test]
fn every_default_is_in_its_own_range() {
    for key in KEYS {
        if let Default(text) = key.default {
            assert!(key.kind.check(&key.kind.read(text)).is_some(), "{} = {text}", key.path);
        }
    }
}

#[test]
fn paths_are_unique_and_none_is_also_a_table() {
    for (at, key) in KEYS.iter().enumerate() {
        assert!(KEYS[..at].iter().all(|other| other.path != key.path), "{} twice", key.path);
        assert!(tables().all(|table| table != key.path), "{} is a table too", key.path);
    }
}

#[test]
fn every_shorthand_names_a_table_and_a_key_of_it() {
    for (table, kind) in SHORTHANDS {
        assert!(kind.starts_with(&format!("{table}.")), "{table}: {kind}");
        assert!(matches!(place(table), Place::Table(Some(key)) if key.path == *kind), "{table}");
    }
}
