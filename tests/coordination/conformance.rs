//! What holds wherever the log lies. [`conforms`] makes a test of each for a place.

use bytes::Bytes;
use futures_util::future::join_all;
use gradmesh::store::coordination::{ENTRIES_KEPT, ENTRY_BYTES_MAX};
use gradmesh_actors::ids::{Term, View};
use gradmesh_actors::messages::coordination::{Appended, CoordinationError, Entry, Observed};

use crate::support::{Place, append, beat, entry, observe, renew, resign, won};

/// `conforms!(expression of a fresh place)`
macro_rules! conforms {
    ($place:expr) => {
        conforms!($place;
            an_empty_log_has_nothing_and_its_first_number_is_1,
            a_number_is_had_by_whoever_appends_it_first,
            each_of_many_writers_numbers_is_won_by_one,
            an_entry_that_is_there_already_has_won_until_another_follows,
            numbers_are_not_left_out,
            the_newest_entries_stay_and_no_number_comes_back,
            a_beat_is_the_leaders_alone_and_goes_when_it_resigns,
            a_damaged_newest_entry_is_named_with_the_way_out,
            a_damaged_older_entry_is_not_looked_at,
            a_damaged_beat_counts_as_none_until_the_next_renewal,
            any_state_comes_back_and_one_that_is_too_large_is_refused,
        );
    };
    ($place:expr; $($name:ident,)*) => {
        $(#[actix_rt::test]
        async fn $name() {
            $crate::conformance::$name(&$place).await;
        })*
    };
}
pub(crate) use conforms;

pub(crate) async fn an_empty_log_has_nothing_and_its_first_number_is_1(place: &impl Place) {
    let store = place.open();
    assert_eq!(observe(&store).await, Ok(Observed { newest: None, beat: None }));
    for wrong in [0, 2, u64::MAX] {
        let refused = append(&store, entry(wrong, 1, "a")).await.unwrap_err();
        let is_gap = matches!(refused, CoordinationError::Gap { next: View(1), got, .. }
            if got == View(wrong));
        assert!(is_gap, "{refused}");
    }
    won(&store, 1, 1, "a").await;
}

pub(crate) async fn a_number_is_had_by_whoever_appends_it_first(place: &impl Place) {
    let (a, b) = (place.open(), place.open());
    won(&a, 1, 1, "a").await;
    let first = entry(1, 1, "a");
    assert_eq!(append(&b, entry(1, 1, "b")).await, Ok(Appended::Taken(first.clone())));
    assert_eq!(observe(&b).await.unwrap().newest, Some(first));
    won(&b, 2, 2, "b").await;
    // A zombie's number is taken, whichever it thinks is next.
    let second = entry(2, 2, "b");
    assert_eq!(append(&a, entry(2, 1, "a")).await, Ok(Appended::Taken(second.clone())));
    assert_eq!(observe(&a).await.unwrap().newest, Some(second));
}

pub(crate) async fn each_of_many_writers_numbers_is_won_by_one(place: &impl Place) {
    const NUMBERS: u64 = 20;
    let writers = (0..8).map(|writer| {
        let store = place.open();
        async move {
            let (mut won, mut next) = (Vec::new(), 1);
            while next <= NUMBERS {
                match append(&store, entry(next, next, &format!("writer-{writer}"))).await {
                    Ok(Appended::Won) => won.push(next),
                    Ok(Appended::Taken(newest)) => {
                        assert!(newest.view.0 >= next);
                        next = newest.view.0;
                    }
                    // A busy machine: whether it was written shows when it is asked for again.
                    Err(error) if error.may_pass() => continue,
                    Err(error) => panic!("{error}"),
                }
                next += 1;
            }
            won
        }
    });
    let mut won: Vec<u64> = join_all(writers).await.concat();
    won.sort_unstable();
    // Who won and was followed before its answer was read is told of the newest instead.
    won.dedup_by(|a, b| {
        assert_ne!(a, b, "two have won");
        false
    });
    // The last number is followed by none.
    assert_eq!(won.last(), Some(&NUMBERS), "{won:?}");
    assert_eq!(place.views().await, (1..=NUMBERS).collect::<Vec<_>>());
}

pub(crate) async fn an_entry_that_is_there_already_has_won_until_another_follows(
    place: &impl Place,
) {
    let store = place.open();
    won(&store, 1, 1, "a").await;
    won(&place.open(), 1, 1, "a").await;
    let mut other_state = entry(1, 1, "a");
    other_state.state = Bytes::from_static(b"other");
    assert_eq!(append(&store, other_state).await, Ok(Appended::Taken(entry(1, 1, "a"))));
    won(&place.open(), 2, 2, "b").await;
    let late = append(&store, entry(1, 1, "a")).await;
    assert_eq!(late, Ok(Appended::Taken(entry(2, 2, "b"))));
}

