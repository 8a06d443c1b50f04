//! Harness of the black-box tests: a fresh namespace per test, probe pods, nodes, the lab, and what
//! a person needs when a test fails.
//!
//! Tests look at a cluster as its users do: objects, packets, and what `ip`, `iptables-save` and
//! `nft` show on a node. Nothing here may call the code that is tested; API types are the exception.
//!
//! ```text
//! scenario("name", async |s| ...)   fresh namespace; on failure: diagnose, then the namespace goes
//!   s.start(&[Plan..])              probe pods            (weft_probe::cluster)
//!   s.agent(node)                   the node's own network, through a privileged pod
//!   s.expect(&[Flow..])             who reaches whom, until it holds twice in a row
//!   Lab                             what only the lab can do: a host outside, nodes come and go
//! ```

mod diagnose;
pub mod faults;
mod flow;
pub mod hooks;
mod lab;
mod node;
mod pods;
pub mod policy;
mod scenario;
mod settings;
mod traffic;

pub use flow::{Flow, Proto};
pub use lab::{Lab, OUTSIDE, OUTSIDE_V6, OutsideServer};
pub use scenario::{Scenario, scenario};
pub use settings::Settings;
pub use traffic::Traffic;
pub use weft_probe::{
    cluster::{
        Cluster, Output, PORT, Plan, Rights, Running, eventually, of_family_of, socket, state,
    },
    report::{ErrorClass, Report},
};

/// Namespace of the release.
pub const WEFT_NAMESPACE: &str = "kube-system";
