//! Builders, address plan, namespace guard and `eventually()` for tests.
//!
//! Only ever a dev-dependency. It must not know any weft crate but the API types.

pub mod builders;
pub mod eventually;
pub mod netns;
