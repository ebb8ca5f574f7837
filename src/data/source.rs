//! Files as streams of bytes: plain or gzip, hashed on the way where asked.

use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;
use std::time::SystemTime;

use flate2::bufread::MultiGzDecoder;

use super::error::{DataError, DataFile};

/// Bytes read at once: enough for BLAKE3 to hash many chunks side by side.
const BUFFER_BYTES: usize = 64 * 1024;

/// The first two bytes of a gzip file (RFC 1952, 2.3.1). The name of a file is not asked.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A file that was there when the data set was opened.
#[derive(Clone, Debug)]
pub(super) struct FoundFile {
    pub(super) name: DataFile,
    /// Length and time of the last change: a file that changed is refused, since rows of two
    /// contents would train a model that nobody can train again.
    stamp: Stamp,
}

#[derive(Clone, Debug, PartialEq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        // Where the platform has no such time the length must do.
        Self { bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl FoundFile {
    /// Looks up `path`, relative to `folder`.
    pub(super) fn find(folder: &Path, path: &str, key: &'static str) -> Result<Self, DataError> {
        let name = DataFile { path: folder.join(path).into(), key };
        match fs::metadata(&name.path) {
            Ok(metadata) if metadata.is_file() => Ok(Self { stamp: Stamp::of(&metadata), name }),
            // Opening a pipe would wait for its writer.
            Ok(_) => Err(DataError::NotAFile { file: name }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(DataError::Missing { file: name })
            }
            Err(error) => Err(unreadable(&name, &error)),
        }
    }

    /// Opens the file from its first byte. `hashed` is for whole reads: a skip would leave a gap.
    pub(super) fn open(&self, hashed: bool) -> Result<Source, DataError> {
        let name = self.name.clone();
        let file = File::open(&name.path).map_err(|error| unreadable(&name, &error))?;
        let metadata = file.metadata().map_err(|error| unreadable(&name, &error))?;
        if Stamp::of(&metadata) != self.stamp {
            return Err(DataError::Changed { file: name });
        }
        let raw = RawFile { file, hashed, hasher: blake3::Hasher::new() };
        let mut plain = BufReader::with_capacity(BUFFER_BYTES, raw);
        let start = plain.fill_buf().map_err(|error| unreadable(&name, &error))?;
        let body = if start.starts_with(&GZIP_MAGIC) {
            let unpacked = MultiGzDecoder::new(plain);
            Body::Gzip(BufReader::with_capacity(BUFFER_BYTES, unpacked))
        } else {
            Body::Plain(plain)
        };
        Ok(Source { name, body })
    }
}

/// The unpacked bytes of a file, front to back.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: DataFile,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Plain(BufReader<RawFile>),
    Gzip(BufReader<MultiGzDecoder<BufReader<RawFile>>>),
}

impl Source {
    /// The bytes at hand, at least one except at the end.
    pub(super) fn fill(&mut self) -> Result<&[u8], DataError> {
        let Self { name, body } = self;
        match body {
            Body::Plain(plain) => fill_buf(plain).map_err(|error| unreadable(name, &error)),
            Body::Gzip(unpacked) => fill_buf(unpacked).map_err(|error| broken_gzip(name, &error)),
        }
    }

    /// Takes `bytes` of what [`Source::fill`] returned.
    pub(super) fn consume(&mut self, bytes: usize) {
        match &mut self.body {
            Body::Plain(plain) => plain.consume(bytes),
            Body::Gzip(unpacked) => unpacked.consume(bytes),
        }
    }

    /// Fills `bytes`, or as many of them as there are before the end; returns how many.
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> Result<usize, DataError> {
        let mut filled = 0;
        while filled < bytes.len() {
            let ready = self.fill()?;
            let taken = ready.len().min(bytes.len() - filled);
            if taken == 0 {
                break;
            }
            bytes[filled..filled + taken].copy_from_slice(&ready[..taken]);
            self.consume(taken);
            filled += taken;
        }
        Ok(filled)
    }

    /// Leaves out `bytes`. A plain file seeks, also past its end: the next read then gets nothing.
    pub(super) fn skip(&mut self, bytes: u64) -> Result<(), DataError> {
        if let Body::Plain(plain) = &mut self.body
            && !plain.get_ref().hashed
            && let Ok(offset) = i64::try_from(bytes)
        {
            return plain.seek_relative(offset).map_err(|error| unreadable(&self.name, &error));
        }
        let mut left = bytes;
        while left > 0 {
            let ready = self.fill()?.len();
            if ready == 0 {
                break;
            }
            let taken = usize::try_from(left).map_or(ready, |left| left.min(ready));
            self.consume(taken);
            left -= taken as u64;
        }
        Ok(())
    }

    /// Length and BLAKE3 hash of the file, packed as it is. Call it at the end of a hashed read.
    pub(super) fn content(&self) -> (u64, blake3::Hash) {
        let raw = match &self.body {
            Body::Plain(plain) => plain.get_ref(),
            Body::Gzip(unpacked) => unpacked.get_ref().get_ref().get_ref(),
        };
        assert!(raw.hashed, "the content of {} was asked for, but not hashed", self.name);
        (raw.hasher.count(), raw.hasher.finalize())
    }
}

#[derive(Debug)]
struct RawFile {
    file: File,
    hashed: bool,
    hasher: blake3::Hasher,
}

impl Read for RawFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if self.hashed {
            self.hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}

impl io::Seek for RawFile {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

fn fill_buf(reader: &mut impl BufRead) -> io::Result<&[u8]> {
    while let Err(error) = reader.fill_buf() {
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
    reader.fill_buf()
}

fn unreadable(file: &DataFile, error: &io::Error) -> DataError {
    DataError::Unreadable { file: file.clone(), cause: error.to_string() }
}

/// The decoder reports the end of the file and wrong bytes in the same type as errors of the disk.
fn broken_gzip(file: &DataFile, error: &io::Error) -> DataError {
    match error.kind() {
        ErrorKind::UnexpectedEof => DataError::TruncatedGzip { file: file.clone() },
        ErrorKind::InvalidInput | ErrorKind::InvalidData => {
            DataError::CorruptGzip { file: file.clone(), cause: error.to_string() }
        }
        _ => unreadable(file, error),
    }
}
