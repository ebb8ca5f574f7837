//! How an actor is replaced by a fresh one without losing its mailbox.
//!
//! actix keeps the actor of a mailbox for as long as the mailbox lives: nobody but the actor
//! itself, in `Supervised::restarting`, can put another in its place. So a supervisor lays the
//! fresh actor ready for the length of that one call, and the actor takes it:
//!
//! ```
//! # use actix::{Actor, Context, Supervised};
//! # struct Counter { seen: u64 }
//! # impl Actor for Counter { type Context = Context<Self>; }
//! impl Supervised for Counter {
//!     fn restarting(&mut self, _ctx: &mut Context<Self>) {
//!         gradmesh_actors::restart::replace(self);
//!     }
//! }
//! ```

use std::any::Any;
use std::cell::RefCell;

thread_local! {
    /// Empty but for the length of one call of [`offer`].
    static FRESH: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

/// Puts the actor that the supervisor has made in the place of `actor`, all fields of it.
///
/// Does nothing outside of a supervisor's restart.
pub fn replace<A: 'static>(actor: &mut A) {
    let fresh = FRESH.with_borrow_mut(Option::take);
    if let Some(Ok(fresh)) = fresh.map(Box::<dyn Any>::downcast::<A>) {
        *actor = *fresh;
    }
}

/// Runs `restart` with `fresh` laid ready; the second value is whether it was taken.
///
/// Not for actors: a supervisor calls it around `ContextFut::restart`.
pub fn offer<A: 'static, R>(fresh: A, restart: impl FnOnce() -> R) -> (R, bool) {
    /// Takes the rest away also where `restart` panics.
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            drop(FRESH.take());
        }
    }

    let clear = Clear;
    FRESH.set(Some(Box::new(fresh)));
    let result = restart();
    let taken = FRESH.with_borrow(Option::is_none);
    drop(clear);
    (result, taken)
}

#[cfg(test)]
mod tests {
    use super::{offer, replace};

    #[test]
    fn the_fresh_value_takes_the_place_of_the_old_one() {
        let mut actor = String::from("old");
        assert_eq!(offer(String::from("fresh"), || replace(&mut actor)), ((), true));
        assert_eq!(actor, "fresh");
    }

    #[test]
    fn nothing_is_replaced_outside_of_a_restart() {
        let mut actor = String::from("old");
        assert_eq!(offer(String::from("fresh"), || ()), ((), false));
        replace(&mut actor);
        assert_eq!(actor, "old");
    }
}
