//! The router of a node.

fn main() {}
