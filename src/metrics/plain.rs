//! The older text format of Prometheus, for whoever does not ask for OpenMetrics.

use std::collections::BTreeSet;

/// The same page in the format 0.0.4, in which a counter is described under the name that its samples
/// have.
pub(super) fn plain(open_metrics: &str) -> String {
    let described = |line: &str| -> Option<(String, String)> {
        let (name, rest) = line.split_once(' ')?;
        Some((name.to_owned(), rest.to_owned()))
    };
    let types = open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let counters: BTreeSet<String> = types
        .filter_map(described)
        .filter(|(_, kind)| kind == "counter")
        .map(|(name, _)| name)
        .collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let comment = ["# HELP ", "# TYPE "].into_iter().find(|start| line.starts_with(start));
        let told =
            comment.and_then(|start| described(&line[start.len()..]).map(|one| (start, one)));
        match told {
            Some((start, (name, rest))) if counters.contains(&name) => {
                text.push_str(&format!("{start}{name}_total {rest}\n"));
            }
            None if line.starts_with('#') => {}
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn counters_are_described_under_the_name_of_their_samples() {
        let open_metrics = "# HELP a Things.\n# TYPE a counter\na_total{x=\"# y\"} 1\n\
                            # HELP b Seconds.\n# TYPE b gauge\n# UNIT b seconds\nb 2\n# EOF\n";
        let expected = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"# y\"} 1\n\
                        # HELP b Seconds.\n# TYPE b gauge\nb 2\n";
        assert_eq!(plain(open_metrics), expected);
    }
}
