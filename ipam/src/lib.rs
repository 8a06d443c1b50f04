//! Block protocol, pool arithmetic and the node allocator.
