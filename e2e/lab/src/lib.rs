//! A real Kubernetes cluster on one machine, without a container engine, registry or virtual
//! machine: every node is a network, mount and UTS namespace with its own containerd, kubelet and
//! kube-proxy; the control plane and the underlay bridge live in a namespace of their own.
//!
//! The root network namespace gets one veth (so that `kubectl` and tests reach the cluster) and is
//! otherwise untouched. Everything that is made is written into the state file before it is made,
//! and every process carries the lab's id in its environment, so `down` finds it after any crash.
//!
//! It must not know weft: weft is installed in it as in any other cluster.

mod cache;
mod cgroup;
mod cluster;
mod command;
mod control_plane;
mod enter;
pub mod image;
mod layout;
mod lock;
mod namespace;
mod network;
mod node;
mod options;
mod packages;
mod pki;
mod process;
mod programs;
mod progress;
mod state;
mod status;
mod underlay;
mod wait;

pub use cluster::{Component, Lab};
pub use layout::Layout;
pub use options::{Families, Options, ProxyMode};
pub use status::{MemberStatus, ProcessStatus, Status};
