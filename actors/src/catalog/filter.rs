//! The language in which models and versions are searched: comparisons, joined by AND, as MLflow's
//! clients write them.
//!
//! ```text
//! name LIKE 'dig%' AND tags.team = 'vision' AND metrics.test_accuracy >= 0.9
//! ```
//!
//! Keys: `name`, `version_number`, `run_id`, `source_path`, `creation_timestamp`,
//! `last_updated_timestamp`, `tags.KEY` (or `tag.KEY`), `metrics.KEY`; a key with other characters
//! than letters, digits, `_`, `-` and `.` stands in backquotes or double quotes. Comparisons: `=`, `!=`, `<`,
//! `<=`, `>`, `>=`, `LIKE`, `ILIKE` (`%` any characters, `_` one), `IN ('a', 'b')`. A text stands in single or
//! double quotes. What is not there is unlike every value: only `!=` holds of it.

use serde::{Deserialize, Serialize};
use winnow::ascii::{Caseless, multispace0, multispace1};
use winnow::combinator::{alt, cut_err, delimited, fail, opt, preceded, separated, terminated};
use winnow::prelude::*;
use winnow::token::{literal, take_till, take_while};

/// Bytes of a filter: more than fits into the address of a request as a rule.
const FILTER_MAX: usize = 4096;

/// A filter, or an order, that can't be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum FilterError {
    #[error("the filter can't be read at {rest:?}; such as: name LIKE 'a%' AND tags.team = 'b'")]
    Syntax { rest: String },
    #[error("the filter has {got} bytes, it can have {max}")]
    Long { got: usize, max: usize },
    #[error("nothing is called {key:?} here; there are {known}")]
    Key { key: String, known: String },
    #[error("{key} is a number; compare it with one, by =, !=, <, <=, > or >=")]
    Number { key: String },
    #[error("can't order by {order:?}; such as: name ASC, or version_number DESC")]
    Order { order: String },
}

/// Comparisons, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Filter(Vec<Comparison>);

#[derive(Clone, Debug, PartialEq)]
struct Comparison {
    key: Key,
    operator: Operator,
    value: Value,
}

/// What a comparison is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Name,
    Number,
    Run,
    Place,
    Created,
    Updated,
    Tag(String),
    Metric(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
    Like,
    IgnoringCase,
    In,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Number(f64),
    Any(Vec<String>),
}

/// What something has under a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Found<'a> {
    Text(&'a str),
    Number(f64),
    Nothing,
}

impl Filter {
    /// # Errors
    /// A text that is none, a key that nothing has, or a number that is compared as a text.
    pub(super) fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > FILTER_MAX {
            return Err(FilterError::Long { got: text.len(), max: FILTER_MAX });
        }
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let read = delimited(multispace0, separated(1.., comparison, and), multispace0).parse(text);
        let read: Vec<(String, Operator, Value)> = read.map_err(|error| {
            let rest = text.get(error.offset()..).unwrap_or_default().chars().take(40).collect();
            FilterError::Syntax { rest }
        })?;
        let checked = read.into_iter().map(|(key, operator, value)| {
            let name = key;
            let key = Key::parse(&name)?;
            Comparison { key, operator, value }.checked(&name)
        });
        checked.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn holds<'a>(&self, of: impl Fn(&Key) -> Found<'a>) -> bool {
        self.0.iter().all(|comparison| comparison.holds(of(&comparison.key)))
    }
}

impl Key {
    pub(super) fn parse(text: &str) -> Result<Self, FilterError> {
        let attribute = text.strip_prefix("attributes.").or(text.strip_prefix("attribute."));
        Ok(match attribute.unwrap_or(text) {
            "name" => Self::Name,
            "version_number" | "version" => Self::Number,
            "run_id" => Self::Run,
            "source_path" | "source" => Self::Place,
            "creation_timestamp" => Self::Created,
            "last_updated_timestamp" | "timestamp" => Self::Updated,
            other => match other.split_once('.') {
                Some(("tag" | "tags", key)) => Self::Tag(key.to_owned()),
                Some(("metric" | "metrics", key)) => Self::Metric(key.to_owned()),
                _ => {
                    let known = "name, version_number, run_id, source_path, creation_timestamp, last_updated_timestamp, tags.KEY, metrics.KEY";
                    let key = other.chars().take(40).collect();
                    return Err(FilterError::Key { key, known: known.to_owned() });
                }
            },
        })
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Number | Self::Created | Self::Updated | Self::Metric(_))
    }
}

