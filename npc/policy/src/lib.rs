//! NetworkPolicy model, index and evaluator.
