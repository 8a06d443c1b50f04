//! Process plumbing that operator, router and npc share: logging, shutdown, health, metrics, the
//! unix-socket line server, back-off and the Lease election.
//!
//! Everything here is about being a well-behaved process. It must not know weft's API types, what
//! a fabric or a policy is, nor any other weft crate.
//!
//! ```text
//! main -> logging::init, shutdown::token
//!      -> health::Health  --- http::routes ---> /livez /readyz /metrics (http::serve)
//!      -> lines::serve    (router.sock, npc.sock)
//!      -> lease::acquire  (operator)
//! ```

pub mod backoff;
pub mod health;
pub mod http;
pub mod lease;
pub mod lines;
pub mod logging;
pub mod shutdown;
mod unix;
