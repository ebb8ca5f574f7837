//! One line of the table: a measurement of gradmesh beside its limit, once a round.

use serde_json::{Value, json};

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    GigabytesPerSecond,
    Microseconds,
    SamplesPerSecond,
    RequestsPerSecond,
    Milliseconds,
}

/// How the ratio of gradmesh to its limit is to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// It is told and has no goal.
    None,
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) what: String,
    /// What the limit is.
    pub(super) limit: &'static str,
    pub(super) unit: Unit,
    pub(super) goal: Goal,
    /// Gradmesh and limit, in the unit, once a round.
    pub(super) pairs: Vec<(f64, f64)>,
}

impl Row {
    pub(super) fn new(what: String, limit: &'static str, unit: Unit, goal: Goal) -> Self {
        Self { what, limit, unit, goal, pairs: Vec::new() }
    }

    pub(super) fn with(mut self, gradmesh: f64, limit: f64) -> Self {
        self.pairs.push((gradmesh, limit));
        self
    }

    fn gradmesh(&self) -> f64 {
        median(self.pairs.iter().map(|pair| pair.0))
    }

    fn limited(&self) -> f64 {
        median(self.pairs.iter().map(|pair| pair.1))
    }

    /// The median of the rounds' ratios: both sides of one were measured side by side.
    fn ratio(&self) -> f64 {
        median(self.pairs.iter().map(|pair| pair.0 / pair.1))
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "what": self.what,
            "limit_is": self.limit,
            "unit": self.unit.name(),
            "gradmesh": self.gradmesh(),
            "limit": self.limited(),
            "ratio": self.ratio(),
            "pairs": self.pairs,
        })
    }

    pub(super) fn cells(&self) -> [String; 5] {
        let figure = |figure: f64| match self.unit {
            Unit::SamplesPerSecond | Unit::RequestsPerSecond => format!("{:.1} k", figure / 1000.0),
            Unit::Microseconds | Unit::Milliseconds => format!("{figure:.0}"),
            Unit::GigabytesPerSecond => format!("{figure:.2}"),
        };
        let goal = match self.goal {
            Goal::AtLeast(goal) => format!("≥ {goal:.2}"),
            Goal::AtMost(goal) => format!("≤ {goal:.2}"),
            Goal::None => String::new(),
        };
        [
            format!("{}, {}", self.what, self.unit.name()),
            figure(self.gradmesh()),
            format!("{}: {}", self.limit, figure(self.limited())),
            format!("{:.2}", self.ratio()),
            goal,
        ]
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::GigabytesPerSecond => "GB/s",
            Self::Microseconds => "µs",
            Self::SamplesPerSecond => "samples/s",
            Self::RequestsPerSecond => "requests/s",
            Self::Milliseconds => "ms",
        }
    }
}

/// Adds a round's rows to those of the rounds before.
pub(super) fn gather(rows: &mut Vec<Row>, round: Vec<Row>) {
    for new in round {
        match rows.iter_mut().find(|row| row.what == new.what) {
            Some(row) => row.pairs.extend(new.pairs),
            None => rows.push(new),
        }
    }
}

/// The middle one; of an even number the upper.
pub(super) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// That of which `part` are smaller; `figures` rise.
pub(super) fn quantile(figures: &[f64], part: f64) -> f64 {
    let at = (figures.len() as f64 * part) as usize;
    figures.get(at.min(figures.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_of_a_row_come_together_and_their_ratios_have_a_median() {
        let row = |gradmesh, limit| {
            Row::new("x".into(), "y", Unit::Microseconds, Goal::AtMost(1.5)).with(gradmesh, limit)
        };
        let mut rows = Vec::new();
        for (gradmesh, limit) in [(10.0, 5.0), (9.0, 9.0), (3.0, 1.0)] {
            gather(&mut rows, vec![row(gradmesh, limit)]);
        }
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].gradmesh(), rows[0].limited(), rows[0].ratio()), (9.0, 5.0, 2.0));
        assert_eq!(rows[0].cells(), ["x, µs", "9", "y: 5", "2.00", "≤ 1.50"]);
    }
}
