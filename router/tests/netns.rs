//! Two nodes in network namespaces: the fabric against the kernel.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "netns/frames.rs"]
mod frames;
#[path = "netns/ports.rs"]
mod ports;
#[path = "netns/reach.rs"]
mod reach;
#[path = "netns/repair.rs"]
mod repair;
#[path = "netns/shortcut.rs"]
mod shortcut;
#[path = "netns/table.rs"]
mod table;
#[path = "netns/world.rs"]
mod world;
