//! Three hosts with addresses of their own on one machine, between which connections are cut; and a
//! file system that goes read-only.
//!
//! Each host is a network namespace, the switch between them a bridge in a fourth. Needs `unshare`
//! and `nsenter` (util-linux) and `ip` (iproute2), but no rights where the system lets its users
//! make namespaces; elsewhere the tests say so and are skipped. All hosts see the same files: the
//! folder of checkpoints and versions stands for a shared store, which no partition cuts off.

#![allow(clippy::disallowed_methods, reason = "real processes, real time")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "the helpers of a test fail with it")]

mod cluster;
#[cfg(feature = "etcd")]
mod etcd;
mod leaders;
mod network;
mod partitions;
mod read_only;
