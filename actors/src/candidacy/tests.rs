//! The rule alone, then three candidates over a model of the store: late and lost answers, pauses,
//! crashes, clocks that run at other speeds.

use bytes::Bytes;

use super::*;

mod model;

const TTL: Duration = Duration::from_millis(1000);

fn candidacy(name: &str, place: u32) -> Candidacy {
    Candidacy::new(name, LeaseTiming::of(TTL), place)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn entry(view: u64, term: u64, leader: &str) -> Entry {
    Entry { view: View(view), term: Term(term), leader: leader.into(), state: Bytes::new() }
}

fn seen(newest: Entry, count: Option<u64>) -> Observed {
    let beat = count.map(|count| Beat { term: newest.term, leader: newest.leader.clone(), count });
    Observed { newest: Some(newest), beat }
}

fn look(candidacy: &mut Candidacy, observed: &Observed, at: Duration) -> Next {
    candidacy.observed(observed, at, at)
}

fn follow(leader: &str, term: u64) -> Next {
    Next::Follow { leader: leader.into(), term: Term(term) }
}

fn stand(view: u64, term: u64) -> Next {
    Next::Stand { view: View(view), term: Term(term) }
}

#[test]
fn the_first_place_stands_at_once_in_an_empty_log_and_the_others_wait_their_turn() {
    let nothing = Observed { newest: None, beat: None };
    assert_eq!(look(&mut candidacy("a", 0), &nothing, ms(7)), stand(1, 1));
    let mut third = candidacy("c", 2);
    assert_eq!(look(&mut third, &nothing, ms(7)), Next::Wait);
    assert_eq!(third.look_again_in(ms(7)), ms(125));
    assert_eq!(look(&mut third, &nothing, ms(131)), Next::Wait);
    assert_eq!(look(&mut third, &nothing, ms(132)), stand(1, 1));
}

#[test]
fn a_silent_leader_is_followed_for_a_lease_and_then_its_number_is_stood_for() {
    let mut b = candidacy("b", 1);
    for at in [0, 300, 600, 900] {
        assert_eq!(look(&mut b, &seen(entry(4, 2, "a"), Some(at)), ms(at)), follow("a", 2));
    }
    let silent = seen(entry(4, 2, "a"), Some(900));
    assert_eq!(look(&mut b, &silent, ms(1500)), follow("a", 2));
    assert_eq!(look(&mut b, &silent, ms(1962)), follow("a", 2));
    assert_eq!(b.look_again_in(ms(1962)), ms(1));
    assert_eq!(look(&mut b, &silent, ms(1963)), stand(5, 3));
}

#[test]
fn a_new_view_of_the_leader_is_a_sign_of_life() {
    let mut b = candidacy("b", 0);
    look(&mut b, &seen(entry(4, 2, "a"), None), ms(0));
    look(&mut b, &seen(entry(5, 2, "a"), None), ms(900));
    assert_eq!(look(&mut b, &seen(entry(5, 2, "a"), None), ms(1899)), follow("a", 2));
    assert_eq!(look(&mut b, &seen(entry(5, 2, "a"), None), ms(1900)), stand(6, 3));
}

#[test]
fn a_beat_of_a_zombie_is_no_sign_of_the_leaders_life() {
    let mut c = candidacy("c", 0);
    for at in [0, 500, 1000] {
        let zombie = Beat { term: Term(1), leader: "a".into(), count: at };
        let observed = Observed { newest: Some(entry(4, 2, "b")), beat: Some(zombie) };
        let next = look(&mut c, &observed, ms(at));
        assert_eq!(next, if at < 1000 { follow("b", 2) } else { stand(5, 3) });
    }
}

#[test]
fn a_beat_that_a_zombie_overwrote_is_not_one_that_was_taken_away() {
    let mut c = candidacy("c", 0);
    look(&mut c, &seen(entry(4, 2, "b"), Some(1)), ms(0));
    let zombie = Beat { term: Term(1), leader: "a".into(), count: 7 };
    let overwritten = Observed { newest: Some(entry(4, 2, "b")), beat: Some(zombie) };
    assert_eq!(look(&mut c, &overwritten, ms(10)), follow("b", 2));
    assert_eq!(look(&mut c, &overwritten, ms(999)), follow("b", 2));
}

#[test]
fn a_leader_whose_process_is_gone_is_waited_for_one_beat_only() {
    let mut b = candidacy("b", 0);
    let silent = seen(entry(4, 2, "a"), Some(9));
    look(&mut b, &silent, ms(0));
    b.suspect(ms(10));
    assert_eq!(look(&mut b, &silent, ms(249)), follow("a", 2));
    assert_eq!(look(&mut b, &silent, ms(250)), stand(5, 3));
}

#[test]
fn a_beat_after_a_suspicion_clears_it() {
    let mut b = candidacy("b", 0);
    look(&mut b, &seen(entry(4, 2, "a"), Some(1)), ms(0));
    b.suspect(ms(10));
    look(&mut b, &seen(entry(4, 2, "a"), Some(2)), ms(20));
    assert_eq!(look(&mut b, &seen(entry(4, 2, "a"), Some(2)), ms(900)), follow("a", 2));
}

#[test]
fn a_beat_that_was_taken_away_lets_the_next_candidate_stand_at_once() {
    let mut b = candidacy("b", 0);
    look(&mut b, &seen(entry(4, 2, "a"), Some(1)), ms(0));
    assert_eq!(look(&mut b, &seen(entry(4, 2, "a"), None), ms(5)), stand(5, 3));
    // Without having seen it there, nobody knows whether the leader has only just begun.
    let mut late = candidacy("c", 0);
    assert_eq!(look(&mut late, &seen(entry(4, 2, "a"), None), ms(5)), follow("a", 2));
}

#[test]
fn a_leader_that_was_started_again_takes_its_own_lease_over_at_once() {
    let mut again = candidacy("a", 2);
    assert_eq!(look(&mut again, &seen(entry(4, 2, "a"), Some(1)), ms(0)), stand(5, 3));
}

#[test]
fn a_process_of_the_same_name_that_began_later_is_followed_and_not_fought() {
    let mut old = candidacy("a", 0);
    assert_eq!(look(&mut old, &Observed { newest: None, beat: None }, ms(0)), stand(1, 1));
    old.won(&entry(1, 1, "a"), ms(0));
    // The one that was started beside it takes its lease over at once, as one that was started again would.
    let mut new = candidacy("a", 0);
    assert_eq!(look(&mut new, &seen(entry(1, 1, "a"), Some(3)), ms(100)), stand(2, 2));
    new.won(&entry(2, 2, "a"), ms(100));
    for at in [200, 1100, 2000] {
        let beats = seen(entry(2, 2, "a"), Some(at));
        assert_eq!(look(&mut old, &beats, ms(at)), follow("a", 2));
        assert_eq!(look(&mut new, &beats, ms(at)), Next::Lead { term: Term(2) });
    }
    let gone = seen(entry(2, 2, "a"), None);
    assert_eq!(look(&mut old, &gone, ms(2100)), stand(3, 3));
}

#[test]
fn a_term_whose_append_was_never_answered_is_ones_own() {
    let mut a = candidacy("a", 0);
    assert_eq!(look(&mut a, &Observed { newest: None, beat: None }, ms(0)), stand(1, 1));
    a.tries(Term(1));
    assert_eq!(look(&mut a, &seen(entry(1, 1, "a"), None), ms(10)), stand(2, 2));
}

/// As after an append whose answer is still under way when the store is looked at again.
#[test]
fn a_term_that_was_never_tried_is_another_process_of_the_same_name() {
    let mut a = candidacy("a", 0);
    look(&mut a, &Observed { newest: None, beat: None }, ms(0));
    a.tries(Term(1));
    assert_eq!(look(&mut a, &seen(entry(1, 1, "a"), None), ms(10)), stand(2, 2));
    a.won(&entry(1, 1, "a"), ms(0));
    assert_eq!(look(&mut a, &seen(entry(2, 2, "a"), Some(1)), ms(100)), follow("a", 2));
}

#[test]
fn a_name_that_another_process_may_have_is_ones_own_after_two_beats_of_silence() {
    let mut a = candidacy("a", 0).with_namesakes();
    let own = seen(entry(4, 2, "a"), Some(9));
    assert_eq!(look(&mut a, &own, ms(0)), Next::Wait);
    assert_eq!(a.look_again_in(ms(0)), TTL / 4);
    assert_eq!(look(&mut a, &own, ms(499)), Next::Wait);
    assert_eq!(look(&mut a, &own, ms(500)), stand(5, 3));
}

#[test]
fn a_leader_of_the_same_name_that_lives_is_followed_from_its_first_beat_on() {
    let mut a = candidacy("a", 0).with_namesakes();
    assert_eq!(look(&mut a, &seen(entry(4, 2, "a"), Some(9)), ms(0)), Next::Wait);
    let beats = |count| seen(entry(4, 2, "a"), Some(count));
    assert_eq!(look(&mut a, &beats(10), ms(250)), follow("a", 2));
    assert_eq!(look(&mut a, &beats(10), ms(1249)), follow("a", 2));
    assert_eq!(look(&mut a, &beats(10), ms(1250)), stand(5, 3), "it has ended");
}

/// It missed two beats, and was there all the same.
#[test]
fn a_leader_of_the_same_name_that_was_found_alive_when_it_was_to_be_succeeded_is_followed() {
    let mut a = candidacy("a", 0).with_namesakes();
    let silent = seen(entry(4, 2, "a"), Some(9));
    look(&mut a, &silent, ms(0));
    assert_eq!(look(&mut a, &silent, ms(500)), stand(5, 3));
    a.tries(Term(3));
    a.lost(&entry(5, 2, "a"), ms(510));
    let alive = seen(entry(5, 2, "a"), Some(10));
    assert_eq!(look(&mut a, &alive, ms(520)), follow("a", 2));
    assert_eq!(look(&mut a, &alive, ms(1519)), follow("a", 2));
    assert_eq!(look(&mut a, &alive, ms(1520)), stand(6, 3));
}

#[test]
fn two_of_one_name_that_begin_together_are_a_leader_and_a_follower() {
    let mut a = candidacy("a", 0).with_namesakes();
    let nothing = Observed { newest: None, beat: None };
    assert_eq!(look(&mut a, &nothing, ms(0)), stand(1, 1));
    a.tries(Term(1));
    a.lost(&entry(1, 1, "a"), ms(5));
    assert_eq!(look(&mut a, &seen(entry(1, 1, "a"), Some(1)), ms(10)), follow("a", 1));
}

#[test]
fn who_could_not_write_stands_again_a_beat_later() {
    let mut a = candidacy("a", 0);
    let own = seen(entry(4, 2, "a"), None);
    assert_eq!(look(&mut a, &own, ms(0)), stand(5, 3));
    a.tries(Term(3));
    a.not_taken(ms(3));
    assert_eq!(look(&mut a, &own, ms(252)), Next::Wait);
    assert_eq!(a.look_again_in(ms(252)), ms(1));
    assert_eq!(look(&mut a, &own, ms(253)), stand(5, 3));
}

#[test]
fn who_could_not_look_for_a_lease_counts_the_silence_from_now() {
    let mut b = candidacy("b", 0);
    look(&mut b, &seen(entry(4, 2, "a"), Some(1)), ms(0));
    assert_eq!(look(&mut b, &seen(entry(4, 2, "a"), Some(1)), ms(5000)), follow("a", 2));
    assert_eq!(look(&mut b, &seen(entry(4, 2, "a"), Some(1)), ms(6000)), stand(5, 3));
}

#[test]
fn a_slow_answer_is_no_silence_and_its_change_counts_from_when_it_was_heard_of() {
    let mut b = candidacy("b", 0);
    let (first, second) = (seen(entry(4, 2, "a"), Some(1)), seen(entry(4, 2, "a"), Some(2)));
    look(&mut b, &first, ms(0));
    assert_eq!(b.observed(&first, ms(10), ms(1000)), follow("a", 2));
    assert_eq!(b.observed(&second, ms(1001), ms(1900)), follow("a", 2));
    assert_eq!(b.observed(&second, ms(2100), ms(2101)), follow("a", 2));
    assert_eq!(b.observed(&second, ms(2900), ms(2901)), stand(5, 3));
}

#[test]
fn a_leader_that_could_not_look_for_longer_than_a_lease_goes_on_where_nobody_has_stood() {
    let mut a = candidacy("a", 0);
    assert_eq!(a.beat(), None);
    a.won(&entry(1, 1, "a"), ms(100));
    let next = look(&mut a, &seen(entry(1, 1, "a"), Some(3)), ms(1600));
    assert_eq!((next, a.leads_in()), (Next::Lead { term: Term(1) }, Some(Term(1))));
}

#[test]
fn each_beat_has_another_count() {
    let mut a = candidacy("a", 0);
    a.won(&entry(1, 1, "a"), ms(0));
    let first = a.beat().unwrap();
    a.won(&entry(2, 1, "a"), ms(5));
    assert_ne!(a.beat().unwrap().count, first.count);
}

#[test]
fn a_leader_that_was_superseded_leads_no_more_however_late_its_answers_come() {
    let superseded = |end: fn(&mut Candidacy)| {
        let mut a = candidacy("a", 0);
        a.won(&entry(1, 1, "a"), ms(0));
        end(&mut a);
        a.leads_in() == Some(Term(1))
    };
    assert!(superseded(|_| ()));
    assert!(!superseded(|a| a.lost(&entry(2, 2, "b"), ms(40))));
    assert!(!superseded(|a| drop(look(a, &seen(entry(2, 2, "b"), None), ms(40)))));
    assert!(!superseded(|a| {
        look(a, &seen(entry(3, 2, "b"), None), ms(40));
        a.won(&entry(2, 1, "a"), ms(30));
    }));
    // An answer that was overtaken by the victory changes nothing.
    assert!(superseded(|a| drop(look(a, &Observed { newest: None, beat: None }, ms(40)))));
}

#[test]
fn a_leader_without_rivals_asks_its_store_twice_a_lease_and_others_four_times() {
    for (rivals, namesakes, after) in [(0, false, TTL / 2), (1, false, TTL / 4), (0, true, TTL / 4)]
    {
        let timing = LeaseTiming::for_candidate(TTL, rivals, namesakes);
        let mut a = Candidacy::new("a", timing, 0);
        a.won(&entry(1, 1, "a"), ms(0));
        assert_eq!(a.look_again_in(ms(10)), after);
        // It comes in time to say what was so all the while.
        assert_eq!(
            look(&mut a, &seen(entry(1, 1, "a"), Some(1)), ms(10) + after),
            Next::Lead { term: Term(1) }
        );
    }
}

#[test]
fn a_candidate_without_rivals_takes_the_place_of_a_name_that_is_gone() {
    let mut a = Candidacy::new("a", LeaseTiming::for_candidate(TTL, 0, false), 0);
    let (mut now, log) = (ms(0), seen(entry(1, 1, "renamed"), Some(7)));
    while !matches!(a.observed(&log, now, now + ms(20)), Next::Stand { .. }) {
        now += ms(20);
        now += a.look_again_in(now);
        assert!(now < 2 * TTL, "it never stands");
    }
    assert!(now >= TTL);
}

#[test]
fn a_resignation_names_the_term_that_was_led() {
    assert_eq!(candidacy("a", 0).resign(), None);
    let mut a = candidacy("a", 0);
    a.won(&entry(3, 2, "a"), ms(0));
    assert_eq!(a.resign(), Some(Resign { term: Term(2), leader: "a".into() }));
}

#[test]
fn a_leader_that_gives_way_names_its_term_and_leads_no_more() {
    let mut a = candidacy("a", 0);
    assert_eq!(a.give_way(ms(0)), None);
    a.won(&entry(3, 2, "a"), ms(0));
    assert_eq!(a.give_way(ms(100)), Some(Resign { term: Term(2), leader: "a".into() }));
    // A view that was on its way to the log.
    a.won(&entry(4, 2, "a"), ms(120));
    assert_eq!((a.leads_in(), a.beat()), (None, None));
}

#[test]
fn who_gave_way_stands_again_only_when_nobody_has_for_three_leases() {
    let mut a = candidacy("a", 0);
    a.won(&entry(3, 2, "a"), ms(0));
    a.give_way(ms(100));
    for at in [100, 1000, 2000, 3099] {
        assert_eq!(look(&mut a, &seen(entry(3, 2, "a"), None), ms(at)), Next::Wait);
    }
    assert_eq!(a.look_again_in(ms(3099)), ms(1));
    assert_eq!(look(&mut a, &seen(entry(3, 2, "a"), None), ms(3100)), stand(4, 3));
    a.won(&entry(4, 3, "a"), ms(3100));
    assert_eq!(a.leads_in(), Some(Term(3)));
}

#[test]
fn who_gave_way_to_another_candidate_follows_and_succeeds_it_like_any_other() {
    let mut a = candidacy("a", 0);
    a.won(&entry(3, 2, "a"), ms(0));
    a.give_way(ms(100));
    let other = seen(entry(4, 3, "b"), Some(1));
    assert_eq!(look(&mut a, &other, ms(200)), follow("b", 3));
    assert_eq!(look(&mut a, &other, ms(1100)), follow("b", 3));
    assert_eq!(look(&mut a, &other, ms(1200)), stand(5, 4));
}
