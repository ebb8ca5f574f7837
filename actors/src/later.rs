//! An answer that a handler gives after it has returned, without a task that waits for it.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Message};

/// What a handler returns: answers the sender now, or when its [`Owed`] does.
pub struct Later<T>(Rc<RefCell<State<T>>>);

/// The answer that is owed. Dropped, the sender hears that the receiver is gone.
pub(crate) struct Owed<T>(Rc<RefCell<State<T>>>);

enum State<T> {
    /// The handler has not returned yet.
    Handling,
    Answered(T),
    Awaited(OneshotSender<T>),
    Over,
}

impl<T> Later<T> {
    pub(crate) fn now(answer: T) -> Self {
        Self(Rc::new(RefCell::new(State::Answered(answer))))
    }

    pub(crate) fn owed() -> (Owed<T>, Self) {
        let state = Rc::new(RefCell::new(State::Handling));
        (Owed(Rc::clone(&state)), Self(state))
    }
}

impl<T> Owed<T> {
    /// The sender may have given up; it asks again.
    pub(crate) fn answer(self, answer: T) {
        let mut state = self.0.borrow_mut();
        *state = match std::mem::replace(&mut *state, State::Over) {
            State::Handling => State::Answered(answer),
            State::Awaited(sender) => {
                let _ = sender.send(answer);
                State::Over
            }
            over => over,
        };
    }
}

impl<T> Drop for Owed<T> {
    fn drop(&mut self) {
        let mut state = self.0.borrow_mut();
        if !matches!(*state, State::Answered(_)) {
            *state = State::Over;
        }
    }
}

impl<T> fmt::Debug for Later<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Later").finish_non_exhaustive()
    }
}

impl<A: Actor, M: Message> MessageResponse<A, M> for Later<M::Result> {
    fn handle(self, _ctx: &mut A::Context, sender: Option<OneshotSender<M::Result>>) {
        let Some(sender) = sender else { return };
        let mut state = self.0.borrow_mut();
        *state = match std::mem::replace(&mut *state, State::Over) {
            State::Handling => State::Awaited(sender),
            State::Answered(answer) => {
                let _ = sender.send(answer);
                State::Over
            }
            over => over,
        };
    }
}

#[cfg(test)]
mod tests {
    use actix::{Actor, Context, Handler, Message};

    use super::{Later, Owed};

    #[derive(Message)]
    #[rtype(result = "u32")]
    enum Ask {
        Now,
        AtOnce,
        Later,
        Never,
    }

    /// Owes one answer at a time.
    #[derive(Default)]
    struct Debtor(Option<Owed<u32>>);

    impl Actor for Debtor {
        type Context = Context<Self>;
    }

    impl Handler<Ask> for Debtor {
        type Result = Later<u32>;

        fn handle(&mut self, ask: Ask, _ctx: &mut Self::Context) -> Later<u32> {
            let earlier = self.0.take();
            let (owed, later) = Later::owed();
            match ask {
                Ask::Now => {
                    if let Some(earlier) = earlier {
                        earlier.answer(1);
                    }
                    return Later::now(2);
                }
                Ask::AtOnce => owed.answer(3),
                Ask::Later => self.0 = Some(owed),
                Ask::Never => {}
            }
            later
        }
    }

    #[actix::test]
    async fn an_answer_comes_now_later_or_never() {
        let debtor = Debtor::default().start();
        let later = debtor.send(Ask::Later);
        assert_eq!(debtor.send(Ask::Now).await, Ok(2));
        assert_eq!(later.await, Ok(1));
        assert_eq!(debtor.send(Ask::AtOnce).await, Ok(3));
        assert_eq!(debtor.send(Ask::Never).await, Err(actix::MailboxError::Closed));
        let forgotten = debtor.send(Ask::Later);
        assert_eq!(debtor.send(Ask::Never).await, Err(actix::MailboxError::Closed));
        assert_eq!(forgotten.await, Err(actix::MailboxError::Closed));
    }
}
