//! The network policy controller of a node.

fn main() {}
