//! `weft_operator_*`.

use std::sync::{Arc, atomic::AtomicU64};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Controller {
    pub(crate) controller: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Failure {
    pub(crate) controller: &'static str,
    pub(crate) class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Pool {
    pub(crate) pool: String,
}

/// Figures of a pool may exceed 64 bits (IPv6): they are floats.
pub(crate) type Amount = Gauge<f64, AtomicU64>;

type Durations = Family<Controller, Histogram, fn() -> Histogram>;

/// The operator's metrics. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) durations: Durations,
    pub(crate) errors: Family<Failure, Counter>,
    pub(crate) capacity: Family<Pool, Amount>,
    pub(crate) allocated: Family<Pool, Amount>,
    pub(crate) free: Family<Pool, Amount>,
    pub(crate) leader: Gauge,
    pub(crate) conflicts: Counter,
}

impl Metrics {
    /// Metrics, and the registry that shows them.
    pub(crate) fn new() -> (Self, Arc<Registry>) {
        let metrics = Self {
            durations: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 4.0, 8))
            }),
            errors: Family::default(),
            capacity: Family::default(),
            allocated: Family::default(),
            free: Family::default(),
            leader: Gauge::default(),
            conflicts: Counter::default(),
        };
        let mut registry = Registry::with_prefix("weft_operator");
        let m = metrics.clone();
        registry.register(
            "reconcile_duration_seconds",
            "How long reconciles take",
            m.durations,
        );
        registry.register("reconcile_errors", "Failed reconciles", m.errors);
        registry.register("pool_capacity", "Usable addresses of a pool", m.capacity);
        registry.register("pool_allocated", "Addresses that pods hold", m.allocated);
        registry.register("pool_free", "Usable addresses nobody holds", m.free);
        registry.register("leader", "1 if this replica holds the Lease", m.leader);
        registry.register(
            "cas_conflicts",
            "Writes refused because somebody wrote before us",
            m.conflicts,
        );
        (metrics, Arc::new(registry))
    }
}
