//! What a service that follows the training of its cluster answers with: the state of the newest
//! checkpoint, until the run is in the registry.

use crate::checkpoint::Manifest;
use crate::ids::Version;
use crate::messages::checkpoint_store::FoundCheckpoint;

/// Looks without a checkpoint after which the run is over: when its last one is removed it is published, and
/// a registry that did not do that itself may not have read of it yet.
const LEAVE_AFTER: u32 = 2;

/// The run that the newest version in the registry is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Newest<'a> {
    Run(&'a str),
    /// There is no version.
    None,
    /// No registry answers.
    Unknown,
}

/// What to do after a look.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// Nothing has changed.
    Stay,
    /// The registry has it, or there is no run.
    Leave,
    Load(Box<Manifest>),
}

/// The run that is followed.
#[derive(Debug)]
pub(crate) struct Following {
    job_digest: String,
    /// The state that answers, and its run.
    held: Option<(Version, String)>,
    /// Looks in a row that have shown no checkpoint.
    nothing: u32,
}

impl Following {
    /// `job_digest`: runs of other jobs are not followed.
    pub(crate) fn new(job_digest: String) -> Self {
        Self { job_digest, held: None, nothing: 0 }
    }

    /// The checkpoint that answers.
    pub(crate) fn known(&self) -> Option<Version> {
        self.held.as_ref().map(|(version, _)| *version)
    }

    /// Whether the registry has what answers, whatever the checkpoints are.
    pub(crate) fn is_over(&self, newest: Newest<'_>) -> bool {
        self.held.as_ref().is_some_and(|(_, run)| newest == Newest::Run(run))
    }

    pub(crate) fn next(&mut self, found: FoundCheckpoint, newest: Newest<'_>) -> Next {
        let over = |run: &str| newest == Newest::Run(run);
        let held_is_over = self.is_over(newest);
        self.nothing = match found {
            // Without a registry the version before the run would answer.
            FoundCheckpoint::Nothing if newest == Newest::Unknown => 0,
            FoundCheckpoint::Nothing => self.nothing.saturating_add(1),
            _ => 0,
        };
        match found {
            FoundCheckpoint::Nothing if held_is_over || self.nothing >= LEAVE_AFTER => self.leave(),
            FoundCheckpoint::Known if held_is_over => self.leave(),
            FoundCheckpoint::Nothing | FoundCheckpoint::Known => Next::Stay,
            FoundCheckpoint::Other(manifest)
                if manifest.job_digest != self.job_digest || over(&manifest.run) =>
            {
                self.leave()
            }
            FoundCheckpoint::Other(manifest) => Next::Load(manifest),
        }
    }

    /// The state of this checkpoint answers from now on.
    pub(crate) fn loaded(&mut self, version: Version, run: String) {
        self.held = Some((version, run));
    }

    /// What answers is broken: the next look loads it again.
    pub(crate) fn forget(&mut self) {
        self.held = None;
    }

    pub(crate) fn leave(&mut self) -> Next {
        self.held = None;
        Next::Leave
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::tests::manifest;

    fn found(version: u64, run: &str) -> FoundCheckpoint {
        let manifest = Manifest { run: run.to_owned(), ..manifest(version) };
        FoundCheckpoint::Other(Box::new(manifest))
    }

    fn following() -> Following {
        let FoundCheckpoint::Other(manifest) = found(1, "") else { panic!("a manifest") };
        Following::new(manifest.job_digest)
    }

    fn held(version: u64) -> Following {
        let mut following = following();
        following.loaded(Version(version), "run".to_owned());
        following
    }

    #[test]
    fn each_newer_checkpoint_is_loaded_once() {
        let mut following = following();
        assert_eq!(following.known(), None);
        let next = following.next(found(100, "run"), Newest::None);
        assert!(
            matches!(&next, Next::Load(manifest) if manifest.version == Version(100)),
            "{next:?}"
        );
        following.loaded(Version(100), "run".to_owned());
        assert_eq!(following.known(), Some(Version(100)));
        assert_eq!(
            following.next(FoundCheckpoint::Known, Newest::Run("the one before")),
            Next::Stay
        );
        assert!(matches!(following.next(found(200, "run"), Newest::None), Next::Load(_)));
        // A rollback: what there is now is older.
        assert!(matches!(following.next(found(50, "run"), Newest::None), Next::Load(_)));
    }

    #[test]
    fn a_run_that_the_registry_has_is_left_also_where_its_checkpoints_stay() {
        for found in [FoundCheckpoint::Known, FoundCheckpoint::Nothing, found(200, "run")] {
            let mut following = held(200);
            assert_eq!(following.next(found.clone(), Newest::Run("run")), Next::Leave, "{found:?}");
            assert_eq!(following.known(), None);
        }
        assert_eq!(following().next(found(200, "run"), Newest::Run("run")), Next::Leave);
        assert!(matches!(following().next(found(200, "next"), Newest::Run("run")), Next::Load(_)));
    }

    #[test]
    fn a_run_without_checkpoints_is_left_only_once_all_registries_have_had_the_time_to_read_of_it()
    {
        let mut following = held(200);
        assert_eq!(following.next(FoundCheckpoint::Nothing, Newest::Run("before")), Next::Stay);
        assert_eq!(following.known(), Some(Version(200)));
        assert_eq!(following.next(FoundCheckpoint::Known, Newest::Run("before")), Next::Stay);
        assert_eq!(following.next(FoundCheckpoint::Nothing, Newest::Run("before")), Next::Stay);
        for _ in 0..9 {
            assert_eq!(following.next(FoundCheckpoint::Nothing, Newest::Unknown), Next::Stay);
        }
        assert_eq!(following.next(FoundCheckpoint::Nothing, Newest::Run("before")), Next::Stay);
        assert_eq!(following.next(FoundCheckpoint::Nothing, Newest::Run("before")), Next::Leave);
    }

    #[test]
    fn a_run_of_another_job_is_not_followed() {
        let mut following = Following::new("another".to_owned());
        assert_eq!(following.next(found(100, "run"), Newest::None), Next::Leave);
    }
}
