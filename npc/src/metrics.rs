//! `weft_npc_*`, and the names of Weave Net's npc. Labels have a bounded number of values.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use weft_netfilter::{Ruleset, plan::MAX_ELEMENTS};
use weft_policy::{PolicyModel, Problem};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Class {
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Denied {
    namespace: String,
    direction: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Blocked {
    protocol: String,
    dport: String,
}

/// Values of a label that came first; later ones are counted together.
#[derive(Debug, Clone, Default)]
struct Bounded(Arc<Mutex<BTreeSet<String>>>);

/// So many.
const VALUES: usize = 256;
/// What the rest is called.
const OTHER: &str = "other";

impl Bounded {
    fn value(&self, value: &str) -> String {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.contains(value) {
            if seen.len() >= VALUES {
                return OTHER.to_owned();
            }
            seen.insert(value.to_owned());
        }
        value.to_owned()
    }
}

/// Everything npc counts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    sync_seconds: Histogram,
    programming_seconds: Histogram,
    last_sync: Age,
    failures: Family<Class, Counter>,
    drift: Counter,
    fight: Gauge,
    policies: Gauge,
    rules: Gauge,
    sets: Gauge,
    elements: Gauge,
    fullest: Gauge<f64, AtomicU64>,
    near_limit: Gauge,
    closed: Gauge,
    /// Weave's: failed attempts to enforce. No `_total`: that is its name.
    enforcement_errors: Gauge<i64, AtomicI64>,
    denials: Family<Denied, Counter>,
    namespaces: Bounded,
    blocked: Family<Blocked, Counter>,
    ports: Bounded,
    flows_cut: Counter,
    flows_restored: Counter,
    flows_seconds: Histogram,
}

fn buckets() -> Histogram {
    // 0.5 ms to 16 s.
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

impl Metrics {
    /// Registers all metrics.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            sync_seconds: buckets(),
            programming_seconds: buckets(),
            last_sync: Age::default(),
            failures: Family::default(),
            drift: Counter::default(),
            fight: Gauge::default(),
            policies: Gauge::default(),
            rules: Gauge::default(),
            sets: Gauge::default(),
            elements: Gauge::default(),
            fullest: Gauge::default(),
            near_limit: Gauge::default(),
            closed: Gauge::default(),
            enforcement_errors: Gauge::default(),
            denials: Family::default(),
            namespaces: Bounded::default(),
            blocked: Family::default(),
            ports: Bounded::default(),
            flows_cut: Counter::default(),
            flows_restored: Counter::default(),
            flows_seconds: buckets(),
        };
        let m = metrics.clone();
        let r = registry;
        r.register(
            "weft_npc_sync_duration_seconds",
            "Time of a sync, compilation included",
            m.sync_seconds,
        );
        r.register(
            "weft_npc_programming_duration_seconds",
            "Time from the first event of a sync until the kernel had the rules",
            m.programming_seconds,
        );
        r.register_collector(Box::new(m.last_sync));
        r.register(
            "weft_npc_sync_failures",
            "Syncs that failed, by class of the failure",
            m.failures,
        );
        r.register(
            "weft_npc_drift_repairs",
            "Repairs of rules that somebody else had changed",
            m.drift,
        );
        r.register(
            "weft_npc_drift_contested",
            "1 while somebody else changes npc's rules again and again",
            m.fight,
        );
        r.register(
            "weft_npc_policies",
            "NetworkPolicies with pods on this node",
            m.policies,
        );
        r.register("weft_npc_rules", "Rules wanted in the kernel", m.rules);
        r.register("weft_npc_sets", "Sets wanted in the kernel", m.sets);
        r.register(
            "weft_npc_set_elements",
            "Elements of those sets",
            m.elements,
        );
        r.register(
            "weft_npc_fullest_set_ratio",
            "Elements of the largest set as a share of what the kernel takes",
            m.fullest,
        );
        r.register(
            "weft_npc_policies_near_limit",
            "NetworkPolicies with pods on this node that use more than 80 % of a limit",
            m.near_limit,
        );
        r.register(
            "weft_npc_policies_with_problems",
            "NetworkPolicies with pods on this node of which a part is not understood or too large, \
             and allows nothing",
            m.closed,
        );
        r.register(
            "weavenpc_policy_enforcement_errors",
            "Weave Net's name for the sum of weft_npc_sync_failures_total (a counter without the suffix)",
            m.enforcement_errors,
        );
        r.register(
            "weft_npc_denials",
            "Denied packets that were read from the log (at most 500 a second and direction), by \
             namespace of the pod whose policy denied them (the first 256, then \"other\"; empty: no \
             pod's)",
            m.denials,
        );
        r.register(
            "weavenpc_blocked_connections",
            "Weave Net's name for denied TCP and UDP packets, by destination port (the first 256, then \
             \"other\")",
            m.blocked,
        );
        r.register(
            "weft_npc_flows_cut",
            "Established flows that were cut because policies forbid them now",
            m.flows_cut,
        );
        r.register(
            "weft_npc_flows_restored",
            "Flows that had been cut and go on because policies allow them again",
            m.flows_restored,
        );
        r.register(
            "weft_npc_flows_duration_seconds",
            "Time of a look at every flow that connection tracking knows",
            m.flows_seconds,
        );
        metrics
    }

    /// Every flow was looked at.
    pub(crate) fn flows(&self, cut: u64, restored: u64, took: Duration) {
        self.flows_cut.inc_by(cut);
        self.flows_restored.inc_by(restored);
        self.flows_seconds.observe(took.as_secs_f64());
    }

    /// A sync succeeded.
    pub(crate) fn synced(&self, took: Duration, latency: Option<Duration>) {
        self.sync_seconds.observe(took.as_secs_f64());
        if let Some(latency) = latency {
            self.programming_seconds.observe(latency.as_secs_f64());
        }
        self.last_sync.now();
    }

    /// What the kernel holds.
    pub(crate) fn size(&self, model: &PolicyModel, ruleset: &Ruleset) {
        let (rules, sets, elements) = ruleset.size();
        let policies = model.policies.len();
        let of = |problems: &BTreeSet<Problem>| {
            let policies: BTreeSet<_> = problems.iter().map(|problem| &problem.policy).collect();
            policies.len()
        };
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.policies.set(count(policies));
        self.rules.set(count(rules));
        self.sets.set(count(sets));
        self.elements.set(count(elements));
        self.near_limit.set(count(of(&model.warnings)));
        self.closed.set(count(of(&model.problems)));
        let sets = ruleset
            .tables
            .values()
            .flat_map(|table| table.sets.values());
        let largest = sets.map(|set| set.elements.len()).max().unwrap_or_default();
        let share = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        self.fullest.set(share(largest) / f64::from(MAX_ELEMENTS));
    }

    /// A sync failed.
    pub(crate) fn failed(&self, class: &'static str) {
        self.failures.get_or_create(&Class { class }).inc();
        self.enforcement_errors.inc();
    }

    /// A packet was denied by the policies of a pod of `namespace`.
    pub(crate) fn denied(&self, namespace: &str, direction: &str) {
        let label = Denied {
            namespace: self.namespaces.value(namespace),
            direction: direction.to_owned(),
        };
        self.denials.get_or_create(&label).inc();
    }

    /// A TCP or UDP packet was denied.
    pub(crate) fn blocked(&self, protocol: &str, port: u16) {
        let label = Blocked {
            protocol: protocol.to_owned(),
            dport: self.ports.value(&port.to_string()),
        };
        self.blocked.get_or_create(&label).inc();
    }

    /// Drift was repaired.
    pub(crate) fn drifted(&self) {
        self.drift.inc();
    }

    /// Is somebody undoing our repairs?
    pub(crate) fn fight(&self, is_fight: bool) {
        self.fight.set(i64::from(is_fight));
    }
}

