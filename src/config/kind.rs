//! What the values of a key may be: the type, the range, and both in words.

use std::fmt;
use std::net::SocketAddr;

use ::config::{File, FileFormat, Source, Value, ValueKind};
use gradmesh_actors::nearest::nearest;
use gradmesh_actors::version::Start;
use serde_json::Value as Json;

/// Longest name of a cluster, a model or a node: it becomes part of file names, of which a file
/// system takes 255 bytes.
pub const NAME_MAX: usize = 64;

/// Longest path or URL: `PATH_MAX` of Linux.
pub const PATH_MAX: usize = 4096;

/// Largest free table, in bytes of JSON: it is a part of each offer of the job, and of the
/// description of each version.
pub const TABLE_MAX: usize = 64 << 10;

/// Deepest free table. What carries it over the network takes single digits more.
pub const TABLE_DEPTH_MAX: usize = 8;

/// Type and range of a key. Its `Display` completes the sentence "expected …".
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Switch,
    /// Both ends belong to the range.
    Integer {
        min: u64,
        max: u64,
    },
    /// A whole number is taken too.
    Number(Interval),
    Choice(&'static [&'static str]),
    /// 1 to [`NAME_MAX`] letters, digits, `-`, `_` or `.`.
    Name,
    /// 1 to [`PATH_MAX`] bytes without control characters.
    Path,
    /// Number or header name of a column.
    Column,
    /// At most `len_max` whole numbers; none at all is a list too.
    Integers {
        len_max: usize,
        min: u64,
        max: u64,
    },
    Address,
    /// A model and the number of a version, such as `digits/3`.
    Start,
    /// Keys that only the program knows, each with a value of any type; at most
    /// [`TABLE_DEPTH_MAX`] deep and [`TABLE_MAX`] bytes as JSON.
    Table,
    /// At least one, none twice.
    Choices(&'static [&'static str]),
}

/// A range of numbers, either end of which may be left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    min: f64,
    max: f64,
    min_excluded: bool,
    max_excluded: bool,
}

impl Interval {
    pub(super) const fn closed(min: f64, max: f64) -> Self {
        Self { min, max, min_excluded: false, max_excluded: false }
    }

    /// `min ≤ x < max`.
    pub(super) const fn below(min: f64, max: f64) -> Self {
        Self { min, max, min_excluded: false, max_excluded: true }
    }

    /// `min < x ≤ max`.
    pub(super) const fn above(min: f64, max: f64) -> Self {
        Self { min, max, min_excluded: true, max_excluded: false }
    }

    /// Excluded ends are compared as the `f32` that most keys become: a momentum of 0.99999999
    /// would be 1, a learning rate of 1e-50 would be 0.
    fn contains(&self, x: f64) -> bool {
        let from = if self.min_excluded { x as f32 > self.min as f32 } else { x >= self.min };
        let to = if self.max_excluded { (x as f32) < self.max as f32 } else { x <= self.max };
        from && to
    }
}

impl Kind {
    /// Reads the text of an environment variable or of `--set`. Text that is not of this kind
    /// stays text, which [`Kind::check`] refuses.
    pub(super) fn read(&self, text: &str) -> ValueKind {
        let trimmed = text.trim();
        let value = match self {
            Self::Switch => trimmed.parse().ok().map(ValueKind::Boolean),
            Self::Integer { .. } => trimmed.parse().ok().map(ValueKind::I64),
            Self::Number(_) => trimmed.parse().ok().map(ValueKind::Float),
            Self::Integers { .. } => list(trimmed)
                .map(|item| {
                    item.parse().ok().map(|number| Value::new(None, ValueKind::I64(number)))
                })
                .collect::<Option<Vec<_>>>()
                .map(ValueKind::Array),
            Self::Choices(_) => {
                let items = list(trimmed).map(|item| item.trim_matches('"'));
                Some(ValueKind::Array(items.map(|item| Value::new(None, item)).collect()))
            }
            Self::Table => free_value(trimmed),
            Self::Choice(_)
            | Self::Name
            | Self::Path
            | Self::Column
            | Self::Address
            | Self::Start => None,
        };
        value.unwrap_or_else(|| ValueKind::String(text.to_owned()))
    }

