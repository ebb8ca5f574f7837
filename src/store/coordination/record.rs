//! An entry and a beat as they are stored: sealed JSON, the same in a folder and in etcd.

use bytes::Bytes;
use gradmesh_actors::ids::{Term, View};
use gradmesh_actors::messages::coordination::{Beat, CoordinationError, Entry};
use serde::{Deserialize, Serialize};

use super::ENTRY_BYTES_MAX;
use crate::store::sealed::Sealed;

/// Of entries and beats. A later one may add fields without a new number.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct EntryRecord {
    format: u32,
    view: View,
    term: Term,
    leader: String,
    state: State,
}

/// Readable where it is text, as JSON is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Serialize, Deserialize)]
struct BeatRecord {
    format: u32,
    term: Term,
    leader: String,
    count: u64,
}

/// # Errors
/// The entry is too large for a store.
pub(super) fn write_entry(entry: &Entry, store: &str) -> Result<Vec<u8>, CoordinationError> {
    let state = match std::str::from_utf8(&entry.state) {
        Ok(text) => State::Text(text.to_owned()),
        Err(_) => State::Bytes(entry.state.to_vec()),
    };
    let Entry { view, term, leader, .. } = entry.clone();
    let bytes = sealed(EntryRecord { format: FORMAT, view, term, leader, state }, store)?;
    if bytes.len() > ENTRY_BYTES_MAX {
        let (got, max) = (bytes.len(), ENTRY_BYTES_MAX);
        return Err(CoordinationError::TooLarge { store: store.to_owned(), view, got, max });
    }
    Ok(bytes)
}

/// The entry at a number; what is wrong with it where it is none.
pub(super) fn read_entry(bytes: &[u8], number: View) -> Result<Entry, String> {
    let record = Sealed::<EntryRecord>::read(bytes).map_err(|error| error.to_string())?;
    let EntryRecord { format, view, term, leader, state } = record;
    known(format)?;
    if view != number {
        return Err(format!("it is the one of {view}"));
    }
    if view.next().is_none() || term.next().is_none() {
        return Err(format!("after {view} and {term} there are no numbers"));
    }
    let state = match state {
        State::Text(text) => Bytes::from(text),
        State::Bytes(bytes) => Bytes::from(bytes),
    };
    Ok(Entry { view, term, leader, state })
}

/// # Errors
/// Never, with numbers and text.
pub(super) fn write_beat(beat: &Beat, store: &str) -> Result<Vec<u8>, CoordinationError> {
    let Beat { term, leader, count } = beat.clone();
    sealed(BeatRecord { format: FORMAT, term, leader, count }, store)
}

/// What is wrong with a beat that is none.
pub(super) fn read_beat(bytes: &[u8]) -> Result<Beat, String> {
    let record = Sealed::<BeatRecord>::read(bytes).map_err(|error| error.to_string())?;
    let BeatRecord { format, term, leader, count } = record;
    known(format)?;
    Ok(Beat { term, leader, count })
}

fn known(format: u32) -> Result<(), String> {
    if format == FORMAT {
        return Ok(());
    }
    Err(format!("its format is {format}, this build reads {FORMAT}"))
}

fn sealed<T>(value: T, store: &str) -> Result<Vec<u8>, CoordinationError>
where
    T: Serialize + serde::de::DeserializeOwned,
{
    let failed = |cause: String| CoordinationError::Store { store: store.to_owned(), cause };
    Sealed::write(value).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_back(
            view in 0..u64::MAX,
            term in 0..u64::MAX,
            leader in ".{0,9}",
            state in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let (view, term, state) = (View(view), Term(term), Bytes::from(state));
            let entry = Entry { view, term, leader, state };
            let bytes = write_entry(&entry, "s").unwrap();
            prop_assert_eq!(read_entry(&bytes, view), Ok(entry));
        }

        #[test]
        fn no_bytes_are_read_as_an_entry_or_beat_without_their_seal(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(read_entry(&bytes, View(1)).is_err());
            prop_assert!(read_beat(&bytes).is_err());
        }
    }

    #[test]
    fn a_state_that_is_text_can_be_read_by_people() {
        let state = Bytes::from_static(b"{\"shards\":2}");
        let entry = Entry { view: View(1), term: Term(1), leader: "a".into(), state };
        let text = String::from_utf8(write_entry(&entry, "s").unwrap()).unwrap();
        assert!(text.contains(r#""text": "{\"shards\":2}""#), "{text}");
    }

    #[test]
    fn numbers_that_nothing_can_follow_are_damage() {
        let entry = |view, term| Entry {
            view: View(view),
            term: Term(term),
            leader: "a".into(),
            state: Bytes::new(),
        };
        for (view, term) in [(u64::MAX, 1), (1, u64::MAX)] {
            let bytes = write_entry(&entry(view, term), "s").unwrap();
            assert!(read_entry(&bytes, View(view)).unwrap_err().contains("there are no numbers"));
        }
    }

    #[test]
    fn an_entry_of_another_number_or_format_says_which() {
        let entry = Entry { view: View(3), term: Term(1), leader: "a".into(), state: Bytes::new() };
        let bytes = write_entry(&entry, "s").unwrap();
        assert_eq!(read_entry(&bytes, View(4)), Err("it is the one of view 3".to_owned()));
        let other = BeatRecord { format: 2, term: Term(1), leader: "a".into(), count: 1 };
        let bytes = sealed(other, "s").unwrap();
        assert_eq!(read_beat(&bytes), Err("its format is 2, this build reads 1".to_owned()));
    }

    #[test]
    fn an_entry_that_is_too_large_says_how_large_it_may_be() {
        let state = Bytes::from(vec![b'"'; ENTRY_BYTES_MAX / 2]);
        let entry = Entry { view: View(3), term: Term(1), leader: "a".into(), state };
        let refused = write_entry(&entry, "s").unwrap_err();
        assert!(refused.to_string().contains("at most 1048576"), "{refused}");
        assert!(!refused.may_pass());
    }
}
