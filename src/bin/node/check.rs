//! `node check`: every problem of the configuration at once.

use std::process::ExitCode;

use gradmesh::config::{Config, Fallback, Key, environment};

use crate::answer;
use crate::args::Args;

pub(crate) fn check(args: &Args, keys: bool) -> anyhow::Result<ExitCode> {
    if keys && args.json {
        let key = |key: &Key| {
            let default = match key.default {
                Fallback::Default(default) => Some(default),
                Fallback::Unset | Fallback::Required => None,
            };
            serde_json::json!({
                "key": key.path, "values": key.kind.to_string(), "default": default,
                "required": key.default == Fallback::Required, "doc": key.doc,
            })
        };
        answer::line(Config::keys().map(key).collect::<serde_json::Value>())?;
        return Ok(ExitCode::SUCCESS);
    }
    if keys {
        for key in Config::keys() {
            let default = match key.default {
                Fallback::Default(default) => format!("default {default}"),
                Fallback::Unset => "not set by default".to_owned(),
                Fallback::Required => "required".to_owned(),
            };
            answer::line(format_args!("{:32} {} ({}; {default})", key.path, key.doc, key.kind))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    match Config::load(&args.config, &args.set, environment()) {
        Ok(config) => {
            if args.json {
                let fine = serde_json::json!({
                    "ok": true, "job_digest": config.job.digest(), "config_digest": config.digest(),
                });
                answer::line(fine)?;
            } else {
                answer::line(format_args!(
                    "{} is fine: job {}",
                    args.config.display(),
                    &config.job.digest()[..16]
                ))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            if args.json {
                let problem = |problem: &gradmesh::config::Problem| {
                    serde_json::json!({
                        "key": problem.key, "value": problem.value, "problem": problem.problem,
                        "what_to_do": problem.what_to_do, "source": problem.source.to_string(),
                    })
                };
                let problems: Vec<_> = error.problems.iter().map(problem).collect();
                answer::line(serde_json::json!({ "ok": false, "problems": problems }))?;
            } else {
                answer::line(error)?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}