    /// The value as the typed configuration takes it, or `None` where it has another type or is
    /// out of range.
    pub(super) fn check(&self, value: &ValueKind) -> Option<Json> {
        match (self, value) {
            (Self::Switch, ValueKind::Boolean(on)) => Some(Json::from(*on)),
            (Self::Integer { min, max }, ValueKind::I64(number)) => integer(*number, *min, *max),
            (Self::Number(range), ValueKind::I64(number)) => float(*number as f64, range),
            (Self::Number(range), ValueKind::Float(number)) => float(*number, range),
            (Self::Choice(choices), ValueKind::String(text)) => choice(text, choices),
            (Self::Name, ValueKind::String(text)) => is_name(text).then(|| text.as_str().into()),
            (Self::Path, ValueKind::String(text)) => is_path(text).then(|| text.as_str().into()),
            (Self::Column, ValueKind::String(text)) => is_path(text).then(|| text.as_str().into()),
            (Self::Column, ValueKind::I64(number)) => Some(number.to_string().into()),
            (Self::Integers { len_max, min, max }, ValueKind::Array(items)) => {
                if items.len() > *len_max {
                    return None;
                }
                let one = Self::Integer { min: *min, max: *max };
                items.iter().map(|item| one.check(&item.kind)).collect()
            }
            (Self::Address, ValueKind::String(text)) => {
                text.parse::<SocketAddr>().ok().map(|address| address.to_string().into())
            }
            (Self::Start, ValueKind::String(text)) => {
                text.parse::<Start>().ok().map(|start| start.to_string().into())
            }
            (Self::Table, ValueKind::Table(_)) => {
                free_json(value, TABLE_DEPTH_MAX).filter(|json| json.to_string().len() <= TABLE_MAX)
            }
            (Self::Choices(choices), ValueKind::Array(items)) => {
                let one = Self::Choice(choices);
                let items: Option<Vec<Json>> =
                    items.iter().map(|item| one.check(&item.kind)).collect();
                items.filter(|items| !items.is_empty() && !has_twice(items)).map(Json::from)
            }
            _ => None,
        }
    }

    /// The choice that a misspelt one was meant to be.
    pub(super) fn nearest_choice(&self, value: &ValueKind) -> Option<&'static str> {
        match (self, value) {
            (Self::Choice(choices), ValueKind::String(text)) => {
                nearest(text, choices.iter().copied())
            }
            (Self::Choices(choices), ValueKind::Array(items)) => {
                let one = Self::Choice(choices);
                let wrong = items.iter().find(|item| one.check(&item.kind).is_none())?;
                one.nearest_choice(&wrong.kind)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch => f.write_str("true or false"),
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Number(range) => write!(f, "a number {range}"),
            Self::Choice(choices) => write!(f, "one of {}", quoted(choices)),
            Self::Name => write!(f, "1 to {NAME_MAX} letters, digits, -, _ or ."),
            Self::Path => write!(f, "a path of 1 to {PATH_MAX} bytes"),
            Self::Column => f.write_str(
                "a column's number, from 0 or negative from the end, or its name in the header",
            ),
            Self::Integers { len_max, min, max } => {
                write!(f, "a list of at most {len_max} whole numbers from {min} to {max}")
            }
            Self::Address => f.write_str("an IP address with a port, such as \"127.0.0.1:8080\""),
            Self::Start => f.write_str("a model and the number of a version, such as \"digits/3\""),
            Self::Table => write!(
                f,
                "a table of any values, at most {TABLE_DEPTH_MAX} deep and {TABLE_MAX} bytes as JSON"
            ),
            Self::Choices(choices) => write!(f, "a list of any of {}, none twice", quoted(choices)),
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = if self.min_excluded { "above" } else { "from" };
        let to = match (self.min_excluded, self.max_excluded) {
            (_, true) => ", below",
            (true, false) => ", at most",
            (false, false) => " to",
        };
        write!(f, "{from} {}{to} {}", self.min, self.max)
    }
}

fn quoted(choices: &[&str]) -> String {
    choices.iter().map(|choice| format!("\"{choice}\"")).collect::<Vec<_>>().join(", ")
}

/// A value of a free table as TOML reads it; `None` for text without quotes.
pub(super) fn free_value(text: &str) -> Option<ValueKind> {
    let text = format!("value = {text}");
    let mut table = File::from_str(&text, FileFormat::Toml).collect().ok()?;
    // More than one: there was a line break in it.
    if table.len() == 1 { table.remove("value").map(|value| value.kind) } else { None }
}

/// `None` for what JSON doesn't have, such as `nan`, and for what is deeper than `depth`.
fn free_json(value: &ValueKind, depth: usize) -> Option<Json> {
    match value {
        ValueKind::Boolean(on) => Some((*on).into()),
        ValueKind::I64(number) => Some((*number).into()),
        // As everywhere: two spellings of zero have one digest.
        ValueKind::Float(number) => number.is_finite().then(|| (number + 0.0).into()),
        ValueKind::String(text) => Some(text.as_str().into()),
        ValueKind::Array(items) => {
            let depth = depth.checked_sub(1)?;
            let items: Option<Vec<Json>> =
                items.iter().map(|item| free_json(&item.kind, depth)).collect();
            items.map(Json::from)
        }
        ValueKind::Table(table) => {
            let depth = depth.checked_sub(1)?;
            // Sorted: the digest of a job must not depend on the order of keys.
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(name, _)| *name);
            let json = |(name, value): (&String, &Value)| {
                Some((name.clone(), free_json(&value.kind, depth)?))
            };
            entries.into_iter().map(json).collect::<Option<_>>().map(Json::Object)
        }
        ValueKind::Nil | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => None,
    }
}

