//! Data sets in files: what is read, and what is refused with which words.

#![expect(clippy::unwrap_used, reason = "a test file that can't be written fails its test")]

mod reads;
mod refuses;
mod support;
