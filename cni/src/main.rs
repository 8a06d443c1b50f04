//! The CNI plugin of weft.

fn main() {}
