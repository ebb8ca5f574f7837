//! Frames, handshake, links and router, as nodes see them: the same suite over TCP and in memory.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail their test by it")]

mod copies;
mod deadlines;
mod frames;
mod handshake;
mod layouts;
mod lending;
mod links;
mod support;
mod threads;
