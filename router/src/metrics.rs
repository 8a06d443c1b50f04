//! `weft_router_*`.

use std::{sync::atomic::AtomicU64, time::Duration};

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

use crate::clock;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Op {
    op: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Result_ {
    result: &'static str,
}

/// Everything the router counts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    syncs: Family<Result_, Counter>,
    sync_seconds: Histogram,
    last_sync: Gauge<f64, AtomicU64>,
    changes: Counter,
    requests: Family<Op, Histogram, fn() -> Histogram>,
    unreachable: Gauge,
    addresses: Gauge,
    neighbours: Gauge,
    leaked: Counter,
}

fn buckets() -> Histogram {
    // 0.5 ms to 16 s.
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

impl Metrics {
    /// Registers all metrics.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            syncs: Family::default(),
            sync_seconds: buckets(),
            last_sync: Gauge::default(),
            changes: Counter::default(),
            requests: Family::new_with_constructor(buckets),
            unreachable: Gauge::default(),
            addresses: Gauge::default(),
            neighbours: Gauge::default(),
            leaked: Counter::default(),
        };
        let m = metrics.clone();
        let r = registry;
        r.register(
            "weft_router_syncs",
            "Syncs of the fabric by result",
            m.syncs,
        );
        r.register(
            "weft_router_sync_duration_seconds",
            "Time a sync took",
            m.sync_seconds,
        );
        r.register(
            "weft_router_last_sync_timestamp_seconds",
            "Last complete sync",
            m.last_sync,
        );
        r.register(
            "weft_router_changes",
            "Changes made to the kernel",
            m.changes,
        );
        r.register(
            "weft_router_request_duration_seconds",
            "Requests on router.sock",
            m.requests,
        );
        r.register(
            "weft_router_unreachable_peers",
            "Peers without heartbeat",
            m.unreachable,
        );
        r.register(
            "weft_router_addresses",
            "Addresses that pods of this node hold",
            m.addresses,
        );
        r.register(
            "weft_router_neighbours",
            "Neighbour entries of this network namespace",
            m.neighbours,
        );
        r.register(
            "weft_router_leaked_addresses",
            "Addresses taken back because their attachment had no link any more and no DEL came",
            m.leaked,
        );
        metrics
    }

    pub(crate) fn sync(&self, took: Duration, complete: bool) {
        let result = if complete { "complete" } else { "incomplete" };
        self.syncs.get_or_create(&Result_ { result }).inc();
        self.sync_seconds.observe(took.as_secs_f64());
        if complete {
            #[allow(clippy::cast_precision_loss, reason = "seconds fit for ages")]
            self.last_sync.set(clock::now() as f64);
        }
    }

    pub(crate) fn changes(&self, n: usize) {
        self.changes.inc_by(n as u64);
    }

    pub(crate) fn request(&self, op: &str, took: Duration) {
        let op = Op { op: op.to_owned() };
        self.requests.get_or_create(&op).observe(took.as_secs_f64());
    }

    pub(crate) fn unreachable(&self, n: usize) {
        self.unreachable.set(i64::try_from(n).unwrap_or(i64::MAX));
    }

    pub(crate) fn addresses(&self, n: usize) {
        self.addresses.set(i64::try_from(n).unwrap_or(i64::MAX));
    }

    pub(crate) fn leaked(&self, n: usize) {
        self.leaked.inc_by(n as u64);
    }

    pub(crate) fn neighbours(&self, n: usize) {
        self.neighbours.set(i64::try_from(n).unwrap_or(i64::MAX));
    }
}
