//! The norm over all shards: what each hands in, and where the first shard adds it up.

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{AsyncContext, Context, Handler, Recipient, ResponseFuture};
use tokio::sync::oneshot;

use super::{ANSWER_MAX, ParameterServer, RETRY_AFTER};
use crate::ids::{ShardId, Version};
use crate::messages::{CombineNorm, CombinedNorm, LinkError, NormError, NormPart, ask};
use crate::norm::NormRounds;
use crate::planted::{self, Bug};
use crate::shard::Shard;

impl ParameterServer {
    pub(super) fn stop_combining(&mut self, ctx: &mut Context<Self>) {
        if let Some(combining) = self.combining.take() {
            ctx.cancel_future(combining);
        }
    }

    /// Asks for the norm of the step in flight. Before that it tells, once a view, those of the steps
    /// before to a first shard that may have taken another one's place and lack them.
    pub(super) fn tell_norms(&mut self, ctx: &mut Context<Self>) {
        let Some(shard) = &self.shard else { return };
        let Some(norm) = self.links.norm.get(self.first.0 as usize).cloned() else { return };
        let (id, step, sums) = (self.copy.shard, shard.version(), shard.block_sums());
        let asks = sums.is_some();
        let forgets = self.norms_told || planted::is(Bug::NormForgotten);
        let known = shard.norms().filter(|_| !forgets);
        let known = known.map(|(step, sum)| (step, NormPart::Whole(sum)));
        let asked = sums.map(|sums| (step, NormPart::Sums(sums)));
        let request = |(step, part)| CombineNorm { step, shard: id, part };
        let requests: Vec<_> = known.chain(asked).map(request).collect();
        self.stop_combining(ctx);
        if requests.is_empty() {
            return;
        }
        let view = self.view;
        let answer = combine(norm, requests).into_actor(self);
        let combining = ctx.spawn(answer.map(move |sum, server, ctx| {
            if server.view != view {
                return;
            }
            server.norms_told = true;
            if asks && server.awaits_norm(step) {
                server.apply(sum, ctx);
            }
        }));
        self.combining = Some(combining);
    }

    /// A rollback may have come between.
    fn awaits_norm(&self, step: Version) -> bool {
        let awaits = |shard: &Shard| shard.version() == step && shard.block_sums().is_some();
        self.is_primary() && self.shard.as_ref().is_some_and(awaits)
    }
}

impl Handler<CombineNorm> for ParameterServer {
    type Result = ResponseFuture<Result<CombinedNorm, NormError>>;

    fn handle(&mut self, combine: CombineNorm, _ctx: &mut Self::Context) -> Self::Result {
        let done = |answer| Box::pin(std::future::ready(answer)) as Self::Result;
        let (Some(norms), Some(shard)) = (&mut self.norms, &self.shard) else {
            return done(Err(NormError::NotReady));
        };
        let (CombineNorm { step, shard: from, part }, at) = (combine, shard.version());
        // Dropped, they hear that nobody will answer.
        self.norm_waiting.retain(|(of, _), _| NormRounds::is_open(at, *of));
        let sum = match norms.add(at, step, from, part) {
            Ok(sum) => sum,
            Err(refused) => return done(Err(refused)),
        };
        if let Some(sum_of_squares) = sum {
            let combined = CombinedNorm { sum_of_squares };
            let of_step = |(of, _): &(Version, ShardId), _: &mut _| *of == step;
            for (_, waiting) in self.norm_waiting.extract_if(.., of_step) {
                let _ = waiting.send(Ok(combined));
            }
            return done(Ok(combined));
        }
        let (answer, answered) = oneshot::channel();
        // Of another step the same shard may wait still: its copies come late, and in any order.
        if let Some(earlier) = self.norm_waiting.insert((step, from), answer) {
            let _ = earlier.send(Err(NormError::Superseded));
        }
        Box::pin(async move { answered.await.unwrap_or(Err(NormError::Link(LinkError::Closed))) })
    }
}

/// Makes each request until it is answered; the last one's sum. Ends with the actor, or is ignored
/// after a rollback.
async fn combine(norm: Recipient<CombineNorm>, requests: Vec<CombineNorm>) -> Option<f64> {
    let mut sum = None;
    for request in requests {
        sum = Some(combine_one(&norm, request).await);
    }
    sum
}

async fn combine_one(norm: &Recipient<CombineNorm>, request: CombineNorm) -> f64 {
    loop {
        match ask(norm, request.clone(), ANSWER_MAX).await {
            Ok(combined) => return combined.sum_of_squares,
            Err(_) if planted::is(Bug::OwnNorm) => {
                return match request.part {
                    NormPart::Sums(sums) => sums.iter().sum(),
                    NormPart::Whole(sum) => sum,
                };
            }
            Err(_) => tokio::time::sleep(RETRY_AFTER).await,
        }
    }
}
