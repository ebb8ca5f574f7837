//! The whole flat space at one version, put together from its shards as they come.

use std::sync::Arc;

use futures_util::TryStreamExt;
use futures_util::stream::FuturesUnordered;

use crate::allocation::{NoMemory, zeros};
use crate::exchange::Halt;
use crate::messages::Values;
use crate::plan::JobPlan;

/// A version of which some shards are there.
#[derive(Debug)]
pub(super) struct Assembly {
    plan: Arc<JobPlan>,
    whole: Whole,
    /// Shards that are there.
    placed: usize,
}

#[derive(Debug)]
enum Whole {
    /// Of one shard: as it came.
    Shard(Values),
    Copied(Vec<f32>),
}

impl Assembly {
    /// `before`: the memory of an earlier version, for fresh memory costs as much as the copies.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(super) fn new(plan: Arc<JobPlan>, before: Option<Vec<f32>>) -> Result<Self, NoMemory> {
        let len = plan.layout.len();
        let whole = match plan.shards.len() {
            1 => Whole::Shard(Values::default()),
            _ => Whole::Copied(
                before.filter(|whole| whole.len() == len).map_or_else(|| zeros(len), Ok)?,
            ),
        };
        Ok(Self { plan, whole, placed: 0 })
    }

    /// # Errors
    /// They are not as many as the shard has.
    pub(super) fn place(&mut self, shard: usize, values: Values) -> Result<(), String> {
        let (id, range) = self.plan.shards.iter().nth(shard).ok_or("no such shard")?;
        let (expected, got) = (range.len(), values.len());
        if got != expected {
            return Err(format!("{id} answered with {got} values, it has {expected}"));
        }
        match &mut self.whole {
            Whole::Shard(whole) => *whole = values,
            Whole::Copied(whole) => whole[range].copy_from_slice(&values),
        }
        self.placed += 1;
        Ok(())
    }

    /// The version.
    ///
    /// # Errors
    /// Not each shard was placed.
    pub(super) fn whole(self) -> Result<Values, String> {
        let (placed, shards) = (self.placed, self.plan.shards.len());
        if placed != shards {
            return Err(format!("{placed} of {shards} shards have answered"));
        }
        Ok(match self.whole {
            Whole::Shard(whole) => whole,
            Whole::Copied(whole) => Arc::new(whole),
        })
    }

    /// Places each shard when its answer comes, while the others are still computed or on their way.
    /// `answers`: of the shards in their order.
    pub(super) async fn of<A>(mut self, answers: impl Iterator<Item = A>) -> Result<Values, Halt>
    where
        A: Future<Output = Result<Values, Halt>>,
    {
        let mut answers = answers.enumerate();
        if self.plan.shards.len() == 1
            && let Some((shard, only)) = answers.next()
        {
            self.place(shard, only.await?).map_err(Halt::Failed)?;
        }
        let mut answers: FuturesUnordered<_> =
            answers.map(|(shard, answer)| async move { Ok((shard, answer.await?)) }).collect();
        while let Some((shard, values)) = answers.try_next().await? {
            self.place(shard, values).map_err(Halt::Failed)?;
        }
        self.whole().map_err(Halt::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{job, offer};

    fn plan(shards: u32) -> Arc<JobPlan> {
        Arc::new(JobPlan::new(offer(job()), shards).unwrap())
    }

    #[test]
    fn shards_lie_in_their_order_in_whichever_they_come() {
        let plan = plan(3);
        let all: Vec<f32> = (0..plan.layout.len()).map(|at| at as f32).collect();
        let before = vec![f32::NAN; all.len()];
        let place = before.as_ptr();
        let mut assembly = Assembly::new(Arc::clone(&plan), Some(before)).unwrap();
        for shard in [2, 0, 1] {
            let range = plan.shards.iter().nth(shard).unwrap().1;
            assembly.place(shard, Arc::new(all[range].to_vec())).unwrap();
        }
        let whole = assembly.whole().unwrap();
        assert_eq!(*whole, all);
        assert_eq!(whole.as_ptr(), place, "not in the memory of the version before");
    }

    #[test]
    fn the_only_shard_is_taken_as_it_came() {
        let values = Arc::new(vec![1.0; 600]);
        let mut assembly = Assembly::new(plan(1), None).unwrap();
        assembly.place(0, Arc::clone(&values)).unwrap();
        assert!(Arc::ptr_eq(&assembly.whole().unwrap(), &values));
    }

    #[test]
    fn a_shard_of_another_length_is_refused() {
        for (shards, shard) in [(1, 0), (2, 1)] {
            let plan = plan(shards);
            let expected = plan.shards.iter().nth(shard).unwrap().1.len();
            let mut assembly = Assembly::new(plan, None).unwrap();
            let refused = assembly.place(shard, Arc::new(vec![0.0; 7])).unwrap_err();
            let expected = format!("answered with 7 values, it has {expected}");
            assert!(refused.ends_with(&expected), "{refused}");
            assert!(assembly.whole().unwrap_err().starts_with("0 of"));
        }
    }
}
