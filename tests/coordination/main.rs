//! The coordination store: what holds of each kind, on a folder, on etcd, and on a simulated disk.
//!
//! Etcd's part needs `--features etcd` and Debian's `etcd-server`; it starts servers of its own.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "the helpers of a test fail with it")]

mod conformance;
#[cfg(feature = "etcd")]
mod etcd;
mod faulty;
mod folder;
mod simulated;
mod support;
mod timing;
