//! Memory that bytes come into and leave from: the same for all connections of a thread, one after another.
//!
//! A connection has some while something is in it. So a thousand that wait hold none, and what is read or put
//! together next lies where a core's first cache still has what was there before.

use std::cell::RefCell;

/// What a writer gathers, with the short frame after it; nothing more is read at once.
pub(super) const SPARE_BYTES: usize = 64 << 10;
/// One that is read into, one that a frame is put together in, and the same where their turns meet.
const SPARE_MAX: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for [`SPARE_BYTES`].
pub(super) fn take() -> Vec<u8> {
    let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());
    spare.ok().flatten().unwrap_or_else(|| Vec::with_capacity(SPARE_BYTES))
}

/// Takes back a buffer that is of no use any more, one of another length too.
pub(super) fn give(mut buffer: Vec<u8>) {
    buffer.clear();
    // Where the thread ends, it is simply freed.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if buffer.capacity() == SPARE_BYTES && spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_last_is_taken_next_and_a_few_are_kept() {
        let mut first = take();
        first.extend_from_slice(b"something");
        let place = first.as_ptr();
        give(first);
        let again = take();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        let many: Vec<_> = (0..2 * SPARE_MAX).map(|_| take()).collect();
        many.into_iter().for_each(give);
        give(again);
        give(Vec::with_capacity(SPARE_BYTES * 2));
        assert_eq!(SPARE.with_borrow(Vec::len), SPARE_MAX);
        assert!(SPARE.with_borrow(|spare| spare.iter().all(|of| of.capacity() == SPARE_BYTES)));
    }
}
