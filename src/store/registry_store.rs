//! The files of the model registry.
//!
//! ```text
//! log/00000000000000000001.json          one change of the catalog; written once, never changed;
//!                                        sealed, with the seal of the one before
//! models/<model>/<version>/model.safetensors    or model.<kind>, as it was imported
//! models/<model>/<version>/description.json
//! ```
//!
//! The seals make a chain: a changed, exchanged or missing entry breaks it at the next one. Nothing
//! follows the newest ones; that they are gone is noticed by a registry that has read them (it reads
//! its newest entry again with each look), by the folders of their versions, whose numbers go to no
//! other run, and by a coordinator whose run is published according to its checkpoint store.
//!
//! A version is published by its log entry. What a publication that was cut off left under
//! `models` is seen by nobody, and the next one takes the same number: it finds the plain names
//! taken, and writes `model-<hash>.safetensors` and `description-<hash>.json` beside them. Only a
//! folder that holds another run's whole model is left alone: that may be a published version whose
//! log entry is lost.

use actix::{Actor, Addr, Context, Handler, ResponseFuture, Supervised};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use gradmesh_actors::catalog::LogEntry;
use gradmesh_actors::messages::{
    AppendEntry, Appended, ReadArtifact, ReadLog, RegistryStoreError, RegistryStoreLink, Remove,
    RemoveArtifact, Sealed as SealedEntry, Stored, Values, WriteArtifact,
};
use gradmesh_actors::planted::{self, Bug};
use gradmesh_actors::version::{Artifact, TensorShape, VersionDescription};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};

use super::sealed::Sealed;
use super::tensors::{
    NamedTensor, TensorFile, TensorFileError, read_safetensors, write_safetensors,
};
use super::{Store, removed};

/// Of the log's records. 1 had no seals.
const FORMAT: u32 = 2;

/// Log entries that are read at a time: enough to hide the latency of a remote store.
const READS: usize = 16;

/// The largest log entry. A description holds one shape a tensor and two statistics a feature; a
/// model with a million of either is none for a JSON log.
const ENTRY_BYTES_MAX: u64 = 16 << 20;

/// How the names of the two files of a publication begin.
const ARTIFACT: &str = "model";
/// Folders with larger numbers are no versions: nobody publishes so often.
const VERSION_MAX: u64 = 1 << 53;

const DESCRIPTION: &str = "description";

/// Keeps a registry in an object store.
#[derive(Clone, Debug)]
pub struct RegistryStore {
    store: Store,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    previous: Option<String>,
    entry: LogEntry,
}

/// What every format has said of itself, at one of two places.
#[derive(Deserialize)]
struct Format {
    format: Option<u32>,
    value: Option<Inner>,
}

#[derive(Deserialize)]
struct Inner {
    format: u32,
}

impl RegistryStore {
    pub fn new(store: impl Into<Store>) -> Self {
        Self { store: store.into() }
    }

    /// How a registry reaches this store.
    pub fn link(address: &Addr<Self>) -> RegistryStoreLink {
        RegistryStoreLink {
            append_entry: address.clone().recipient(),
            read_log: address.clone().recipient(),
            write_artifact: address.clone().recipient(),
            read_artifact: address.clone().recipient(),
            remove_artifact: address.clone().recipient(),
        }
    }

    async fn append(&self, message: AppendEntry) -> Result<Appended, RegistryStoreError> {
        let AppendEntry { number, previous, entry } = message;
        let path = entry_path(number);
        let record = Record { format: FORMAT, previous, entry };
        let json = Sealed::write(record).map_err(|cause| failed("write", &path, &cause))?;
        // What can't be read back would close the log to all who come after.
        let (_, seal) = Sealed::<Record>::read_with_seal(&json)
            .map_err(|cause| failed("write", &path, &cause))?;
        if json.len() as u64 > ENTRY_BYTES_MAX {
            let cause = format!("it has {} bytes, at most {ENTRY_BYTES_MAX} can be", json.len());
            return Err(failed("write", &path, &cause));
        }
        if planted::is(Bug::EntryOverwritten) {
            let put = self.store.objects.put(&path, json.into()).await;
            return put
                .map(|_| Appended::Written { seal })
                .map_err(|cause| failed("write", &path, &cause));
        }
        if self.create(&path, json.into()).await? {
            return Ok(Appended::Written { seal });
        }
        match self.store.objects.head(&path).await {
            Ok(_) => Ok(Appended::Taken),
            // Else the number would be tried for ever.
            Err(Error::NotFound { .. }) => {
                let cause = "something that is no file has its name".to_owned();
                Err(RegistryStoreError::Unreadable { path: path.to_string(), cause })
            }
            Err(cause) => Err(failed("read", &path, &cause)),
        }
    }

