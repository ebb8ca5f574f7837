//! `node models`: asks the registries of a running cluster, or the store itself where none runs.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use comfy_table::{Table, presets};
use gradmesh::config::Config;
use gradmesh::node::{Node, NodeBuilder, RegistryLinks};
use gradmesh::transport::TcpTransport;
use gradmesh_actors::messages::{
    DeleteVersion, FindModel, ListModels, RemoveAlias, SetAlias, SetRoute, ask,
};
use gradmesh_actors::route::{Route, Split};
use gradmesh_actors::version::VersionRef;
use tracing::info;

use crate::answer;
use crate::args::ModelsCommand;
use crate::import::import;

/// A change waits for the store's disk.
const LIMIT: Duration = Duration::from_secs(30);
/// A model is sent, written and synced, as a coordinator's is.
const IMPORT_LIMIT: Duration = Duration::from_secs(60);
/// A registry that runs answers within milliseconds, and the next one is asked after 300.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Only the registry and the predictor of a configuration, in this process.
pub(crate) async fn registry(mut config: Config) -> anyhow::Result<Node> {
    config.nodes.clear();
    Ok(NodeBuilder::new(config).train(false).start().await?)
}

/// Any registry of the cluster that runs: it may be the only one that reaches the store. Where none
/// answers, one in this process, which lives as long as the node that comes with it.
async fn registries(config: Config) -> anyhow::Result<(RegistryLinks, Option<Node>)> {
    let transport = Rc::new(TcpTransport);
    if let Some(links) = RegistryLinks::of_cluster(&config, "models", transport) {
        match ask(&links.list, ListModels {}, ANSWER_LIMIT).await {
            Ok(_) => return Ok((links, None)),
            Err(error) => {
                let store = &config.registry.store;
                info!(%error, store, "no registry of the cluster answers; its store is read here");
            }
        }
    }
    let node = registry(config).await?;
    Ok((node.registries().clone(), Some(node)))
}

pub(crate) async fn models(
    config: Config,
    command: ModelsCommand,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let (links, node) = registries(config).await?;
    match command {
        ModelsCommand::List { model } => {
            let list = ask(&links.list, ListModels {}, LIMIT).await?;
            let wanted = |name: &str| model.as_deref().is_none_or(|model| model == name);
            let (models, others): (Vec<_>, Vec<_>) =
                list.models.into_iter().partition(|summary| wanted(&summary.model));
            if let Some(model) = &model
                && models.is_empty()
            {
                let known: Vec<_> = others.into_iter().map(|summary| summary.model).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                bail!("no model {model:?}; known models: {known}");
            }
            if json {
                answer::line(serde_json::to_string(&models)?)?;
            } else {
                let mut table = Table::new();
                table
                    .load_preset(presets::UTF8_BORDERS_ONLY)
                    .set_header(["model", "versions", "aliases", "route"]);
                for summary in models {
                    let versions: Vec<_> =
                        summary.versions.iter().map(ToString::to_string).collect();
                    let aliases: Vec<_> = summary
                        .aliases
                        .iter()
                        .map(|(alias, version)| format!("{alias} → {version}"))
                        .collect();
                    let route = summary.route.as_ref().map_or_else(String::new, told);
                    table.add_row([summary.model, versions.join(" "), aliases.join(", "), route]);
                }
                answer::line(table)?;
            }
        }
        ModelsCommand::Show { model, version } => {
            let version = parse(version.as_deref().unwrap_or("latest"))?;
            let found = ask(&links.find, FindModel { model, version }, LIMIT).await?;
            answer::line(serde_json::to_string_pretty(&found)?)?;
        }
        ModelsCommand::Alias { model, alias, version: None, .. } => {
            let remove = RemoveAlias { model: model.clone(), alias: alias.clone() };
            ask(&links.remove_alias, remove, LIMIT).await?;
            if json {
                answer::line(serde_json::json!({ "model": model, "removed": alias }))?;
            } else {
                answer::line(format_args!("{alias} names no version of {model} any more"))?;
            }
        }
        ModelsCommand::Alias { model, alias, version: Some(version), .. } => {
            let set = SetAlias { model: model.clone(), alias, version: parse(&version)? };
            let named = set.alias.clone();
            let set = ask(&links.set_alias, set, LIMIT).await?;
            if json {
                let set = serde_json::json!({
                    "model": model, "alias": named, "version": set.version,
                });
                answer::line(set)?;
            } else {
                answer::line(format_args!("{named} of {model} is version {} now", set.version))?;
            }
        }
        ModelsCommand::Route { model, splits, shadow } => {
            let route = route(&splits, shadow.as_deref())?;
            let set = SetRoute { model: model.clone(), route: route.clone() };
            ask(&links.set_route, set, LIMIT).await?;
            if json {
                answer::line(serde_json::json!({ "model": model, "route": route }))?;
            } else {
                let told = route.as_ref().map_or_else(|| "latest".to_owned(), told);
                answer::line(format_args!("requests for {model} go to {told} now"))?;
            }
        }
        ModelsCommand::Import { path, model } => {
            let publish = import(&path, model.clone(), &links.find).await?;
            let published = ask(&links.publish, publish, IMPORT_LIMIT).await;
            let published = published.with_context(|| path.display().to_string())?;
            let version = published.version;
            if json {
                let already = published.already;
                let told = serde_json::json!({
                    "model": model, "version": version, "already": already,
                });
                answer::line(told)?;
            } else {
                let when = if published.already { "already" } else { "now" };
                answer::line(format_args!(
                    "{} is version {version} of {model} {when}",
                    path.display()
                ))?;
            }
        }
        ModelsCommand::Delete { model, version } => {
            let VersionRef::Number(version) = parse(&version)? else {
                bail!("{version:?} may name another version soon; delete {model} by number");
            };
            let delete = DeleteVersion { model: model.clone(), version };
            ask(&links.delete, delete, LIMIT).await?;
            if json {
                answer::line(serde_json::json!({ "model": model, "deleted": version }))?;
            } else {
                answer::line(format_args!("version {version} of {model} is gone"))?;
            }
        }
    }
    if let Some(node) = node {
        node.stop().await;
    }
    Ok(ExitCode::SUCCESS)
}

/// `None` where nothing is split.
fn route(splits: &[String], shadow: Option<&str>) -> anyhow::Result<Option<Route>> {
    if splits.is_empty() {
        return Ok(None);
    }
    let split = |split: &String| {
        let wrong = || format!("{split:?} is no VERSION=WEIGHT, such as production=95");
        let (version, weight) = split.split_once('=').with_context(wrong)?;
        let weight = weight.parse().with_context(wrong)?;
        Ok(Split { version: parse(version)?, weight })
    };
    let splits = splits.iter().map(split).collect::<anyhow::Result<_>>()?;
    Ok(Some(Route { splits, shadow: shadow.map(parse).transpose()? }))
}

/// `production=95 7=5, shadow latest`.
fn told(route: &Route) -> String {
    let splits = route.splits.iter().map(|split| format!("{}={}", split.version, split.weight));
    let splits = splits.collect::<Vec<_>>().join(" ");
    match &route.shadow {
        Some(shadow) => format!("{splits}, shadow {shadow}"),
        None => splits,
    }
}

pub(crate) fn parse(version: &str) -> anyhow::Result<VersionRef> {
    version.parse().with_context(|| format!("version {version:?}"))
}
