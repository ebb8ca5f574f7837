//! IDX, the format of MNIST: two zero bytes, the type of the elements, the number of dimensions,
//! each dimension as a big-endian `u32`, then the elements, row by row.

use super::error::{DataError, DataFile, Place};
use super::rows::{MAX_FEATURES, RowReader, Target};
use super::source::Source;

/// Inputs from one file (`u8` or `f32`; dimensions after the first are the values of a row),
/// classes from another (`u8`, one dimension).
#[derive(Debug)]
pub(super) struct IdxReader {
    inputs: Array,
    labels: Array,
    /// Rows read or left out so far.
    row: usize,
}

impl IdxReader {
    pub(super) fn open(inputs: Source, labels: Source) -> Result<Self, DataError> {
        let inputs = Array::open(inputs, Role::Inputs)?;
        let labels = Array::open(labels, Role::Labels)?;
        if inputs.rows != labels.rows {
            return Err(DataError::RowCounts {
                inputs: inputs.source.name.clone(),
                input_rows: inputs.rows,
                labels: labels.source.name.clone(),
                label_rows: labels.rows,
            });
        }
        Ok(Self { inputs, labels, row: 0 })
    }
}

impl RowReader for IdxReader {
    fn features(&self) -> usize {
        self.inputs.width
    }

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }

    fn next(&mut self, values: &mut Vec<f32>) -> Result<Option<Target>, DataError> {
        if self.row >= self.inputs.rows {
            return Ok(None);
        }
        self.inputs.read_row(self.row)?;
        self.labels.read_row(self.row)?;
        match self.inputs.element {
            Element::U8 => values.extend(self.inputs.bytes.iter().map(|&byte| f32::from(byte))),
            Element::F32 => {
                let (numbers, _) = self.inputs.bytes.as_chunks();
                values.extend(numbers.iter().map(|&number| f32::from_be_bytes(number)));
                let row = &values[values.len() - numbers.len()..];
                if let Some(column) = row.iter().position(|value| !value.is_finite()) {
                    return Err(DataError::NotFinite {
                        file: self.inputs.source.name.clone(),
                        place: Place::Row(self.row),
                        column: format!("{column} (from 0)"),
                    });
                }
            }
        }
        self.row += 1;
        Ok(Some(Target::Class(u32::from(self.labels.bytes[0]))))
    }

    fn skip(&mut self, rows: usize) -> Result<(), DataError> {
        let rows = rows.min(self.inputs.rows - self.row);
        self.inputs.skip_rows(rows)?;
        self.labels.skip_rows(rows)?;
        self.row += rows;
        Ok(())
    }

    fn target_place(&self) -> (&DataFile, Place) {
        (&self.labels.source.name, Place::Row(self.row.saturating_sub(1)))
    }

    fn finish(&mut self) -> Result<(), DataError> {
        self.inputs.expect_end()?;
        self.labels.expect_end()
    }

    fn sources(&self) -> Vec<&Source> {
        vec![&self.inputs.source, &self.labels.source]
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Inputs,
    Labels,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Element {
    U8,
    F32,
}

/// One IDX file: `rows` rows of `width` elements.
#[derive(Debug)]
struct Array {
    source: Source,
    element: Element,
    rows: usize,
    /// Elements of a row, 1 to [`MAX_FEATURES`].
    width: usize,
    header_bytes: u64,
    /// The row at hand, as in the file.
    bytes: Vec<u8>,
}

impl Array {
    /// Reads the header and believes nothing in it but the size of one row, which is bounded: rows
    /// that it announces cost memory only when they are there.
    fn open(mut source: Source, role: Role) -> Result<Self, DataError> {
        let [zero, zero_too, kind, rank] = read_header(&mut source, 0)?;
        let file = || source.name.clone();
        if [zero, zero_too] != [0, 0] {
            return Err(DataError::BadMagic {
                file: file(),
                got: vec![zero, zero_too, kind, rank],
            });
        }
        let (element, element_bytes) = match (kind, role) {
            (0x08, _) => (Element::U8, 1),
            (0x0d, Role::Inputs) => (Element::F32, size_of::<f32>()),
            (got, role) => {
                let expected = match role {
                    Role::Inputs => "0x08 (unsigned byte) or 0x0d (float)",
                    Role::Labels => "0x08 (unsigned byte)",
                };
                return Err(DataError::ElementType { file: file(), expected, got });
            }
        };
        let rank = usize::from(rank);
        match role {
            Role::Inputs if rank < 2 => {
                let expected = "2 or more (rows, values of a row)";
                return Err(DataError::Rank { file: file(), expected, got: rank });
            }
            Role::Labels if rank != 1 => {
                return Err(DataError::Rank { file: file(), expected: "1 (labels)", got: rank });
            }
            _ => {}
        }

        let rows = u32::from_be_bytes(read_header(&mut source, 4)?) as usize;
        let mut width = 1_usize;
        for axis in 1..rank {
            let dimension = u32::from_be_bytes(read_header(&mut source, 4 + 4 * axis as u64)?);
            width = width
                .checked_mul(dimension as usize)
                .filter(|&width| width <= MAX_FEATURES)
                .ok_or_else(|| DataError::TooWide {
                    file: source.name.clone(),
                    limit: MAX_FEATURES,
                })?;
        }
        if rows == 0 || width == 0 {
            return Err(DataError::Empty { file: source.name.clone() });
        }
        let bytes = vec![0; width * element_bytes];
        Ok(Self { source, element, rows, width, header_bytes: 4 + 4 * rank as u64, bytes })
    }

    /// Reads the next row, which is number `row`.
    fn read_row(&mut self, row: usize) -> Result<(), DataError> {
        let got = self.source.read(&mut self.bytes)?;
        if got == self.bytes.len() {
            return Ok(());
        }
        Err(DataError::Truncated {
            file: self.source.name.clone(),
            expected: self.total_bytes(),
            got: self.bytes_before(row) + got as u64,
        })
    }

    fn skip_rows(&mut self, rows: usize) -> Result<(), DataError> {
        self.source.skip(rows as u64 * self.bytes.len() as u64)
    }

    fn expect_end(&mut self) -> Result<(), DataError> {
        if self.source.fill()?.is_empty() {
            return Ok(());
        }
        Err(DataError::Trailing { file: self.source.name.clone(), expected: self.total_bytes() })
    }

    fn total_bytes(&self) -> u64 {
        self.bytes_before(self.rows)
    }

    /// At most 2³² rows of 2²⁴ bytes, and a header of 1 KiB: far from an overflow.
    fn bytes_before(&self, row: usize) -> u64 {
        self.header_bytes + row as u64 * self.bytes.len() as u64
    }
}

/// Four bytes of the header, the first of which is number `at` of the file.
fn read_header(source: &mut Source, at: u64) -> Result<[u8; 4], DataError> {
    let mut bytes = [0; 4];
    let got = source.read(&mut bytes)?;
    if got == bytes.len() {
        return Ok(bytes);
    }
    let file = source.name.clone();
    Err(DataError::Truncated { file, expected: at + 4, got: at + got as u64 })
}
