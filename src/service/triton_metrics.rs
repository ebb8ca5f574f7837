//! The counters of the protocol's statistics under the names that Triton gives them, for dashboards
//! that exist. In the older text format: OpenMetrics would add `_total` to them.

use std::fmt::Write;

use super::oip::statistics::{ModelStatistics, Tally};

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A metric without its prefix, what it is, and where it stands.
type Metric = (&'static str, &'static str, fn(&ModelStatistics) -> u64);

const METRICS: [Metric; 9] = [
    ("request_success", "Requests that were answered", |told| told.inference_stats.success.count),
    ("request_failure", "Requests that the version failed", |told| told.inference_stats.fail.count),
    ("count", "Rows that were answered", |told| told.inference_count),
    ("exec_count", "Runs of the model", |told| told.execution_count),
    ("request_duration_us", "Time of all requests, reading and writing included", |told| {
        us(told.inference_stats.success)
    }),
    ("queue_duration_us", "Time of all requests before their runs", |told| {
        us(told.inference_stats.queue)
    }),
    ("compute_input_duration_us", "Time of turning requests into the model's input", |told| {
        us(told.inference_stats.compute_input)
    }),
    ("compute_infer_duration_us", "Time of the runs of all requests", |told| {
        us(told.inference_stats.compute_infer)
    }),
    ("compute_output_duration_us", "Time of turning the model's output into answers", |told| {
        us(told.inference_stats.compute_output)
    }),
];

fn us(tally: Tally) -> u64 {
    tally.ns / 1000
}

/// The page. Names of models and numbers of versions need no escapes.
pub(super) fn text(statistics: &[ModelStatistics]) -> String {
    let mut text = String::new();
    for (name, help, value) in METRICS {
        // Writing to a `String` does not fail.
        let _ = writeln!(text, "# HELP nv_inference_{name} {help}");
        let _ = writeln!(text, "# TYPE nv_inference_{name} counter");
        for told in statistics {
            let ModelStatistics { name: model, version, .. } = told;
            let labels = format_args!("model=\"{model}\",version=\"{version}\"");
            let _ = writeln!(text, "nv_inference_{name}{{{labels}}} {}", value(told));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_its_kind_and_a_line_a_version() {
        let version = |version: &str, rows| ModelStatistics {
            name: "m".into(),
            version: version.into(),
            inference_count: rows,
            ..ModelStatistics::default()
        };
        let text = text(&[version("1", 3), version("2", 4)]);
        let of_rows: Vec<&str> =
            text.lines().filter(|line| line.contains("nv_inference_count")).collect();
        let expected = [
            "# HELP nv_inference_count Rows that were answered",
            "# TYPE nv_inference_count counter",
            "nv_inference_count{model=\"m\",version=\"1\"} 3",
            "nv_inference_count{model=\"m\",version=\"2\"} 4",
        ];
        assert_eq!(of_rows, expected);
    }
}