    async fn read_log(&self, known: u64) -> Result<Vec<SealedEntry>, RegistryStoreError> {
        let last = self.last_entry(known).await?;
        let reads = stream::iter(known.max(1)..=last).map(|number| self.read_entry(number));
        reads.buffered(READS).try_collect().await
    }

    /// Number of the last entry, or `after` where none follows it.
    async fn last_entry(&self, after: u64) -> Result<u64, RegistryStoreError> {
        if after > 0 {
            // Nearly always there is nothing new, and one look is enough to know.
            let next = entry_path(after + 1);
            match self.store.objects.head(&next).await {
                Ok(_) => {}
                Err(Error::NotFound { .. }) => return Ok(after),
                Err(cause) => return Err(failed("read", &next, &cause)),
            }
        }
        let folder = Path::from("log");
        let mut last = after;
        let mut found = self.store.objects.list_with_offset(Some(&folder), &entry_path(after));
        while let Some(file) = found.next().await {
            let file = file.map_err(|cause| failed("list", &folder, &cause))?;
            let number = file.location.filename().and_then(|name| name.strip_suffix(".json"));
            let number = number.and_then(|number| number.parse().ok());
            last = last.max(number.unwrap_or(0));
        }
        Ok(last)
    }

    async fn read_entry(&self, number: u64) -> Result<SealedEntry, RegistryStoreError> {
        let path = entry_path(number);
        let unreadable =
            |cause: String| RegistryStoreError::Unreadable { path: path.to_string(), cause };
        let file = match self.store.objects.get(&path).await {
            Ok(file) => file,
            Err(Error::NotFound { .. }) => {
                return Err(RegistryStoreError::Gap { path: path.to_string() });
            }
            Err(cause) => return Err(failed("read", &path, &cause)),
        };
        if file.meta.size > ENTRY_BYTES_MAX {
            return Err(unreadable(format!("it has {} bytes", file.meta.size)));
        }
        let json = file.bytes().await.map_err(|cause| failed("read", &path, &cause))?;
        if let Some(format) = format(&json).filter(|format| *format != FORMAT) {
            let cause = format!(
                "its format is {format}, this build reads {FORMAT}; start with another registry.store, or read this one with the build that wrote it"
            );
            return Err(RegistryStoreError::Format { path: path.to_string(), cause });
        }
        let (Record { previous, entry, .. }, seal) = Sealed::<Record>::read_with_seal(&json)
            .map_err(|cause| unreadable(cause.to_string()))?;
        Ok(SealedEntry { seal, previous, entry })
    }

    async fn write_artifact(&self, message: WriteArtifact) -> Result<Artifact, RegistryStoreError> {
        let WriteArtifact { description, version, tensors, file } = message;
        let folder = version_folder(&description.model, version);
        if let Some(run) = self.other_run(&folder, &description.run).await? {
            let highest = self.highest(&description.model).await?.max(version);
            return Err(RegistryStoreError::Occupied { path: folder.to_string(), run, highest });
        }
        let (bytes, ending) = match file {
            // What was imported stays what it is.
            Some(file) => (file, description.architecture.kind.clone()),
            None => {
                let file = tensor_file(&description.tensors, tensors, &description.model, version);
                let bytes =
                    write_safetensors(&file).map_err(|cause| failed("write", &folder, &cause))?;
                (Bytes::from(bytes), "safetensors".to_owned())
            }
        };
        let artifact = Artifact {
            file: format!("{ARTIFACT}.{ending}"),
            blake3: blake3::hash(&bytes).to_hex().to_string(),
            bytes: bytes.len() as u64,
        };
        let mut description = description.numbered(version, artifact);
        let mut tag = String::new();
        loop {
            let path = folder.clone().join(format!("{DESCRIPTION}{tag}.json"));
            let json = serde_json::to_vec_pretty(&description)
                .map_err(|cause| failed("write", &path, &cause))?;
            let hash = blake3::hash(&json).to_hex();
            let path_of_tensors = folder.clone().join(description.artifact.file.as_str());
            // A name that holds the hash of the content is taken by the same content only.
            let hashed = !tag.is_empty();
            let described = self.create(&path, json.into()).await?;
            if described || hashed {
                let written = self.create(&path_of_tensors, bytes.clone()).await?;
                if written || hashed {
                    return Ok(description.artifact);
                }
            }
            tag = format!("-{}", &hash[..16]);
            description.artifact.file = format!("{ARTIFACT}{tag}.{ending}");
        }
    }

