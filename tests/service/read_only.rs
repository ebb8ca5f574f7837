//! A registry whose folder can't be written, or is gone, while the service answers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::{Handler, Message};
use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt};
use gradmesh::service::ServiceLimits;
use gradmesh_actors::messages::{
    AliasSet, ChangeError, DeleteVersion, Published, RemoveAlias, SetAlias, SetRoute,
};
use gradmesh_actors::model_registry::ModelRegistry;
use gradmesh_actors::route::{Route, Split};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use serde_json::json;

use crate::support::{Server, rows, state, sum};

/// A folder in which nothing can be written while it is shut, with the error of a file system that
/// is read-only. It is no such file system: `tests/namespaces/read_only.rs` has one, where it may.
#[derive(Clone, Debug)]
struct Shuttable {
    inner: Arc<dyn ObjectStore>,
    shut: Arc<AtomicBool>,
}

impl Shuttable {
    fn check(&self) -> Result<()> {
        if !self.shut.load(Ordering::SeqCst) {
            return Ok(());
        }
        let source = std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem);
        Err(Error::Generic { store: "LocalFileSystem", source: Box::new(source) })
    }
}

impl fmt::Display for Shuttable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shuttable {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Shuttable {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.check()?;
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.check()?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let allowed = locations.map(move |location| store.check().and(location)).boxed();
        self.inner.delete_stream(allowed)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.check()?;
        self.inner.copy_opts(from, to, options).await
    }
}

fn start(shut: Arc<AtomicBool>) -> Server {
    let over = |inner| -> Arc<dyn ObjectStore> { Arc::new(Shuttable { inner, shut }) };
    Server::run_over(over, async |registry, _| state(registry, ServiceLimits::default(), |_| {}))
}

/// What the registry says to a change.
fn ask<M, R>(server: &Server, message: M) -> std::result::Result<R, ChangeError>
where
    M: Message<Result = std::result::Result<R, ChangeError>> + Send + 'static,
    R: Send + 'static,
    ModelRegistry: Handler<M>,
{
    let registry = server.registry.clone();
    actix_rt::System::new().block_on(async { registry.send(message).await.unwrap() })
}

fn to_production() -> SetAlias {
    let (model, alias) = ("sum".into(), "production".into());
    SetAlias { model, alias, version: "2".parse().unwrap() }
}

fn to_both() -> SetRoute {
    let split = |version: &str| Split { version: version.parse().unwrap(), weight: 1 };
    let route = Route { splits: vec![split("1"), split("2")], shadow: None };
    SetRoute { model: "sum".into(), route: Some(route) }
}

/// Each change that there is, and what was said to it.
fn refusals(server: &Server) -> Vec<String> {
    let (model, alias) = (|| "sum".to_owned(), || "production".to_owned());
    let remove = RemoveAlias { model: model(), alias: alias() };
    let refusals = [
        ask(server, sum("c", 3.0)).map(drop),
        ask(server, to_production()).map(drop),
        ask(server, remove),
        ask(server, to_both()),
        ask(server, DeleteVersion { model: model(), version: 2 }),
    ];
    refusals.map(|refused| refused.unwrap_err().to_string()).into()
}

/// Predictions by name and number, and what there is to read, as they are before any change.
fn answers_as_before(server: &Server) {
    for (version, weight) in [("", 2.0), ("/versions/1", 1.0), ("/versions/production", 1.0)] {
        let path = format!("/v2/models/sum{version}/infer");
        let (status, body) = server.post(&path, &rows(&[1.0, 2.0]));
        assert_eq!((status, &body["outputs"][0]["data"]), (200, &json!([weight * 3.0])), "{path}");
    }
    server.still_answers();
    assert_eq!(server.get("/v2/models").1, json!({ "models": ["pick", "sum"] }));
    assert_eq!(server.get("/v2/models/sum").1["versions"], json!(["1", "2"]));
    for path in ["/v2/health/ready", "/v2/models/sum/ready", "/v2/models/sum/config"] {
        assert_eq!(server.get(path).0, 200, "{path}");
    }
    assert_eq!(server.post_text("/v2/repository/index", "").0, 200);
}

/// The messages that were refused are taken, each with what it would have had before.
fn takes_changes(server: &Server) {
    assert_eq!(ask(server, sum("c", 3.0)), Ok(Published { version: 3, already: false }));
    assert_eq!(ask(server, to_production()), Ok(AliasSet { version: 2 }));
    assert_eq!(ask(server, to_both()), Ok(()));
    let newest = server.post("/v2/models/sum/versions/3/infer", &rows(&[1.0, 2.0])).1;
    assert_eq!(newest["outputs"][0]["data"], json!([9.0]));
}

#[test]
fn a_folder_that_goes_read_only_refuses_changes_with_path_and_cause_and_the_service_goes_on() {
    let shut = Arc::new(AtomicBool::new(false));
    let server = start(shut.clone());
    // Its version 1 is loaded while it is shut: models are read still.
    assert_eq!(server.infer("sum", &rows(&[1.0, 2.0])).0, 200);
    shut.store(true, Ordering::SeqCst);
    for round in 0..3 {
        let paths = ["models/sum/3/", "log/", "log/", "log/", "log/"];
        for (refusal, path) in std::iter::zip(refusals(&server), paths) {
            assert!(refusal.starts_with(&format!("can't write {path}")), "{round}: {refusal}");
            let cause = std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem).to_string();
            assert!(refusal.contains(&cause), "{round}: {refusal}");
            assert!(refusal.ends_with("; check the folder of registry.store"), "{refusal}");
        }
        answers_as_before(&server);
    }
    shut.store(false, Ordering::SeqCst);
    takes_changes(&server);
}

/// For root too, and on any file system: a file lies where the folder of the log was.
#[test]
fn a_log_that_is_gone_refuses_changes_with_path_and_cause_until_it_is_back() {
    let server = start(Arc::default());
    answers_as_before(&server);
    let [log, away] = ["log", "log.away"].map(|name| server.folder.path().join(name));
    std::fs::rename(&log, &away).unwrap();
    std::fs::write(&log, "").unwrap();
    for refusal in refusals(&server) {
        assert!(refusal.starts_with("can't read log/0"), "{refusal}");
        assert!(refusal.contains("Not a directory"), "{refusal}");
        assert!(refusal.ends_with("; check the folder of registry.store"), "{refusal}");
    }
    answers_as_before(&server);
    std::fs::remove_file(&log).unwrap();
    std::fs::rename(&away, &log).unwrap();
    answers_as_before(&server);
    takes_changes(&server);
}
