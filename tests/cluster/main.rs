//! The `node` binary as operators start it: the same bits at each size of a cluster, after each
//! death, and in spite of bad input.

#![allow(clippy::disallowed_methods, reason = "real processes, real time")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "the helpers of a test fail with it and say why"
)]

mod support;

mod bad_input;
mod drain;
mod finish;
mod follow;
mod grid;
mod lasting;
mod lending;
mod moved_data;
mod parents;
mod recovery;
mod registries;
mod status;