    /// A run that is not `own` and whose whole model is in this folder.
    async fn other_run(
        &self,
        folder: &Path,
        own: &str,
    ) -> Result<Option<String>, RegistryStoreError> {
        let unlisted = |cause| failed("list", folder, &cause);
        let files: Vec<_> =
            self.store.objects.list(Some(folder)).try_collect().await.map_err(unlisted)?;
        let size_of = |name: &str| {
            let file = files.iter().find(|file| file.location.filename() == Some(name));
            file.map(|file| file.size)
        };
        for file in &files {
            let name = file.location.filename().unwrap_or_default();
            let describes = name.starts_with(DESCRIPTION) && name.ends_with(".json");
            if !describes || file.size > ENTRY_BYTES_MAX {
                continue;
            }
            let json = match self.store.objects.get(&file.location).await {
                Ok(found) => found.bytes().await,
                Err(cause) => Err(cause),
            };
            let json = match json {
                Ok(json) => json,
                // Whoever wrote it has lost the number meanwhile.
                Err(Error::NotFound { .. }) => continue,
                Err(cause) => return Err(failed("read", &file.location, &cause)),
            };
            let Ok(found) = serde_json::from_slice::<VersionDescription>(&json) else { continue };
            let whole = size_of(&found.artifact.file) == Some(found.artifact.bytes);
            if whole && found.run != own {
                return Ok(Some(found.run));
            }
        }
        Ok(None)
    }

    /// The highest version of a model that has a folder, 0 where none has.
    async fn highest(&self, model: &str) -> Result<u64, RegistryStoreError> {
        let folder = Path::from("models").join(model);
        let list = self.store.objects.list_with_delimiter(Some(&folder)).await;
        let list = list.map_err(|cause| failed("list", &folder, &cause))?;
        let number = |path: &Path| path.filename().and_then(|name| name.parse().ok());
        let versions = list.common_prefixes.iter().filter_map(number);
        Ok(versions.filter(|version| *version < VERSION_MAX).max().unwrap_or(0))
    }

    async fn read_artifact(
        &self,
        description: VersionDescription,
    ) -> Result<Stored, RegistryStoreError> {
        let VersionDescription { model, version, artifact, tensors, signature, .. } = description;
        let path = version_folder(&model, version).join(artifact.file.as_str());
        let corrupt =
            |what: &str, expected: &dyn ToString, got: &dyn ToString| RegistryStoreError::Corrupt {
                path: path.to_string(),
                what: what.to_owned(),
                expected: expected.to_string(),
                got: got.to_string(),
            };
        let file = match self.store.objects.get(&path).await {
            Ok(file) => file,
            Err(Error::NotFound { .. }) => {
                return Err(RegistryStoreError::Missing { path: path.to_string() });
            }
            Err(cause) => return Err(failed("read", &path, &cause)),
        };
        if file.meta.size != artifact.bytes {
            return Err(corrupt("size in bytes", &artifact.bytes, &file.meta.size));
        }
        let bytes = file.bytes().await.map_err(|cause| failed("read", &path, &cause))?;
        let digest = blake3::hash(&bytes).to_hex();
        if digest.as_str() != artifact.blake3 {
            return Err(corrupt("BLAKE3", &artifact.blake3, &digest));
        }
        if signature.is_some() {
            return Ok(Stored { file: Some(bytes), ..Stored::default() });
        }
        let file =
            read_safetensors(&bytes).map_err(|cause| corrupt("content", &"tensors", &cause))?;
        let found = file.tensors.iter().map(|tensor| (&tensor.name, &tensor.shape));
        if !found.eq(tensors.iter().map(|tensor| (&tensor.name, &tensor.shape))) {
            return Err(corrupt("content", &"the described tensors", &"others"));
        }
        let tensors = file.tensors.into_iter().map(|tensor| tensor.values).collect();
        Ok(Stored { tensors, file: None })
    }

    async fn remove(&self, message: RemoveArtifact) -> Result<(), RegistryStoreError> {
        let folder = version_folder(&message.model, message.version);
        let Remove::Attempt(artifact) = message.files else {
            let removal = self.store.remove_under(&folder).await;
            return removal.map_err(|cause| failed("remove", &folder, &cause));
        };
        let name = artifact.file.rsplit_once('.').map_or("", |(name, _)| name);
        let description = format!("{}.json", name.replacen(ARTIFACT, DESCRIPTION, 1));
        let paths = [folder.clone().join(artifact.file.as_str()), folder.join(description)];
        for path in paths {
            let removal = removed(self.store.objects.delete(&path).await);
            removal.map_err(|cause| failed("remove", &path, &cause))?;
        }
        Ok(())
    }

