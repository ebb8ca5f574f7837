//! A store that fails as a disk does, before it has written or after.

use std::fmt;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Notify;

/// What happens to the next put, once.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing is written.
    Before(ErrorKind),
    /// It is written, and its answer is an error.
    After(ErrorKind),
    /// It waits: `reached` is told when it does, `go` lets it go on.
    Held { reached: Arc<Notify>, go: Arc<Notify> },
}

#[derive(Clone, Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    next: Arc<Mutex<Option<Fault>>>,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, next: Arc::default() }
    }

    pub(crate) fn fail_next_put(&self, fault: Fault) {
        *self.next.lock().unwrap() = Some(fault);
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

fn failed(kind: ErrorKind) -> Error {
    Error::Generic { store: "faulty", source: Box::new(std::io::Error::from(kind)) }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let fault = self.next.lock().unwrap().take();
        match fault {
            Some(Fault::Before(kind)) => return Err(failed(kind)),
            Some(Fault::After(kind)) => {
                self.inner.put_opts(location, payload, options).await?;
                return Err(failed(kind));
            }
            Some(Fault::Held { reached, go }) => {
                reached.notify_one();
                go.notified().await;
            }
            None => {}
        }
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
