//! Requests of one caller that actors work on.

use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::route::Answering;
use crate::wire::Frame;

/// Asking so few for their answers, whoever was woken, takes less time than keeping an account of who was.
const FEW: usize = 4;

/// Their answers to come.
#[derive(Default)]
pub(super) struct UnderWay {
    few: Vec<Answering>,
    more: FuturesUnordered<Answering>,
}

impl UnderWay {
    pub(super) fn len(&self) -> usize {
        self.few.len() + self.more.len()
    }

    pub(super) fn push(&mut self, answering: Answering) {
        // Else those that come would be asked before those that wait, for as long as some come.
        if self.more.is_empty() && self.few.len() < FEW {
            self.few.push(answering);
        } else {
            self.more.push(answering);
        }
    }

    pub(super) fn clear(&mut self) {
        self.few.clear();
        self.more.clear();
    }

    /// An answer that is there. What was pushed since is asked too, the first time.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Frame> {
        for (at, answering) in self.few.iter_mut().enumerate() {
            if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
                drop(self.few.remove(at));
                return Poll::Ready(answer);
            }
        }
        match self.more.poll_next_unpin(cx) {
            Poll::Ready(Some(answer)) => Poll::Ready(answer),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::poll_fn;
    use tokio::sync::oneshot;

    use super::*;
    use crate::wire::Class;

    #[tokio::test]
    async fn what_waits_is_asked_however_many_come_after_it() {
        let mut under_way = UnderWay::default();
        let ready = |number| async move { Frame::bare(Class::Reply, number) }.boxed_local();
        (0..2 * FEW as u64).for_each(|number| under_way.push(ready(number)));
        let mut got = Vec::new();
        for number in 0..2 * FEW as u64 {
            got.push(poll_fn(|cx| under_way.poll_next(cx)).await.request);
            under_way.push(ready(100 + number));
        }
        assert_eq!(got, (0..2 * FEW as u64).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn each_answer_comes_once_whatever_others_do() {
        let mut under_way = UnderWay::default();
        let mut asked: Vec<Option<oneshot::Sender<u64>>> = Vec::new();
        for _ in 0..3 * FEW {
            let (sender, answer) = oneshot::channel();
            asked.push(Some(sender));
            let answering = async move { Frame::bare(Class::Reply, answer.await.unwrap()) };
            under_way.push(answering.boxed_local());
        }
        assert!(poll_fn(|cx| under_way.poll_next(cx)).now_or_never().is_none());
        // The last of them first, one by one, then all that are left.
        for at in (2 * FEW..3 * FEW).rev().chain([1, FEW]) {
            asked[at].take().unwrap().send(at as u64).unwrap();
            assert_eq!(poll_fn(|cx| under_way.poll_next(cx)).await.request, at as u64);
        }
        let mut left = Vec::new();
        for (at, sender) in asked.into_iter().enumerate() {
            if let Some(sender) = sender {
                sender.send(at as u64).unwrap();
                left.push(at as u64);
            }
        }
        let mut got = Vec::new();
        while under_way.len() > 0 {
            got.push(poll_fn(|cx| under_way.poll_next(cx)).await.request);
        }
        got.sort_unstable();
        assert_eq!(got, left);
    }
}