/// The items of `[1, 2]` or of `1,2`.
fn list(text: &str) -> impl Iterator<Item = &str> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    inner.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn integer(number: i64, min: u64, max: u64) -> Option<Json> {
    let number = u64::try_from(number).ok()?;
    (min..=max).contains(&number).then(|| number.into())
}

/// Adding 0 turns -0 into 0, so that two spellings of zero have one digest.
fn float(number: f64, range: &Interval) -> Option<Json> {
    range.contains(number).then(|| (number + 0.0).into())
}

fn choice(text: &str, choices: &[&str]) -> Option<Json> {
    choices.contains(&text).then(|| text.into())
}

fn has_twice(items: &[Json]) -> bool {
    items.iter().enumerate().any(|(at, item)| items[..at].contains(item))
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // `.` and `..` are folders wherever a name becomes part of a path.
    (1..=NAME_MAX).contains(&text.len()) && text.chars().all(allowed) && text != "." && text != ".."
}

fn is_path(text: &str) -> bool {
    (1..=PATH_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_that_rounds_to_an_excluded_end_is_refused() {
        let range = Interval::below(0.0, 1.0);
        assert!(range.contains(0.999));
        assert!(!range.contains(0.999_999_999));
        assert!(!Interval::above(0.0, 1.0).contains(1e-50));
    }

    #[test]
    fn not_a_number_and_infinity_are_in_no_range() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(!Interval::closed(0.0, 1e9).contains(number), "{number}");
            assert!(!Interval::above(0.0, 1e9).contains(number), "{number}");
            assert!(!Interval::below(0.0, 1.0).contains(number), "{number}");
        }
    }

    #[test]
    fn list_is_read_with_and_without_brackets() {
        let kind = Kind::Integers { len_max: 3, min: 1, max: 500 };
        for text in ["[128,64]", "128,64", " [ 128 , 64 ] "] {
            assert_eq!(kind.check(&kind.read(text)), Some(serde_json::json!([128, 64])), "{text}");
        }
        assert_eq!(kind.check(&kind.read("[]")), Some(serde_json::json!([])));
        assert_eq!(kind.check(&kind.read("128,wide")), None);
    }

    #[test]
    fn both_zeros_become_the_same_value() {
        let kind = Kind::Number(Interval::closed(0.0, 1.0));
        let zero = kind.check(&ValueKind::Float(-0.0)).map(|value| value.to_string());
        assert_eq!(zero.as_deref(), Some("0.0"));
    }
}