/// Seconds since the kernel was last known to be right; worked out when it is asked for. Absent
/// until then.
#[derive(Clone, Default)]
struct Age(Arc<Mutex<Option<Instant>>>);

impl Age {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

impl fmt::Debug for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Age")
    }
}

impl Collector for Age {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = last else { return Ok(()) };
        let age = ConstGauge::new(last.elapsed().as_secs_f64());
        let metric = encoder.encode_descriptor(
            "weft_npc_last_sync_age_seconds",
            "Seconds since the rules in the kernel were last known to be right.",
            None,
            age.metric_type(),
        )?;
        age.encode(metric)
    }
}

#[cfg(test)]
mod documented;

#[cfg(test)]
mod tests {
    use weft_policy::ObjectKey;

    use super::{documented::text, *};

    #[test]
    fn names_are_those_that_dashboards_use() {
        let policy = ObjectKey::new("default", "web");
        let model = PolicyModel {
            policies: [(policy.clone(), Arc::default())].into(),
            problems: [Problem {
                policy,
                field: "spec".to_owned(),
                message: "cannot be read".to_owned(),
            }]
            .into(),
            ..PolicyModel::default()
        };
        let text = text(|metrics| {
            for port in 2..=300 {
                metrics.blocked("tcp", port);
            }
            metrics.flows(3, 2, Duration::from_millis(1));
            metrics.size(&model, &Ruleset::default());
        });
        for line in [
            "weft_npc_sync_failures_total{class=\"lock\"} 1",
            "weft_npc_drift_repairs_total 1",
            "weft_npc_drift_contested 0",
            "weft_npc_policies 1",
            "weft_npc_policies_with_problems 1",
            "weft_npc_policies_near_limit 0",
            "weft_npc_fullest_set_ratio 0.0",
            "weft_npc_denials_total{namespace=\"default\",direction=\"ingress\"} 1",
            "weavenpc_blocked_connections_total{protocol=\"tcp\",dport=\"256\"} 1",
            "weavenpc_blocked_connections_total{protocol=\"tcp\",dport=\"other\"} 44",
            "weavenpc_policy_enforcement_errors 1",
            "weft_npc_programming_duration_seconds_count 1",
            "weft_npc_last_sync_age_seconds ",
            "weft_npc_flows_cut_total 3",
            "weft_npc_flows_restored_total 2",
            "weft_npc_flows_duration_seconds_count 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
