//! `node models`: reads and changes the registry's store, running cluster or not.

use std::process::ExitCode;

use anyhow::{Context, bail};
use comfy_table::{Table, presets};
use gradmesh::config::Config;
use gradmesh::node::{Node, NodeBuilder};
use gradmesh_actors::messages::{DeleteVersion, FindModel, ListModels, SetAlias, ask};
use gradmesh_actors::version::VersionRef;

use crate::answer;
use crate::args::ModelsCommand;

/// A change waits for the store's disk.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// Only the registry and the predictor of a configuration, in this process.
pub(crate) async fn registry(mut config: Config) -> anyhow::Result<Node> {
    config.nodes.clear();
    Ok(NodeBuilder::new(config).train(false).start().await?)
}

pub(crate) async fn models(
    config: Config,
    command: ModelsCommand,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let node = registry(config).await?;
    let serving = node.serving();
    match command {
        ModelsCommand::List { model } => {
            let list = ask(&serving.list, ListModels {}, LIMIT).await?;
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
                    .set_header(["model", "versions", "aliases"]);
                for summary in models {
                    let versions: Vec<_> =
                        summary.versions.iter().map(ToString::to_string).collect();
                    let aliases: Vec<_> = summary
                        .aliases
                        .iter()
                        .map(|(alias, version)| format!("{alias} → {version}"))
                        .collect();
                    table.add_row([summary.model, versions.join(" "), aliases.join(", ")]);
                }
                answer::line(table)?;
            }
        }
        ModelsCommand::Show { model, version } => {
            let version = parse(version.as_deref().unwrap_or("latest"))?;
            let found = ask(&serving.find, FindModel { model, version }, LIMIT).await?;
            answer::line(serde_json::to_string_pretty(&found)?)?;
        }
        ModelsCommand::Alias { model, alias, version } => {
            let set = SetAlias { model: model.clone(), alias, version: parse(&version)? };
            let named = set.alias.clone();
            let set = ask(&serving.set_alias, set, LIMIT).await?;
            if json {
                let set = serde_json::json!({
                    "model": model, "alias": named, "version": set.version,
                });
                answer::line(set)?;
            } else {
                answer::line(format_args!("{named} of {model} is version {} now", set.version))?;
            }
        }
        ModelsCommand::Delete { model, version } => {
            let VersionRef::Number(version) = parse(&version)? else {
                bail!("{version:?} may name another version soon; delete {model} by number");
            };
            let delete = DeleteVersion { model: model.clone(), version };
            ask(&serving.delete, delete, LIMIT).await?;
            if json {
                answer::line(serde_json::json!({ "model": model, "deleted": version }))?;
            } else {
                answer::line(format_args!("version {version} of {model} is gone"))?;
            }
        }
    }
    node.stop().await;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn parse(version: &str) -> anyhow::Result<VersionRef> {
    version.parse().with_context(|| format!("version {version:?}"))
}
