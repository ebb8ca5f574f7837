//! One recipient in front of several registries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::{Actor, Context, Handler, Recipient, ResponseFuture};
use gradmesh::peer::{AnyOf, Standing};
use gradmesh_actors::messages::{FindError, FindModel, LinkError};

use super::*;

/// So long one that is silent is waited for; far beyond what an answer takes.
const LIMIT: Duration = Duration::from_millis(200);

#[derive(Clone, Copy)]
enum Does {
    Answers,
    Refuses,
    StaysSilent,
    CanNot,
}

/// A registry that does one thing, and counts.
struct Stub {
    does: Does,
    asked: Arc<AtomicU64>,
}

impl Actor for Stub {
    type Context = Context<Self>;
}

impl Handler<FindModel> for Stub {
    type Result = ResponseFuture<Result<VersionDescription, FindError>>;

    fn handle(&mut self, _: FindModel, _: &mut Self::Context) -> Self::Result {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let does = self.does;
        Box::pin(async move {
            match does {
                Does::Answers => {
                    let artifact = gradmesh_actors::version::Artifact {
                        file: "model.safetensors".into(),
                        blake3: String::new(),
                        bytes: 0,
                    };
                    Ok(new_version("a").description.numbered(7, artifact))
                }
                Does::Refuses => Err(CatalogError::NoVersions { model: "m".into() }.into()),
                Does::StaysSilent => std::future::pending().await,
                Does::CanNot => Err(RegistryStoreError::Gone.into()),
            }
        })
    }
}

/// A front of these, and how often each was asked.
fn front(all: &[Does]) -> (Recipient<FindModel>, Vec<Arc<AtomicU64>>) {
    let asked: Vec<_> = all.iter().map(|_| Arc::new(AtomicU64::new(0))).collect();
    let stubs = all.iter().zip(&asked);
    let stubs = stubs.map(|(does, asked)| Stub { does: *does, asked: asked.clone() }.start());
    let receivers = stubs.map(actix::Addr::recipient).collect();
    let names = (0..all.len()).map(|at| at.to_string()).collect();
    (AnyOf::start(receivers, Standing::new(names, None, 0), LIMIT), asked)
}

async fn ask(front: &Recipient<FindModel>) -> Result<u64, FindError> {
    let find = FindModel { model: "m".into(), version: "latest".parse().unwrap() };
    front.send(find).await.unwrap().map(|found| found.version)
}

fn counts(asked: &[Arc<AtomicU64>]) -> Vec<u64> {
    asked.iter().map(|asked| asked.load(Ordering::Relaxed)).collect()
}

#[actix_rt::test]
async fn a_refusal_is_an_answer_and_nobody_else_is_asked() {
    let (front, asked) = front(&[Does::Refuses, Does::Answers]);
    assert!(matches!(ask(&front).await, Err(FindError::Catalog(_))));
    assert_eq!(counts(&asked), [1, 0]);
}

#[actix_rt::test]
async fn where_one_is_silent_or_can_not_the_next_is_asked_and_remembered() {
    let (front, asked) = front(&[Does::StaysSilent, Does::CanNot, Does::Answers]);
    for _ in 0..5 {
        assert_eq!(ask(&front).await, Ok(7));
    }
    assert_eq!(counts(&asked), [1, 1, 5]);
}

#[actix_rt::test]
async fn where_all_are_silent_the_request_ends() {
    let (front, asked) = front(&[Does::StaysSilent, Does::StaysSilent]);
    let limit_ms = LIMIT.as_millis().try_into().unwrap();
    assert_eq!(ask(&front).await, Err(LinkError::Timeout { limit_ms }.into()));
    assert_eq!(counts(&asked), [2, 2]);
}
