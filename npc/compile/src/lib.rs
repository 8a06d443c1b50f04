//! From the policy model and a node's view to a ruleset.
