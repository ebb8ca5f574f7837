//! `node models import`: publishes a model that was not trained here.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use actix::Recipient;
use anyhow::{Context, bail};
use bytes::Bytes;
use gradmesh::node::{NodeContext, OperatingSystem, kinds};
use gradmesh::store::read_safetensors;
use gradmesh_actors::dataset::Scaling;
use gradmesh_actors::messages::{FindModel, PublishModel, ask};
use gradmesh_actors::model::ModelDescription;
use gradmesh_actors::new_version::NewVersion;
use gradmesh_actors::pipeline::{PIPELINE, PipelineSpec, Plan};
use gradmesh_actors::serving::signature_of;
use gradmesh_actors::tensor_model::Signature;
use gradmesh_actors::version::{Member, VersionDescription};

/// A model goes to the registry in one frame, of which this is the largest.
const FILE_BYTES_MAX: u64 = 255 << 20;
/// The longest wait for the description of a pipeline's member.
const FIND_LIMIT: Duration = Duration::from_secs(30);
/// The description of a version in its folder of the registry.
const DESCRIPTION: &str = "description.json";

/// What the registry is asked to publish: a pipeline in TOML, of versions that `find` knows, any other file,
/// whose ending says its kind, a folder with a text-embedding
/// model as Hugging Face has it, or one with a version of another registry.
///
/// The same file twice is one version: its digest stands for the run.
pub(crate) async fn import(
    path: &Path,
    model: String,
    find: &Recipient<FindModel>,
) -> anyhow::Result<PublishModel> {
    if path.join(DESCRIPTION).exists() {
        return version(path, model);
    }
    let name = path.display();
    if path.extension().is_some_and(|ending| ending == "toml") {
        return pipeline(path, model, find).await.with_context(|| name.to_string());
    }
    let (kind, file) = if path.is_dir() { folder(path)? } else { file(path)? };
    let architecture = ModelDescription { kind, settings: serde_json::Value::Null };
    let loaded = kinds().load(&architecture, &file).with_context(|| name.to_string())?;
    let (signature, digest) = (loaded.signature().clone(), blake3::hash(&file).to_hex());
    let digest = digest.to_string();
    Ok(imported(path, model, architecture, signature, Vec::new(), file, digest))
}

/// A pipeline, each of whose members is the version that its name means now.
async fn pipeline(
    path: &Path,
    model: String,
    find: &Recipient<FindModel>,
) -> anyhow::Result<PublishModel> {
    let text = String::from_utf8(read(path)?).context("it is not UTF-8")?;
    let spec = steps(&text)?;
    let (mut members, mut signatures) = (Vec::new(), Vec::new());
    for (member, version) in spec.members() {
        let wanted = FindModel { model: member.to_owned(), version: version.clone() };
        let found = ask(find, wanted, FIND_LIMIT).await?;
        signatures.push(signature_of(&found));
        members.push(found.as_member());
    }
    let spec = spec.pinned(members.iter().map(|member| member.version));
    let plan = Plan::new(&spec, &signatures)?;
    let file = serde_json::to_vec_pretty(&spec)?;
    // What its members are is in no file of its own.
    let mut hasher = blake3::Hasher::new();
    hasher.update(&file).update(&serde_json::to_vec(&members)?);
    let digest = hasher.finalize().to_hex().to_string();
    let architecture =
        ModelDescription { kind: PIPELINE.to_owned(), settings: serde_json::Value::Null };
    Ok(imported(path, model, architecture, plan.signature, members, file.into(), digest))
}

/// Each step is read for itself: serde would say of any error that it is in the first one.
fn steps(text: &str) -> anyhow::Result<PipelineSpec> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Written {
        outputs: Vec<String>,
        steps: Vec<toml::Table>,
    }
    let Written { outputs, steps } = toml::from_str(text)?;
    let read = |(at, step): (usize, toml::Table)| {
        step.try_into().with_context(|| format!("step {}", at + 1))
    };
    let steps = steps.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(PipelineSpec { outputs, steps })
}

