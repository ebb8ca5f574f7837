//! Defaults, file, environment and `--set`, laid over each other.
//!
//! Each layer is flattened to the keys of the schema first. Merging them then needs no rules of
//! its own: `--set job.optimizer=adam` over a file with an `[job.optimizer]` table changes one key.

use ::config::{File, FileFormat, Map, Source, Value, ValueKind};

use super::error::Problem;
use super::kind::free_value;
use super::lookup::{Place, nearest_path, place};
use super::schema::{Fallback, KEYS};

/// The environment's variables are named `GRADMESH__JOB__BATCH_SIZE`.
const ENV_PREFIX: &str = "GRADMESH__";
/// Where values come from that nobody has set.
pub(super) const DEFAULTS: &str = "defaults";

/// The values of one source by the full path of their key; each knows where it comes from.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    values: Map<String, Value>,
    problems: Vec<Problem>,
}

impl Layer {
    /// # Errors
    /// The text is not TOML; with line and column.
    pub(super) fn file(text: &str, source: &str) -> Result<Self, Problem> {
        let table = File::from_str(text, FileFormat::Toml).collect().map_err(|error| Problem {
            problem: one_line(&error.to_string()),
            what_to_do: "correct the file".to_owned(),
            source: source.to_owned(),
            ..Problem::default()
        })?;
        let mut layer = Self::default();
        layer.add_table("", table, source);
        Ok(layer)
    }

    /// Variables without the prefix are nobody's business here.
    pub(super) fn environment(variables: impl Iterator<Item = (String, String)>) -> Self {
        let mut ours: Vec<_> = variables.filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
        // `…__OPTIMIZER` before `…__OPTIMIZER__KIND`, in whatever order the system lists them.
        ours.sort();
        let mut layer = Self::default();
        for (name, value) in ours {
            let path = name[ENV_PREFIX.len()..].to_lowercase().replace("__", ".");
            layer.add(&path, Value::new(None, value), &name, Text::Untyped);
        }
        layer
    }

    /// `KEY=VALUE` each; the last of one key holds.
    pub(super) fn sets(sets: &[String]) -> Self {
        let mut layer = Self::default();
        for set in sets {
            match set.split_once('=') {
                Some((path, value)) => {
                    layer.add(path.trim(), Value::new(None, value), "--set", Text::Untyped);
                }
                None => layer.problems.push(Problem {
                    key: printable(set),
                    value: None,
                    problem: "has no value".to_owned(),
                    what_to_do: "write --set KEY=VALUE".to_owned(),
                    source: "--set".to_owned(),
                }),
            }
        }
        layer
    }

    /// Keys that don't exist, and values where tables belong.
    pub(super) fn take_problems(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.problems)
    }

    fn add(&mut self, path: &str, value: Value, source: &str, text: Text) {
        match (place(path), value.kind) {
            (Place::Key(key) | Place::Table(Some(key)), ValueKind::String(value)) => {
                let kind = match text {
                    Text::Typed => ValueKind::String(value),
                    Text::Untyped => key.kind.read(&value),
                };
                self.insert(key.path, kind, source);
            }
            (Place::Key(key), kind) => self.insert(key.path, kind, source),
            (Place::Setting, ValueKind::String(value)) => {
                let kind = free_value(value.trim()).unwrap_or(ValueKind::String(value));
                self.insert(path, kind, source);
            }
            (Place::Nodes, kind) if text == Text::Typed => self.insert(path, kind, source),
            (Place::Table(_), ValueKind::Table(table)) => self.add_table(path, table, source),
            (place, kind) => self.problems.push(misplaced(place, path, &kind, source)),
        }
    }

    fn add_table(&mut self, path: &str, table: Map<String, Value>, source: &str) {
        let mut children: Vec<_> = table.into_iter().collect();
        children.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (name, value) in children {
            let child = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if name.contains('.') {
                // A quoted name with dots is one name in TOML, not a path.
                self.problems.push(misplaced(Place::Unknown, &child, &value.kind, source));
            } else {
                self.add(&child, value, source, Text::Typed);
            }
        }
    }

    fn insert(&mut self, path: &str, kind: ValueKind, source: &str) {
        self.values.insert(path.to_owned(), Value::new(Some(&source.to_owned()), kind));
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        Ok(self.values.clone())
    }
}

/// Whether a text may stand for a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    /// In TOML "64" is text and nothing else.
    Typed,
    /// The environment and `--set` have only text: the schema says what it means.
    Untyped,
}

/// The merged values, by path.
#[derive(Debug)]
pub(super) struct Merged(Value);

impl Merged {
    /// Later layers hold over earlier ones, and all of them over the defaults.
    ///
    /// # Errors
    /// A path of the schema is none to the `config` crate.
    pub(super) fn new(layers: Vec<Layer>) -> Result<Self, ::config::ConfigError> {
        let mut builder = ::config::Config::builder();
        for key in KEYS {
            if let Fallback::Default(text) = key.default {
                let value = Value::new(Some(&DEFAULTS.to_owned()), key.kind.read(text));
                builder = builder.set_default(key.path, value)?;
            }
        }
        for layer in layers {
            builder = builder.add_source(layer);
        }
        Ok(Self(builder.build()?.cache))
    }

    pub(super) fn get(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(&self.0, |value, name| match &value.kind {
            ValueKind::Table(table) => table.get(name),
            _ => None,
        })
    }
}

/// A value as an error shows it: as TOML writes it, cut where it gets long.
pub(super) fn shown(kind: &ValueKind) -> String {
    match kind {
        ValueKind::String(text) => format!("\"{}\"", printable(text)),
        ValueKind::Table(_) => "{ a table }".to_owned(),
        ValueKind::Array(items) => {
            const ITEMS_MAX: usize = 8;
            let more = (items.len() > ITEMS_MAX).then(|| "…".to_owned());
            let items = items.iter().take(ITEMS_MAX).map(|item| shown(&item.kind));
            let items: Vec<_> = items.chain(more).collect();
            printable(&format!("[{}]", items.join(", ")))
        }
        ValueKind::Float(number) => format!("{number:?}"),
        other => other.to_string(),
    }
}

/// Without control characters, which would act on the terminal; at most 80 characters.
pub(super) fn printable(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    let mut shown: String = text
        .chars()
        .take(SHOWN_MAX)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

fn misplaced(place: Place, path: &str, kind: &ValueKind, source: &str) -> Problem {
    let (problem, what_to_do) = match place {
        Place::Table(_) => {
            let first = KEYS.iter().find(|key| key.path.starts_with(&format!("{path}.")));
            let first = first.map_or(path, |key| key.path);
            ("is a table, not a value".to_owned(), format!("set one of its keys, such as {first}"))
        }
        Place::Nodes => (
            "can only be set in the configuration file".to_owned(),
            "write [[nodes]] there".to_owned(),
        ),
        Place::Key(_) | Place::Setting | Place::Unknown => {
            let what_to_do = nearest_path(path).map_or_else(
                || "remove it, or see all keys with `node check --keys`".to_owned(),
                |nearest| format!("did you mean {nearest}?"),
            );
            ("there is no such key".to_owned(), what_to_do)
        }
    };
    let value = Some(shown(kind));
    Problem { key: printable(path), value, problem, what_to_do, source: source.to_owned() }
}

/// A TOML error is a drawing of several lines: the first says where, the last says what.
fn one_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let first = first.strip_prefix("TOML parse error ").unwrap_or(first);
    match lines.next_back() {
        Some(last) => format!("not valid TOML {first}: {last}"),
        None => format!("not valid TOML: {first}"),
    }
}
