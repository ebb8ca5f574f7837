//! What the configuration takes, what it refuses, and what it says about it.

#![allow(clippy::expect_used, reason = "clippy takes the helpers of tests for production code")]

mod support;

mod files;
mod keys;
mod problems;
mod relations;
mod sources;
