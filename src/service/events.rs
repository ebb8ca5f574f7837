//! What happens in the registry, as a feed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use gradmesh_actors::catalog::{EVENTS_PAGE_MAX, Events};
use gradmesh_actors::messages::{ReadRecords, RecordsOf, ask};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use utoipa::{IntoParams, ToSchema};

use super::api_error::{ApiError, ErrorKind};
use super::callers::Caller;
use super::rest::Refusals;
use super::{FIND_LIMIT, ServiceState};

/// Where the feed is.
pub(super) const EVENTS_PATH: &str = "/gradmesh/registry/events";

/// The longest wait for an event: proxies cut connections that are silent for a minute.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A registry may be so far behind the one that was asked before, in time and events; what is further ahead
/// was never in this log.
const BEHIND_MAX: Duration = Duration::from_secs(1);
const AHEAD_MAX: u64 = 64;
/// How often the registry is asked meanwhile; as often as it looks into its store.
const LOOK: Duration = Duration::from_millis(100);

/// Which events.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Those behind this number; without it the newest
    after: Option<u64>,
    /// How many at most
    #[param(minimum = 1, maximum = 256)]
    limit: Option<usize>,
    /// How long to wait for one where there is none yet, in milliseconds
    #[param(maximum = 30000)]
    wait_ms: Option<u64>,
}

/// Changes of the registry, oldest first. Ask again with `after` set to the number of the last one.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Feed {
    events: Vec<EventAnswer>,
    /// The newest number of the log
    last: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct EventAnswer {
    number: u64,
    /// `published`, `aliased`, `alias-removed`, `deleted`, `routed` or `edited`
    kind: String,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<String>,
    /// Milliseconds since 1970, where the change says when it was
    #[serde(skip_serializing_if = "Option::is_none")]
    at_unix_ms: Option<u64>,
    text: String,
    /// BLAKE3 over the change and the seal before it
    seal: String,
}

/// What happened in the registry: publications, aliases, routes, deletions, descriptions and tags.
///
/// Numbers rise by one and are the same at every registry. The newest 4,096 events are kept; who asks for
/// older ones, or for some behind the end of the log, gets 410.
#[utoipa::path(get, path = "/gradmesh/registry/events", tag = "registry", params(Wanted), responses(
    (status = 200, body = Feed),
    (status = 410, description = "Events behind `after` are forgotten, or `after` was never in this log"),
    Refusals,
))]
pub(super) async fn events(
    state: web::Data<ServiceState>,
    _: Caller,
    wanted: Result<web::Query<Wanted>, actix_web::Error>,
) -> Result<HttpResponse, ApiError> {
    let wanted =
        wanted.map_err(|error| ApiError::bad(format!("the query can't be read: {error}")))?;
    let Wanted { after, limit, wait_ms } = wanted.into_inner();
    let limit = limit.unwrap_or(EVENTS_PAGE_MAX);
    if !(1..=EVENTS_PAGE_MAX).contains(&limit) {
        return Err(ApiError::bad(format!(
            "limit is {limit}, 1 to {EVENTS_PAGE_MAX} are possible"
        )));
    }
    let wait = Duration::from_millis(wait_ms.unwrap_or(0));
    if wait > WAIT_MAX {
        let (wait, most) = (wait.as_millis(), WAIT_MAX.as_millis());
        return Err(ApiError::bad(format!("wait_ms is {wait}, at most {most} are possible")));
    }
    let began = Instant::now();
    loop {
        let found = ask_registry(&state, after, limit).await?;
        let waited = began.elapsed();
        let ahead = after.unwrap_or(0).saturating_sub(found.last);
        if let Some(after) = after.filter(|after| after.saturating_add(1) < found.oldest) {
            let first = after + 1;
            return Err(gone(
                format!("events {first} to {} are forgotten", found.oldest - 1),
                &found,
            ));
        }
        if ahead > AHEAD_MAX || (ahead > 0 && waited >= BEHIND_MAX) {
            return Err(gone(format!("the log ends {ahead} events before `after`"), &found));
        }
        let is_over = state.stops.load(Ordering::Relaxed) || (ahead == 0 && waited >= wait);
        if !found.events.is_empty() || is_over {
            let no_store = (header::CACHE_CONTROL, "no-store");
            let mut feed = Feed::from(found);
            // From a registry that is behind, where there is no time to wait for it: nothing is read twice.
            feed.last = feed.last.max(after.unwrap_or(0));
            return Ok(HttpResponse::Ok().insert_header(no_store).json(feed));
        }
        sleep(LOOK).await;
    }
}

fn gone(what: String, found: &Events) -> ApiError {
    let text = format!(
        "{what}; read what there is now (/v2/repository/index), and go on after {}",
        found.last
    );
    ApiError::new(ErrorKind::Gone, text)
}

async fn ask_registry(
    state: &ServiceState,
    after: Option<u64>,
    limit: usize,
) -> Result<Events, ApiError> {
    let none =
        || ApiError::new(ErrorKind::Unsupported, "this service tells nobody of its registry");
    let registry = state.registry.as_ref().ok_or_else(none)?;
    let of = RecordsOf::Events { after, limit };
    Ok(ask(&registry.records, ReadRecords { of }, FIND_LIMIT).await?.events)
}

impl From<Events> for Feed {
    fn from(of: Events) -> Self {
        let answer = |event: gradmesh_actors::catalog::Event| EventAnswer {
            number: event.number,
            kind: event.kind,
            model: event.model,
            version: event.version,
            alias: event.alias,
            at_unix_ms: event.at_unix_ms,
            text: event.text,
            seal: event.seal,
        };
        Self { events: of.events.into_iter().map(answer).collect(), last: of.last }
    }
}