fn imported(
    path: &Path,
    model: String,
    architecture: ModelDescription,
    signature: Signature,
    made_of: Vec<Member>,
    file: Bytes,
    digest: String,
) -> PublishModel {
    let description = NewVersion {
        model,
        architecture,
        tensors: Vec::new(),
        features: 0,
        outputs: 0,
        classes: None,
        scaling: Scaling::None,
        job: serde_json::json!({ "imported": path.file_name().and_then(|name| name.to_str()) }),
        job_digest: String::new(),
        data_digest: String::new(),
        run: format!("import-{digest}"),
        digest,
        steps: 0,
        epochs: 0,
        metrics: BTreeMap::new(),
        created_unix_ms: now_ms(),
        signature: Some(signature),
        made_of,
        parent: None,
    };
    PublishModel { description, tensors: Vec::new(), file: Some(file) }
}

/// A file, whose ending says its kind.
fn file(path: &Path) -> anyhow::Result<(String, Bytes)> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    Ok((ending.to_ascii_lowercase(), read(path)?.into()))
}

/// The folder of a text-embedding model, as one file.
#[cfg(feature = "transformers")]
fn folder(path: &Path) -> anyhow::Result<(String, Bytes)> {
    use gradmesh::bert::{KIND, pack};
    let file = pack(path).with_context(|| path.display().to_string())?;
    let bytes = file.len() as u64;
    if bytes > FILE_BYTES_MAX {
        bail!("{} has {bytes} bytes; at most {FILE_BYTES_MAX} can be imported", path.display());
    }
    Ok((KIND.to_owned(), file.into()))
}

#[cfg(not(feature = "transformers"))]
fn folder(path: &Path) -> anyhow::Result<(String, Bytes)> {
    bail!(
        "{} is a folder without {DESCRIPTION}; to read text-embedding models build with --features transformers",
        path.display()
    )
}

/// A folder `models/<model>/<version>` of a registry, or a copy of one.
fn version(folder: &Path, model: String) -> anyhow::Result<PublishModel> {
    let path = folder.join(DESCRIPTION);
    let json = fs::read(&path).with_context(|| format!("{} is no version", folder.display()))?;
    let described: VersionDescription =
        serde_json::from_slice(&json).with_context(|| path.display().to_string())?;
    let artifact = described.artifact.clone();
    // What a stranger's description names must not lead out of the folder.
    let inside = Path::new(&artifact.file).file_name().is_some_and(|name| name == &*artifact.file);
    if !inside {
        bail!("{}: artifact {:?} is no file of this folder", path.display(), artifact.file);
    }
    let path = folder.join(&artifact.file);
    let file = read(&path)?;
    let digest = blake3::hash(&file).to_hex();
    if digest.as_str() != artifact.blake3 {
        bail!("{}: BLAKE3 is {digest}, {} was described", path.display(), artifact.blake3);
    }
    let new = NewVersion { model, ..NewVersion::from(described) };
    if new.signature.is_some() {
        return Ok(PublishModel { description: new, tensors: Vec::new(), file: Some(file.into()) });
    }
    let read = read_safetensors(&file).with_context(|| path.display().to_string())?;
    let tensors = read.tensors.into_iter().map(|tensor| tensor.values).collect();
    Ok(PublishModel { description: new, tensors, file: None })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let name = path.display();
    let bytes = fs::metadata(path).with_context(|| name.to_string())?.len();
    if bytes > FILE_BYTES_MAX {
        bail!("{name} has {bytes} bytes; a model of at most {FILE_BYTES_MAX} can be imported");
    }
    fs::read(path).with_context(|| name.to_string())
}

fn now_ms() -> u64 {
    u64::try_from(OperatingSystem.unix_time().as_millis()).unwrap_or(u64::MAX)
}
