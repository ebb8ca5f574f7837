//! The `node` binary as operators start it: the same bits at each size of a cluster, after each
//! death, and in spite of bad input.

mod support;

mod bad_input;
mod grid;
mod recovery;
