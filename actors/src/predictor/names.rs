//! What names of versions mean: asked of a registry, and remembered for when none answers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::Recipient;
use tracing::{info, warn};

use crate::log_seen::{LogFeed, entries};
use crate::messages::{FindError, FindModel, Resolved, ask};
use crate::recent::Recent;
use crate::version::VersionRef;

/// Names whose last answer of the registry is remembered: a few for each model in memory.
const NAMES_MAX: usize = 4096;

/// The longest wait for the registry to resolve a name, which it does from memory.
const FIND_LIMIT: Duration = Duration::from_secs(1);

/// A model, and one of its versions by name.
pub(super) type Name = (String, VersionRef);

/// The version that a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) version: u64,
    /// What it takes in memory.
    pub(super) bytes: u64,
}

/// Changed between two awaits only, on one thread.
#[derive(Debug)]
pub(super) struct Names {
    find: Recipient<FindModel>,
    /// Of the registry in this process, if there is one.
    log: Option<LogFeed>,
    /// What a name meant when the registry was asked last, and how long its log was before that.
    known: RefCell<Recent<Name, (Meaning, Option<u64>)>>,
    /// Whether no registry answered last time; it is reported once a process, and nobody waits for
    /// one then.
    away: Arc<AtomicBool>,
    /// Whether somebody is finding out if it is back.
    asking: Cell<bool>,
}

impl Names {
    pub(super) fn new(
        find: Recipient<FindModel>,
        log: Option<LogFeed>,
        away: Arc<AtomicBool>,
    ) -> Self {
        Self {
            find,
            log,
            known: RefCell::new(Recent::new(NAMES_MAX)),
            away,
            asking: Cell::new(false),
        }
    }

    /// The version that the name means now. Where no registry answers it is the one that the
    /// name meant last, for as long as that lasts: whoever can't reach a registry can't publish or
    /// delete either, so an old answer is worth more than none. Nobody waits for a registry that
    /// was silent last time; one request at a time finds out whether it is back.
    pub(super) async fn resolve(
        self: &Rc<Self>,
        name: &Name,
    ) -> Result<(Meaning, Resolved), FindError> {
        let log = self.log.as_ref().and_then(entries);
        let known = self.known.borrow().get(name).copied();
        if let Some((meaning, then)) = known {
            if log.is_some() && then == log {
                return Ok((meaning, Resolved::Now));
            }
            // A registry in this process that has read its log is asked whatever others do.
            if log.is_none() && self.away.load(Ordering::Relaxed) {
                self.find_out(name.clone());
                return Ok((meaning, Resolved::Before));
            }
        }
        match self.ask(name.clone(), log).await {
            Err(error) if !matches!(error, FindError::Catalog(_)) => {
                known.map(|(meaning, _)| (meaning, Resolved::Before)).ok_or(error)
            }
            found => Ok((found?, Resolved::Now)),
        }
    }

    /// Asks again beside; whatever it says is remembered for those who come next.
    fn find_out(self: &Rc<Self>, name: Name) {
        if !self.asking.replace(true) {
            let names = self.clone();
            tokio::task::spawn_local(async move {
                let _ = names.ask(name, None).await;
                names.asking.set(false);
            });
        }
    }

    async fn ask(&self, name: Name, log: Option<u64>) -> Result<Meaning, FindError> {
        let find = FindModel { model: name.0.clone(), version: name.1.clone() };
        match ask(&self.find, find, FIND_LIMIT).await {
            Ok(found) => {
                self.back();
                let meaning = Meaning { version: found.version, bytes: found.memory_bytes() };
                let mut known = self.known.borrow_mut();
                known.insert(name.clone(), (meaning, log));
                // Its number means it too, should the registry be away when that is asked for.
                let number = (name.0, VersionRef::Number(found.version));
                if number.1 != name.1 && known.get(&number).is_none() {
                    known.insert(number, (meaning, None));
                }
                Ok(meaning)
            }
            Err(error @ FindError::Catalog(_)) => {
                self.back();
                self.known.borrow_mut().remove(&name);
                Err(error)
            }
            Err(error) => {
                if !self.away.swap(true, Ordering::Relaxed) {
                    warn!(%error, "no registry answers; names mean what they meant last");
                }
                Err(error)
            }
        }
    }

    fn back(&self) {
        // Most of the time nobody has to write to what all threads read.
        if self.away.load(Ordering::Relaxed) && self.away.swap(false, Ordering::Relaxed) {
            info!("a registry answers again");
        }
    }
}
