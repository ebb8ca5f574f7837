//! CSV: a row a line, all columns numbers but one of texts, where there is one; one of them is the target.

use csv_core::ReadRecordResult;
use gradmesh_actors::hashing::hash_text;

use super::error::{DataError, DataFile, MAX_CLASS, Place};
use super::rows::{MAX_FEATURES, RowReader, Target};
use super::source::Source;

/// Bytes of a row at most, before a quote that nobody closed takes the rest of the file into
/// memory: [`MAX_FEATURES`] columns of 16 characters.
const MAX_ROW_BYTES: usize = MAX_FEATURES * 16;

/// Characters of a bad field that an error repeats.
const QUOTED_CHARACTERS: usize = 40;

/// Column names that an error repeats.
const QUOTED_COLUMNS: usize = 12;

/// How to read a CSV file.
#[derive(Clone, Debug)]
pub(super) struct CsvLayout {
    pub(super) header: bool,
    /// A name of the header; else a number from 0, or from -1 backwards.
    pub(super) target: String,
    /// A column of texts, named as the target is, and the inputs that its words are hashed into.
    pub(super) text: Option<(String, usize)>,
    /// Targets are classes, not values.
    pub(super) classes: bool,
}

/// Reads a CSV file by RFC 4180, with any line end; blank lines and space around numbers don't
/// count.
#[derive(Debug)]
pub(super) struct CsvReader {
    source: Source,
    parser: csv_core::Reader,
    record: Record,
    /// The record at hand is the first row, read to learn the number of columns.
    pending: bool,
    /// Empty without a header.
    names: Vec<String>,
    /// 2 to [`MAX_FEATURES`] + 1.
    columns: usize,
    target: usize,
    text: Option<TextColumn>,
    classes: bool,
}

#[derive(Clone, Copy, Debug)]
struct TextColumn {
    column: usize,
    buckets: usize,
}

/// The fields of a line, one after the other without separators.
#[derive(Debug)]
struct Record {
    text: Vec<u8>,
    /// Where each field ends in `text`; valid up to `fields`.
    ends: Vec<usize>,
    fields: usize,
    /// From 1; of a record over several lines the last.
    line: u64,
}

impl CsvReader {
    pub(super) fn open(source: Source, layout: &CsvLayout) -> Result<Self, DataError> {
        let mut reader = Self {
            source,
            parser: csv_core::Reader::new(),
            // Doubled as needed; enough for most rows.
            record: Record { text: vec![0; 4096], ends: vec![0; 256], fields: 0, line: 0 },
            pending: !layout.header,
            names: Vec::new(),
            columns: 0,
            target: 0,
            text: None,
            classes: layout.classes,
        };
        if !reader.read_record()? {
            return Err(DataError::Empty { file: reader.source.name });
        }
        reader.columns = reader.record.fields;
        if layout.header {
            reader.names = (0..reader.columns)
                .map(|column| String::from_utf8_lossy(reader.record.field(column)).into_owned())
                .collect();
        }
        if reader.columns < 2 {
            reader.expect_commas(reader.record.field(0))?;
            return Err(DataError::NoInputs { file: reader.source.name });
        }
        reader.target = reader.find("job.data.target", &layout.target)?;
        if let Some((text, buckets)) = &layout.text {
            let column = reader.find("job.data.text", text)?;
            if column == reader.target {
                let (file, column) = (reader.source.name.clone(), reader.column_name(column));
                return Err(DataError::TextIsTarget { file, column });
            }
            // As wide as other rows may be. Two columns are no inputs: the target and the text itself.
            if reader.columns - 2 + buckets > MAX_FEATURES {
                return Err(DataError::Setting {
                    expected: "4194304 or fewer together with the other columns",
                    got: buckets.to_string(),
                    key: "job.data.text_buckets",
                });
            }
            reader.text = Some(TextColumn { column, buckets: *buckets });
        }
        Ok(reader)
    }

    /// The column that a key names.
    fn find(&self, key: &'static str, wanted: &str) -> Result<usize, DataError> {
        let mut named = (0..self.names.len()).filter(|&column| self.names[column] == wanted);
        match (named.next(), named.next(), wanted.parse::<i64>()) {
            (Some(column), None, _) => return Ok(column),
            (None, _, Ok(number)) => {
                let from_start = if number < 0 { number + self.columns as i64 } else { number };
                if (0..self.columns as i64).contains(&from_start) {
                    return Ok(from_start as usize);
                }
            }
            _ => {}
        }
        let mut columns = self.columns.to_string();
        if !self.names.is_empty() {
            let shown: Vec<_> =
                self.names.iter().take(QUOTED_COLUMNS).map(|name| quoted(name)).collect();
            let more = if self.columns > QUOTED_COLUMNS { ", ..." } else { "" };
            columns = format!("{columns} ({}{more})", shown.join(", "));
        }
        let (file, column) = (self.source.name.clone(), format!("{wanted:?}"));
        Err(DataError::NoColumn { file, column, columns, key })
    }

    /// Goes on to the next row; false after the last.
    fn advance(&mut self) -> Result<bool, DataError> {
        if self.pending {
            self.pending = false;
            return Ok(true);
        }
        if !self.read_record()? {
            return Ok(false);
        }
        if self.record.fields != self.columns {
            return Err(DataError::RaggedRow {
                file: self.source.name.clone(),
                line: self.record.line,
                expected: self.columns,
                got: self.record.fields,
            });
        }
        Ok(true)
    }