pub(crate) async fn numbers_are_not_left_out(place: &impl Place) {
    let store = place.open();
    won(&store, 1, 1, "a").await;
    let refused = append(&store, entry(3, 1, "a")).await.unwrap_err();
    let expected = "view 3 can't be appended to coordination.store ";
    assert!(refused.to_string().starts_with(expected), "{refused}");
    assert!(refused.to_string().contains("whose next one is view 2;"), "{refused}");
    assert!(!refused.may_pass());
}

pub(crate) async fn the_newest_entries_stay_and_no_number_comes_back(place: &impl Place) {
    let store = place.open();
    let last = ENTRIES_KEPT + 6;
    for view in 1..=last {
        won(&store, view, 1, "a").await;
    }
    assert_eq!(place.views().await, (7..=last).collect::<Vec<_>>());
    for gone in [1, 6] {
        let late = append(&store, entry(gone, 9, "zombie")).await;
        assert_eq!(late, Ok(Appended::Taken(entry(last, 1, "a"))));
    }
    assert_eq!(place.views().await, (7..=last).collect::<Vec<_>>());
}

pub(crate) async fn a_beat_is_the_leaders_alone_and_goes_when_it_resigns(place: &impl Place) {
    let (a, b) = (place.open(), place.open());
    won(&a, 1, 1, "a").await;
    for count in [1, 2] {
        renew(&a, beat(1, "a", count)).await.unwrap();
        assert_eq!(observe(&b).await.unwrap().beat, Some(beat(1, "a", count)));
    }
    won(&b, 2, 2, "b").await;
    let superseded = renew(&a, beat(1, "a", 3)).await.unwrap_err();
    let leader = "b".to_owned();
    assert_eq!(superseded, CoordinationError::Superseded { own: Term(1), term: Term(2), leader });
    assert!(!superseded.may_pass());
    renew(&b, beat(2, "b", 1)).await.unwrap();
    resign(&a, 1, "a").await;
    assert_eq!(observe(&a).await.unwrap().beat, Some(beat(2, "b", 1)));
    resign(&b, 2, "b").await;
    resign(&b, 2, "b").await;
    assert_eq!(observe(&a).await.unwrap().beat, None);
}

pub(crate) async fn a_damaged_newest_entry_is_named_with_the_way_out(place: &impl Place) {
    let store = place.open();
    won(&store, 1, 1, "a").await;
    won(&store, 2, 1, "a").await;
    for damage in [&b""[..], b"{", b"{\"blake3\":\"0\",\"value\":1}"] {
        place.overwrite(2, damage).await;
        for refused in [
            observe(&store).await.unwrap_err(),
            append(&store, entry(2, 2, "b")).await.unwrap_err(),
            renew(&store, beat(1, "a", 1)).await.unwrap_err(),
        ] {
            let text = refused.to_string();
            assert!(text.contains(&place.entry_name(2)), "{text}");
            assert!(text.contains("stop all nodes of this cluster and delete it"), "{text}");
            assert!(!refused.may_pass());
        }
    }
}

pub(crate) async fn a_damaged_older_entry_is_not_looked_at(place: &impl Place) {
    let store = place.open();
    won(&store, 1, 1, "a").await;
    won(&store, 2, 1, "a").await;
    place.overwrite(1, b"{").await;
    assert_eq!(append(&store, entry(1, 2, "b")).await, Ok(Appended::Taken(entry(2, 1, "a"))));
    won(&store, 3, 1, "a").await;
}

pub(crate) async fn a_damaged_beat_counts_as_none_until_the_next_renewal(place: &impl Place) {
    let store = place.open();
    won(&store, 1, 1, "a").await;
    renew(&store, beat(1, "a", 1)).await.unwrap();
    place.overwrite_beat(b"{").await;
    assert_eq!(observe(&store).await.unwrap().beat, None);
    renew(&store, beat(1, "a", 2)).await.unwrap();
    assert_eq!(observe(&store).await.unwrap().beat, Some(beat(1, "a", 2)));
}

pub(crate) async fn any_state_comes_back_and_one_that_is_too_large_is_refused(place: &impl Place) {
    let store = place.open();
    let states = [Bytes::new(), Bytes::from_static(&[0xff, 0x00]), vec![b'x'; 900_000].into()];
    for (view, state) in (1..).zip(states) {
        let entry = Entry { state, ..entry(view, 1, "a") };
        assert_eq!(append(&store, entry.clone()).await, Ok(Appended::Won));
        assert_eq!(observe(&store).await.unwrap().newest, Some(entry));
    }
    let mut large = entry(4, 1, "a");
    large.state = vec![b'x'; ENTRY_BYTES_MAX].into();
    let refused = append(&store, large).await.unwrap_err();
    assert!(matches!(refused, CoordinationError::TooLarge { .. }), "{refused}");
    assert_eq!(observe(&store).await.unwrap().newest.unwrap().view, View(3));
}
