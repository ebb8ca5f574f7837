//! Texts as rows of numbers: the words of a text, hashed into a fixed number of buckets.
//!
//! Weinberger, Dasgupta, Langford, Smola, Attenberg: Feature Hashing for Large Scale Multitask Learning
//! (2009). No vocabulary has to be kept: the words that a model was trained on and those that it is asked
//! about fall into the same buckets.

/// Buckets at most: as many values a row as data sets may have.
pub const BUCKETS_MAX: usize = 1 << 22;

/// Adds the words of a text to a row of zeros, which is as long as there are buckets, and scales it to
/// length 1. A text without words leaves zeros.
///
/// A word is a run of letters and digits, in small letters. Each adds 1 to its bucket or takes 1 off,
/// by a bit of its hash, so that words that share a bucket don't add up on average.
pub fn hash_text(text: &str, row: &mut [f32]) {
    if row.is_empty() {
        return;
    }
    for word in text.split(|of: char| !of.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let hash = blake3::hash(word.to_lowercase().as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
        let hash = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let bucket = (hash >> 1) % row.len() as u64;
        // Within the row, whose length is a `usize`.
        row[bucket as usize] += if hash & 1 == 0 { 1.0 } else { -1.0 };
    }
    let squares: f64 = row.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    if squares > 0.0 {
        let length = squares.sqrt();
        row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(text: &str, buckets: usize) -> Vec<f32> {
        let mut row = vec![0.0; buckets];
        hash_text(text, &mut row);
        row
    }

    #[test]
    fn the_same_words_are_the_same_row_whatever_their_case_order_and_what_is_between() {
        assert_eq!(hashed("Red heart, BIG", 64), hashed("big--heart red!", 64));
        assert_ne!(hashed("red heart", 64), hashed("red car", 64));
        assert_ne!(hashed("red red heart", 64), hashed("red heart", 64));
        assert_eq!(hashed("Ärger", 64), hashed("ärger", 64));
    }

    #[test]
    fn a_row_has_length_one_and_that_of_a_text_without_words_is_zero() {
        let squares: f32 = hashed("one two three three", 4096).iter().map(|x| x * x).sum();
        assert!((squares - 1.0).abs() < 1e-6, "{squares}");
        assert_eq!(hashed(" -- ", 8), [0.0; 8]);
        assert_eq!(hashed("a", 0), [0.0; 0]);
    }

    #[test]
    fn rows_stay_what_they_are_from_one_release_to_the_next() {
        let places: Vec<(usize, f32)> = hashed("grinning face", 1024)
            .into_iter()
            .enumerate()
            .filter(|(_, x)| *x != 0.0)
            .collect();
        assert_eq!(places, GOLDEN);
    }

    /// Models that were trained on such rows are served for years.
    const GOLDEN: [(usize, f32); 2] = [(626, 0.70710677), (951, -0.70710677)];
}
