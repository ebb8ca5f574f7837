//! Frames, handshake, links and router, as nodes see them: the same suite over TCP and in memory.

mod deadlines;
mod frames;
mod handshake;
mod links;
mod support;