impl Comparison {
    /// Numbers with numbers; a number in quotes is one too.
    fn checked(self, name: &str) -> Result<Self, FilterError> {
        let Self { key, operator, value } = self;
        if !key.is_number() {
            let value = match value {
                Value::Number(number) => Value::Text(number.to_string()),
                text => text,
            };
            return Ok(Self { key, operator, value });
        }
        let textual = matches!(operator, Operator::Like | Operator::IgnoringCase | Operator::In);
        let number = match &value {
            Value::Number(number) => Some(*number),
            Value::Text(text) => text.parse().ok(),
            Value::Any(_) => None,
        };
        match number.filter(|_| !textual) {
            Some(number) => Ok(Self { key, operator, value: Value::Number(number) }),
            None => Err(FilterError::Number { key: name.chars().take(40).collect() }),
        }
    }

    fn holds(&self, found: Found<'_>) -> bool {
        let Self { operator, value, .. } = self;
        match (found, value) {
            (Found::Number(found), Value::Number(value)) => {
                operator.orders(found.partial_cmp(value))
            }
            (Found::Text(found), Value::Text(value)) => match operator {
                Operator::Like => like(found, value),
                Operator::IgnoringCase => like(&found.to_lowercase(), &value.to_lowercase()),
                operator => operator.orders(Some(found.cmp(value.as_str()))),
            },
            (Found::Text(found), Value::Any(values)) => values.iter().any(|value| value == found),
            _ => *operator == Operator::Unequal,
        }
    }
}

impl Operator {
    fn orders(self, order: Option<std::cmp::Ordering>) -> bool {
        let Some(order) = order else { return self == Self::Unequal };
        match self {
            Self::Equal => order.is_eq(),
            Self::Unequal => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::More => order.is_gt(),
            Self::AtLeast => order.is_ge(),
            Self::Like | Self::IgnoringCase | Self::In => false,
        }
    }
}

/// Whether a text matches a pattern with `%` for any characters and `_` for one. Time: the product of
/// the lengths at most.
fn like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) =
        (text.chars().collect(), pattern.chars().collect());
    let (mut at, mut in_pattern) = (0, 0);
    // The last `%`, and where the text went on after it.
    let mut back: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(in_pattern) {
            Some('%') => {
                back = Some((in_pattern, at));
                in_pattern += 1;
            }
            Some(&wanted) if wanted == '_' || wanted == text[at] => {
                (at, in_pattern) = (at + 1, in_pattern + 1);
            }
            _ => {
                let Some((star, from)) = back else { return false };
                back = Some((star, from + 1));
                (at, in_pattern) = (from + 1, star + 1);
            }
        }
    }
    pattern[in_pattern..].iter().all(|&rest| rest == '%')
}

fn and(input: &mut &str) -> ModalResult<()> {
    delimited(multispace1, literal(Caseless("AND")), multispace1).void().parse_next(input)
}

fn comparison(input: &mut &str) -> ModalResult<(String, Operator, Value)> {
    let key = terminated(key, multispace0).parse_next(input)?;
    let operator = terminated(operator, multispace0).parse_next(input)?;
    let value = match operator {
        Operator::In => cut_err(list).parse_next(input)?,
        _ => cut_err(alt((text.map(Value::Text), number.map(Value::Number)))).parse_next(input)?,
    };
    Ok((key, operator, value))
}

