//! The known word that a misspelt one was most likely meant to be.

/// The nearest of `known`, or `None` where nothing is near enough to be worth a guess.
///
/// A dotted path is also compared by its last part, so that `learning_rate` finds
/// `job.optimizer.learning_rate`.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Beyond the longest key a word is no misspelling, and the distance takes time of its square.
    const LEN_MAX: usize = 100;
    if word.len() > LEN_MAX {
        return None;
    }
    let last = last_part(word);
    known
        .filter_map(|candidate| {
            let whole = strsim::osa_distance(word, candidate);
            let of_last = strsim::osa_distance(last, last_part(candidate));
            // One more: where the whole is as near, it is the better guess.
            let by_last = (of_last <= tolerance(last)).then_some(of_last + 1);
            let by_whole = (whole <= tolerance(word)).then_some(whole);
            let distance = by_whole.into_iter().chain(by_last).min()?;
            Some((distance, whole, candidate))
        })
        .min()
        .map(|(.., candidate)| candidate)
}

/// Slips of the finger in a word of this length; more and it is another word.
fn tolerance(word: &str) -> usize {
    (word.len() / 4).clamp(1, 3)
}

fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = [
        "job",
        "job.model.kind",
        "job.optimizer.kind",
        "job.optimizer.learning_rate",
        "job.batch_size",
    ];

    fn check(word: &str, expected: Option<&str>) {
        assert_eq!(nearest(word, KNOWN.into_iter()), expected, "{word}");
    }

    #[test]
    fn misspelt_path_is_found() {
        check("job.optimzer.kind", Some("job.optimizer.kind"));
        check("job.btach_size", Some("job.batch_size"));
    }

    #[test]
    fn last_part_alone_is_found() {
        check("learning_rate", Some("job.optimizer.learning_rate"));
        check("batchsize", Some("job.batch_size"));
    }

    #[test]
    fn word_that_is_near_nothing_gets_no_guess() {
        check("x", None);
        check("a[9].b", None);
        check("database.password", None);
    }
}
