//! A failure as a test, ready to paste.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Seed;
use super::fault::FaultPlan;
use super::report::Broken;

/// Of rustfmt; a longer array has a line an element.
const WIDTH: usize = 100;
/// Lines of faults; the rest of the test has nine.
const FAULT_LINES: usize = 16;
/// Of a name or a comment that comes from a check's name.
const NAME_MAX: usize = 60;

/// At most 25 lines of Rust. `built_by` is an expression of the [`super::Sim`] that failed.
pub(super) fn test(seed: Seed, plan: &FaultPlan, broken: &Broken, built_by: &str) -> String {
    let claim = match broken {
        Broken::Check(name) | Broken::Panicked { check: name, .. } => slug(name),
        Broken::Hung { .. } => "the_run_comes_to_its_end".to_owned(),
        Broken::Training(_) => "training_succeeds".to_owned(),
        Broken::Ended { .. } => "each_node_can_run".to_owned(),
        Broken::Digest { .. } => "the_digest_is_that_of_a_calm_run".to_owned(),
    };
    let story: String = broken.to_string().replace(['\n', '\r'], " ").chars().take(80).collect();
    let mut text = format!("/// Was: {story}.\n#[test]\nfn {claim}_with_seed_{seed}() {{\n");
    let written: Vec<String> = plan.faults.iter().map(ToString::to_string).collect();
    let names = written.iter().filter_map(|fault| fault.split('(').next());
    let names: BTreeSet<&str> = names.collect();
    let uses: Vec<&str> = std::iter::once("Seed").chain(names).collect();
    // Writing to a `String` doesn't fail.
    let _ = match uses.as_slice() {
        [one] => writeln!(text, "    use gradmesh::sim::{one};\n"),
        many => writeln!(text, "    use gradmesh::sim::{{{}}};\n", many.join(", ")),
    };
    let _ = if written.is_empty() {
        writeln!(text, "    let calm = {built_by}.faults([]);\n    calm.must_pass(Seed({seed}));")
    } else {
        let faults = array(&written);
        writeln!(
            text,
            "    let faults = {faults};\n    {built_by}.faults(faults).must_pass(Seed({seed}));"
        )
    };
    text.push_str("}\n");
    text
}

fn array(faults: &[String]) -> String {
    let line = format!("[{}]", faults.join(", "));
    if line.len() + "    let faults = ;".len() <= WIDTH {
        return line;
    }
    let lines = faults.chunks(faults.len().div_ceil(FAULT_LINES));
    let lines: String = lines.map(|line| format!("        {},\n", line.join(", "))).collect();
    format!("[\n{lines}    ]")
}

/// A name of a check as one of a function.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().take(NAME_MAX) {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.ends_with('_') && !slug.is_empty() {
            slug.push('_');
        }
    }
    let slug = slug.trim_end_matches('_');
    if slug.starts_with(|c: char| c.is_ascii_lowercase()) {
        slug.to_owned()
    } else {
        format!("check_{slug}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::{ANY, kill, lose};
    use super::*;

    fn lost() -> Broken {
        Broken::Check("increments are kept".to_owned())
    }

    #[test]
    fn one_fault_stands_on_one_line() {
        let plan = FaultPlan::new([kill("ps-0").at("4.8s").for_("0.8s")]);
        let text = test(Seed(17), &plan, &lost(), "digits(\"\")");
        assert_eq!(
            text,
            r#"/// Was: "increments are kept" does not hold.
#[test]
fn increments_are_kept_with_seed_17() {
    use gradmesh::sim::{Seed, kill};

    let faults = [kill("ps-0").at("4.8s").for_("0.8s")];
    digits("").faults(faults).must_pass(Seed(17));
}
"#
        );
    }

    #[test]
    fn a_failure_without_faults_says_so() {
        let text = test(Seed(3), &FaultPlan::default(), &lost(), "simulation()");
        assert!(text.contains("use gradmesh::sim::Seed;"), "{text}");
        assert!(text.contains("simulation().faults([]);"), "{text}");
    }

    #[test]
    fn forty_faults_fit_into_25_lines() {
        let fault = |i| if i % 2 == 0 { kill("ps-0") } else { lose(ANY, "ps-1", 7) };
        let plan = FaultPlan::new((0..40).map(|i| fault(i).at("1234ms").for_("5678ms")));
        let broken = Broken::Training("a cause\nof two lines".to_owned());
        let text = test(Seed(u64::MAX), &plan, &broken, "simulation()");
        assert!(text.lines().count() <= 25, "{text}");
        assert!(text.contains("{Seed, kill, lose}"), "{text}");
        assert_eq!(text.matches("at(\"1234ms\")").count(), 40);
    }

    #[test]
    fn a_name_of_a_check_becomes_one_of_a_function() {
        assert_eq!(slug("each push counts once, always!"), "each_push_counts_once_always");
        assert_eq!(slug("2 copies"), "check_2_copies");
        assert_eq!(slug("größer"), "gr_er");
        assert_eq!(slug("…"), "check_");
    }
}
