//! From peers and configuration to the desired devices, routes, FDB entries, sysctls and NAT of a node.