    /// Writes a file that does not exist yet; whether it did not.
    async fn create(&self, path: &Path, bytes: Bytes) -> Result<bool, RegistryStoreError> {
        match self.store.objects.put_opts(path, bytes.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(cause) => Err(failed("write", path, &cause)),
        }
    }
}

/// The format that a record says it has; `None` where it is none.
fn format(json: &[u8]) -> Option<u32> {
    let Format { format, value } = serde_json::from_slice(json).ok()?;
    format.or(value.map(|inner| inner.format))
}

fn entry_path(number: u64) -> Path {
    Path::from(format!("log/{number:020}.json"))
}

fn version_folder(model: &str, version: u64) -> Path {
    Path::from("models").join(model).join(version.to_string())
}

/// The file of a trained version, from its tensors: the bytes that were written when it was published.
///
/// # Errors
/// They are not the tensors that were described.
pub fn artifact_bytes(
    description: &VersionDescription,
    tensors: Vec<Values>,
) -> Result<Bytes, TensorFileError> {
    let VersionDescription { model, version, artifact, .. } = description;
    let file = tensor_file(&description.tensors, tensors, model, *version);
    let bytes = Bytes::from(write_safetensors(&file)?);
    let digest = blake3::hash(&bytes).to_hex();
    if digest.as_str() != artifact.blake3 {
        let expected = &artifact.blake3;
        let cause =
            format!("BLAKE3 of version {version} of {model} is {digest}, {expected} was described");
        return Err(TensorFileError::Format { cause });
    }
    Ok(bytes)
}

fn tensor_file(
    shapes: &[TensorShape],
    values: Vec<Values>,
    model: &str,
    version: u64,
) -> TensorFile {
    let tensors = shapes.iter().zip(values).map(|(tensor, values)| NamedTensor {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        values,
    });
    let metadata = [("model", model.to_owned()), ("version", version.to_string())];
    let metadata = metadata.map(|(key, text)| (key.to_owned(), text)).into();
    TensorFile { tensors: tensors.collect(), metadata }
}

fn failed(action: &str, path: &Path, cause: &dyn std::fmt::Display) -> RegistryStoreError {
    let (action, path, cause) = (action.to_owned(), path.to_string(), cause.to_string());
    RegistryStoreError::Unavailable { action, path, cause }
}

impl Actor for RegistryStore {
    type Context = Context<Self>;
}

impl Supervised for RegistryStore {}

impl Handler<AppendEntry> for RegistryStore {
    type Result = ResponseFuture<<AppendEntry as actix::Message>::Result>;

    fn handle(&mut self, message: AppendEntry, _ctx: &mut Self::Context) -> Self::Result {
        let store = self.clone();
        Box::pin(async move { store.append(message).await })
    }
}

impl Handler<ReadLog> for RegistryStore {
    type Result = ResponseFuture<<ReadLog as actix::Message>::Result>;

    fn handle(&mut self, message: ReadLog, _ctx: &mut Self::Context) -> Self::Result {
        let store = self.clone();
        Box::pin(async move { store.read_log(message.known).await })
    }
}

impl Handler<WriteArtifact> for RegistryStore {
    type Result = ResponseFuture<<WriteArtifact as actix::Message>::Result>;

    fn handle(&mut self, message: WriteArtifact, _ctx: &mut Self::Context) -> Self::Result {
        let store = self.clone();
        Box::pin(async move { store.write_artifact(message).await })
    }
}

impl Handler<ReadArtifact> for RegistryStore {
    type Result = ResponseFuture<<ReadArtifact as actix::Message>::Result>;

    fn handle(&mut self, message: ReadArtifact, _ctx: &mut Self::Context) -> Self::Result {
        let store = self.clone();
        Box::pin(async move { store.read_artifact(message.description).await })
    }
}

impl Handler<RemoveArtifact> for RegistryStore {
    type Result = ResponseFuture<<RemoveArtifact as actix::Message>::Result>;

    fn handle(&mut self, message: RemoveArtifact, _ctx: &mut Self::Context) -> Self::Result {
        let store = self.clone();
        Box::pin(async move { store.remove(message).await })
    }
}
