//! Requests that name no version: which one they get, and which one else is asked.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::Recipient;
use tokio::task::spawn_local;

use super::Shared;
use super::waiting::{Asked, Reply};
use crate::log_seen::{LogFeed, entries};
use crate::messages::{FindError, FindRoute, PredictError, ask};
use crate::recent::Recent;
use crate::request_queue::Priority;
use crate::route::Route;
use crate::shadows::Comparison;

/// Models whose routes are remembered.
const ROUTES_MAX: usize = 4096;

/// The longest wait for the registry to say a route, which it does from memory.
const FIND_LIMIT: Duration = Duration::from_secs(1);

/// A route if there is one, and how long the registry's log was before that was asked.
type Known = (Option<Rc<Route>>, Option<u64>);

/// Changed between two awaits only, on one thread.
#[derive(Debug)]
pub(super) struct Routes {
    /// Without it no model has a route.
    find: Option<Recipient<FindRoute>>,
    log: Option<LogFeed>,
    known: RefCell<Recent<String, Known>>,
    away: Arc<AtomicBool>,
    /// Requests that wait for the route of their model, of which somebody asks.
    waiting: RefCell<BTreeMap<String, Vec<Asked>>>,
    /// Requests without a key of their own.
    keyless: Cell<u64>,
}

impl Routes {
    pub(super) fn new(
        find: Option<Recipient<FindRoute>>,
        log: Option<LogFeed>,
        away: Arc<AtomicBool>,
    ) -> Self {
        let (waiting, keyless) = (RefCell::default(), Cell::new(0));
        Self { find, log, known: RefCell::new(Recent::new(ROUTES_MAX)), away, waiting, keyless }
    }

    /// The route, if nobody has to be asked.
    fn now(&self, model: &str) -> Option<Option<Rc<Route>>> {
        if self.find.is_none() {
            return Some(None);
        }
        let known = self.known.borrow();
        let (route, then) = known.get(model)?;
        let log = self.log.as_ref().and_then(entries);
        let holds = match log {
            Some(_) => *then == log,
            None => self.away.load(Ordering::Relaxed),
        };
        holds.then(|| route.clone())
    }

    /// Asks for it. Where no registry answers, it is the one that was known last.
    async fn find(&self, model: &str) -> Option<Rc<Route>> {
        let log = self.log.as_ref().and_then(entries);
        let find = FindRoute { model: model.to_owned() };
        match ask(self.find.as_ref()?, find, FIND_LIMIT).await {
            Ok(found) => {
                let route = found.route.map(Rc::new);
                self.known.borrow_mut().insert(model.to_owned(), (route.clone(), log));
                route
            }
            // Whoever looks for the version says so.
            Err(FindError::Catalog(_)) => None,
            Err(_) => self.known.borrow().get(model).and_then(|(route, _)| route.clone()),
        }
    }

    /// The key of a request; one of its own where it has none.
    fn key(&self, key: String) -> Vec<u8> {
        if !key.is_empty() {
            return key.into_bytes();
        }
        self.keyless.set(self.keyless.get().wrapping_add(1));
        self.keyless.get().to_le_bytes().to_vec()
    }
}

impl Shared {
    /// Puts a request in the queue of the version that it gets.
    pub(super) fn route(self: &Rc<Self>, asked: Asked) {
        if asked.request.routed.is_none() {
            return self.enqueue(asked);
        }
        if let Some(route) = self.routes.now(&asked.request.model) {
            return self.routed(asked, route.as_deref());
        }
        let (model, limit) = (asked.request.model.clone(), self.batching.queue);
        let mut waiting = self.routes.waiting.borrow_mut();
        match waiting.get_mut(&model) {
            Some(others) if others.len() >= limit => {
                asked.answer(Err(PredictError::Full { model, limit }));
            }
            Some(others) => others.push(asked),
            None => {
                waiting.insert(model.clone(), vec![asked]);
                spawn_local(self.clone().find_route(model));
            }
        }
    }

    /// Until nobody waits for the route of this model.
    async fn find_route(self: Rc<Self>, model: String) {
        loop {
            // Whoever comes later may know of a change that the answer doesn't tell.
            let asked = self.routes.waiting.borrow_mut().get_mut(&model).map(std::mem::take);
            let asked = asked.unwrap_or_default();
            if asked.is_empty() {
                self.routes.waiting.borrow_mut().remove(&model);
                return;
            }
            let route = self.routes.find(&model).await;
            asked.into_iter().for_each(|asked| self.routed(asked, route.as_deref()));
        }
    }

    fn routed(self: &Rc<Self>, mut asked: Asked, route: Option<&Route>) {
        let key = asked.request.routed.take().unwrap_or_default();
        let Some(route) = route else { return self.enqueue(asked) };
        if let Some(version) = route.choose(&self.routes.key(key)) {
            asked.request.version = version.clone();
        }
        let shadow = route.shadow.clone().filter(|shadow| *shadow != asked.request.version);
        let Some(shadow) = shadow else { return self.enqueue(asked) };
        let mut request = asked.request.clone();
        let (model, name) = (request.model.clone(), shadow.to_string());
        let comparison = Comparison::new(self.shadows.clone(), model, name);
        (request.version, request.priority) = (shadow, Priority::Last);
        asked.compared = Some(comparison.clone());
        self.enqueue(asked);
        self.enqueue(Asked { request, reply: Reply::Nobody, compared: Some(comparison) });
    }
}
