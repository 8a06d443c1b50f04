//! Traffic probe and in-cluster connectivity test.

fn main() {}