/// `name`, `tags.team`, `` tags.`team.x` ``.
fn key(input: &mut &str) -> ModalResult<String> {
    let word = |input: &mut &str| -> ModalResult<String> {
        take_while(1.., |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
            .map(str::to_owned)
            .parse_next(input)
    };
    let quoted = |quote: char| delimited(quote, take_till(1.., quote), quote).map(str::to_owned);
    let part = alt((quoted('`'), quoted('"'), word));
    separated(1.., part, '.').map(|parts: Vec<String>| parts.join(".")).parse_next(input)
}

fn operator(input: &mut &str) -> ModalResult<Operator> {
    let word = |word: &'static str| terminated(literal(Caseless(word)), multispace0);
    alt((
        "=".value(Operator::Equal),
        "!=".value(Operator::Unequal),
        "<=".value(Operator::AtMost),
        "<".value(Operator::Less),
        ">=".value(Operator::AtLeast),
        ">".value(Operator::More),
        word("LIKE").value(Operator::Like),
        word("ILIKE").value(Operator::IgnoringCase),
        word("IN").value(Operator::In),
    ))
    .parse_next(input)
}

fn text(input: &mut &str) -> ModalResult<String> {
    let quoted = |quote: char| delimited(quote, take_till(0.., quote), quote).map(str::to_owned);
    alt((quoted('\''), quoted('"'))).parse_next(input)
}

fn number(input: &mut &str) -> ModalResult<f64> {
    let digits =
        take_while(1.., |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    let read: f64 = digits.parse_to().parse_next(input)?;
    if read.is_finite() { Ok(read) } else { fail.parse_next(input) }
}

fn list(input: &mut &str) -> ModalResult<Value> {
    let comma = delimited(multispace0, ',', multispace0);
    let texts = delimited(multispace0, separated(1.., text, comma), multispace0);
    preceded(opt(multispace1), delimited('(', texts, ')')).map(Value::Any).parse_next(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(filter: &str) -> bool {
        Filter::parse(filter).unwrap().holds(|key| match key {
            Key::Name => Found::Text("digits"),
            Key::Number => Found::Number(3.0),
            Key::Metric(name) if name == "test_accuracy" => Found::Number(0.93),
            Key::Tag(key) if key == "team.x" => Found::Text("vision"),
            _ => Found::Nothing,
        })
    }

    #[test]
    fn comparisons_mean_what_they_say() {
        for filter in [
            "",
            "  ",
            "name = 'digits'",
            "name = \"digits\"",
            "attributes.name != 'mnist' AND version_number >= 3",
            "name LIKE 'd_g%' and name ilike 'DIG%'",
            "name in ('a' , 'digits')",
            "version_number = '3'",
            "tags.`team.x` = 'vision' AND tag.\"team.x\" LIKE '%sio%'",
            "tags.team.x='vision'",
            "tag.`mlflow.prompt.is_prompt` != 'true'",
            "metrics.test_accuracy > 0.9 AND metrics.test_accuracy<9.4e-1",
            "run_id != 'none'",
        ] {
            assert!(holds(filter), "{filter}");
        }
        for filter in [
            "name = 'digit'",
            "name LIKE 'igits'",
            "name LIKE '%x%'",
            "name IN ('a')",
            "version_number < 3",
            "tags.none = ''",
            "tags.none LIKE '%'",
            "metrics.loss < 1",
            "name = 'digits' AND version_number = 4",
        ] {
            assert!(!holds(filter), "{filter}");
        }
    }

    #[test]
    fn a_filter_that_can_not_be_read_is_refused_with_the_place() {
        let refused = |filter: &str| Filter::parse(filter).unwrap_err().to_string();
        for (filter, rest) in [
            ("name", "\"\""),
            ("name = digits", "\"digits\""),
            ("name = 'a' OR name = 'b'", "\"OR name = 'b'\""),
            ("name = 'a", "\"'a\""),
            ("name IN 'a'", "\"'a'\""),
        ] {
            let told = refused(filter);
            assert!(told.starts_with(&format!("the filter can't be read at {rest}")), "{told}");
        }
        assert!(refused("colour = 'red'").starts_with("nothing is called \"colour\" here"));
        assert!(refused("version_number LIKE '3%'").contains("is a number"));
        assert!(refused("version_number = 'three'").contains("is a number"));
        assert!(refused(&"name".repeat(2000)).contains("8000 bytes, it can have 4096"));
    }

    #[test]
    fn a_pattern_of_many_percent_signs_ends_soon() {
        assert!(!like(&"a".repeat(4000), &format!("{}b", "%a".repeat(1000))));
        assert!(like(&"a".repeat(4000), &"%a".repeat(1000)));
        assert!(like("", "%%") && !like("", "_") && like("%", "_"));
    }
}