    /// Reads the next record whatever its number of fields; false at the end of the file.
    fn read_record(&mut self) -> Result<bool, DataError> {
        let record = &mut self.record;
        record.fields = 0;
        let mut length = 0;
        let mut after_newline = false;
        loop {
            let input = self.source.fill()?;
            let (result, read, written, fields) = self.parser.read_record(
                input,
                &mut record.text[length..],
                &mut record.ends[record.fields..],
            );
            if read > 0 {
                after_newline = input[read - 1] == b'\n';
            }
            self.source.consume(read);
            length += written;
            record.fields += fields;
            // The parser counts newlines; the one that ends this record is not before it.
            record.line = self.parser.line() - u64::from(after_newline);
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::Record => return Ok(true),
                ReadRecordResult::End => return Ok(false),
                ReadRecordResult::OutputFull if record.text.len() >= MAX_ROW_BYTES => {
                    return Err(DataError::RowTooLong {
                        file: self.source.name.clone(),
                        line: record.line,
                        limit: MAX_ROW_BYTES,
                    });
                }
                ReadRecordResult::OutputFull => record.text.resize(record.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull if record.ends.len() > MAX_FEATURES => {
                    let (file, limit) = (self.source.name.clone(), MAX_FEATURES);
                    return Err(DataError::TooWide { file, limit });
                }
                ReadRecordResult::OutputEndsFull => {
                    let longer = (record.ends.len() * 2).min(MAX_FEATURES + 1);
                    record.ends.resize(longer, 0);
                }
            }
        }
    }

    fn read_number(&self, column: usize) -> Result<f32, DataError> {
        let field = self.record.field(column);
        let number = std::str::from_utf8(field).ok().and_then(|text| text.parse::<f32>().ok());
        match number {
            Some(number) if number.is_finite() => Ok(number),
            Some(_) => Err(DataError::NotFinite {
                file: self.source.name.clone(),
                place: Place::Line(self.record.line),
                column: self.column_name(column),
            }),
            None => {
                self.expect_commas(field)?;
                Err(DataError::NotANumber {
                    file: self.source.name.clone(),
                    line: self.record.line,
                    column: self.column_name(column),
                    text: quoted(&String::from_utf8_lossy(field)),
                })
            }
        }
    }

    /// Whoever is served by it later has to send UTF-8 too.
    fn read_text(&self, column: usize) -> Result<&str, DataError> {
        std::str::from_utf8(self.record.field(column)).map_err(|_| DataError::NotText {
            file: self.source.name.clone(),
            line: self.record.line,
            column: self.column_name(column),
        })
    }

    /// Tables of other programs have other separators, and then several columns look like one.
    fn expect_commas(&self, field: &[u8]) -> Result<(), DataError> {
        let separators = [(b';', "semicolons"), (b'\t', "tabs")];
        match separators.into_iter().find(|(separator, _)| field.contains(separator)) {
            Some((_, found)) => {
                let (file, line) = (self.source.name.clone(), self.record.line);
                Err(DataError::Separator { file, line, found })
            }
            None => Ok(()),
        }
    }

    fn read_target(&self) -> Result<Target, DataError> {
        let number = self.read_number(self.target)?;
        if !self.classes {
            return Ok(Target::Value(number));
        }
        // Each whole number of this range has its own `f32`.
        if number.fract() == 0.0 && (0.0..=MAX_CLASS as f32).contains(&number) {
            return Ok(Target::Class(number as u32));
        }
        Err(DataError::NotAClass {
            file: self.source.name.clone(),
            line: self.record.line,
            column: self.column_name(self.target),
            text: quoted(&String::from_utf8_lossy(self.record.field(self.target))),
        })
    }

    fn column_name(&self, column: usize) -> String {
        match self.names.get(column) {
            Some(name) => format!("{column} (from 0, {:?})", quoted(name)),
            None => format!("{column} (from 0)"),
        }
    }
}

impl RowReader for CsvReader {
    fn features(&self) -> usize {
        self.columns - 1 + self.text.map_or(0, |text| text.buckets - 1)
    }

    fn names(&self) -> Vec<&str> {
        let inputs = self.names.iter().enumerate().filter(|&(column, _)| column != self.target);
        inputs.map(|(_, name)| name.as_str()).collect()
    }

    fn next(&mut self, inputs: &mut Vec<f32>) -> Result<Option<Target>, DataError> {
        if !self.advance()? {
            return Ok(None);
        }
        let text = self.text.map(|text| text.column);
        for column in 0..self.columns {
            if column != self.target && Some(column) != text {
                inputs.push(self.read_number(column)?);
            }
        }
        if let Some(TextColumn { column, buckets }) = self.text {
            let text = self.read_text(column)?;
            let start = inputs.len();
            inputs.resize(start + buckets, 0.0);
            hash_text(text, &mut inputs[start..]);
        }
        self.read_target().map(Some)
    }

    fn skip(&mut self, rows: usize) -> Result<(), DataError> {
        for _ in 0..rows {
            if !self.advance()? {
                break;
            }
        }
        Ok(())
    }

    fn target_place(&self) -> (&DataFile, Place) {
        (&self.source.name, Place::Line(self.record.line))
    }

    /// The last row is where the file ends.
    fn finish(&mut self) -> Result<(), DataError> {
        Ok(())
    }

    fn sources(&self) -> Vec<&Source> {
        vec![&self.source]
    }
}

impl Record {
    fn field(&self, column: usize) -> &[u8] {
        let start = if column == 0 { 0 } else { self.ends[column - 1] };
        self.text[start..self.ends[column]].trim_ascii()
    }
}

/// A text from the file, cut to what a log line can bear.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARACTERS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
