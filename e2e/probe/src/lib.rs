//! What the in-cluster test of `weft-probe` and the cluster tests of `e2e` share: the words of a
//! report, and how to run a probe in a pod and read its answer through the API server.
//!
//! It must not know anything of weft but its image: it would test any pod network.

pub mod cluster;
pub mod duration;
pub mod measured;
pub mod report;
