//! The same fault plans on simulated and on real processes.
//!
//! `GRADMESH_PLANS=all cargo test --test chaos -- --nocapture` runs all of `examples/plans` and
//! prints their table; without it a few of them run. `GRADMESH_KILLS=100` kills so many processes of
//! each role at random instants, in place of a few.

#![allow(clippy::disallowed_methods, reason = "real processes, real time")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the helpers of a test fail with it")]

mod attacks;
mod demo;
mod quiet;
mod random;
mod support;
mod verdicts;
