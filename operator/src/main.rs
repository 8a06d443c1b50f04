//! The weft operator.

fn main() {}
