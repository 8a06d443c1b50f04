//! What rules cost a packet: a new connection at several sizes, and an established flow.
//!
//! Every contender has namespaces of its own, so all of them are there at once and are measured in
//! turn within one round: npc's rules, the same rules loaded by a shell, the linear chain, and twice
//! a node without rules. npc is not running while packets are measured; it is on no packet's way.

use std::time::Duration;

use super::{
    Backend, Plan, READY,
    npc::Home,
    objects::{self, LAST, OTHERS},
    processes::State,
    shot,
    stage::Stage,
};
use crate::{
    report::{Budget, Row},
    sample::{median, ratios, spread},
};

/// Which pods the rules are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placement {
    /// All in one policy of the measured pod, the match last.
    Measured,
    /// The measured pod's policy has one, the others are for other pods.
    Others,
    /// As `Measured`, but each rule in a policy of its own.
    Policies,
}

impl Placement {
    fn name(self) -> &'static str {
        match self {
            Self::Measured => "on the pod",
            Self::Others => "on other pods",
            Self::Policies => "on the pod, a policy each",
        }
    }
}

/// Who put the rules there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Npc,
    Hand,
    Linear,
    Nobody,
    /// The same, for the noise.
    NobodyAgain,
}

/// What is measured.
struct Contender {
    by: By,
    /// Without rules: none.
    rules: Option<(Placement, usize)>,
    stage: Stage,
    connections: Vec<f64>,
    round_trips: Vec<f64>,
}

impl Contender {
    fn new(by: By, rules: Option<(Placement, usize)>, stage: Stage) -> Self {
        Self {
            by,
            rules,
            stage,
            connections: Vec::new(),
            round_trips: Vec::new(),
        }
    }
}

/// Most policies that select one pod: more is nobody's cluster.
const MOST_POLICIES: usize = 1000;

/// Measures and forms rows.
pub(crate) fn measure(plan: &Plan, backend: Backend) -> anyhow::Result<Vec<Row>> {
    let mut contenders = contenders(plan, backend)?;
    // Established flows only at both ends.
    let ends = [plan.rules.first(), plan.rules.last()];
    for round in 0..plan.rounds {
        // There and back, so that drift hits all alike.
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for i in order {
            let contender = &mut contenders[i];
            contender.stage.forget_connections()?;
            let cost = shot::connection_cost(&contender.stage.client, plan.sample)?;
            contender.connections.push(cost);
            let rules = contender.rules.map(|(_, size)| size);
            if rules.is_none() || ends.contains(&rules.as_ref()) && contender.by != By::Linear {
                contender.stage.forget_connections()?;
                let cost = shot::round_trip_cost(&contender.stage, plan.sample)?;
                contender.round_trips.push(cost);
            }
        }
    }
    Ok(rows(plan, backend, &contenders))
}

fn contenders(plan: &Plan, backend: Backend) -> anyhow::Result<Vec<Contender>> {
    let mut contenders = vec![Contender::new(By::Nobody, None, Stage::new()?)];
    for placement in [Placement::Measured, Placement::Others, Placement::Policies] {
        for &size in &plan.rules {
            if placement == Placement::Policies && size > MOST_POLICIES {
                continue;
            }
            let what = format!("{size} rules {}", placement.name());
            let rules = Some((placement, size));
            let stage = by_npc(plan, backend, placement, size)?;
            stage.check(&format!("{what}, npc"))?;
            let dump = stage.dump(backend)?;
            contenders.push(Contender::new(By::Npc, rules, stage));
            let stage = Stage::new()?;
            stage.load(backend, &dump)?;
            stage.check(&format!("{what}, by hand"))?;
            contenders.push(Contender::new(By::Hand, rules, stage));
            if placement != Placement::Policies {
                let stage = Stage::new()?;
                State::linear(size, |n| match placement {
                    Placement::Measured | Placement::Policies => "bench-target".to_owned(),
                    Placement::Others => format!("bench-o{}", n % OTHERS),
                })
                .load(&stage, backend)?;
                stage.check(&format!("{what}, linear"))?;
                contenders.push(Contender::new(By::Linear, rules, stage));
            }
        }
    }
    contenders.push(Contender::new(By::NobodyAgain, None, Stage::new()?));
    Ok(contenders)
}

/// A stage with rules that npc wrote.
fn by_npc(
    plan: &Plan,
    backend: Backend,
    placement: Placement,
    size: usize,
) -> anyhow::Result<Stage> {
    let stage = Stage::new()?;
    let home = Home::new(&stage, &plan.npc, backend)?;
    objects::pods(&home.api, 0);
    let rule = |n: usize| {
        let (cidr, port) = objects::network(n);
        objects::network_rule(&cidr, port)
    };
    let last = objects::network_rule(LAST, objects::ALLOWED);
    let numbers = 0..size - 1;
    let policies = match placement {
        Placement::Measured => {
            let rules: Vec<_> = numbers.map(rule).chain([last]).collect();
            vec![objects::policy("zz-target", "target", &rules)]
        }
        Placement::Policies => numbers
            .map(|n| objects::policy(&format!("p-{n:05}"), "target", &[rule(n)]))
            .chain([objects::policy("zz-target", "target", &[last])])
            .collect(),
        Placement::Others => (0..OTHERS)
            .map(|pod| {
                let rules: Vec<_> = numbers
                    .clone()
                    .filter(|n| n % OTHERS == pod)
                    .map(rule)
                    .collect();
                objects::policy(&format!("p-{pod:05}"), &format!("other-{pod}"), &rules)
            })
            .chain([objects::policy("zz-target", "target", &[last])])
            .collect(),
    };
    for policy in policies {
        home.api.put(super::api::Kind::Policies, policy);
    }
    let mut npc = home.start(&stage)?;
    npc.ready(READY)?;
    npc.terminate()?;
    Ok(stage)
}

fn rows(plan: &Plan, backend: Backend, contenders: &[Contender]) -> Vec<Row> {
    let find = |by: By, rules: Option<(Placement, usize)>| {
        contenders.iter().find(|c| c.by == by && c.rules == rules)
    };
    let pick = |column: fn(&Contender) -> &Vec<f64>, by, rules| {
        find(by, rules)
            .map(column)
            .filter(|values| !values.is_empty())
    };
    let mut rows = Vec::new();
    let mut add = |name: String,
                   column: fn(&Contender) -> &Vec<f64>,
                   ours: (By, Option<(Placement, usize)>),
                   other: (By, Option<(Placement, usize)>),
                   budget: Budget| {
        let noise = match (
            pick(column, By::Nobody, None),
            pick(column, By::NobodyAgain, None),
        ) {
            (Some(a), Some(b)) => Some(spread(&ratios(a, b))),
            _ => None,
        };
        if let (Some(ours), Some(other)) =
            (pick(column, ours.0, ours.1), pick(column, other.0, other.1))
        {
            rows.push(Row::new(
                &name,
                backend.name(),
                (median(ours), median(other)),
                spread(&ratios(ours, other)),
                noise,
                budget,
            ));
        }
    };
    let connections: fn(&Contender) -> &Vec<f64> = |c| &c.connections;
    let round_trips: fn(&Contender) -> &Vec<f64> = |c| &c.round_trips;
    let (least, most) = (
        plan.rules.first().copied().unwrap_or_default(),
        plan.rules.last().copied().unwrap_or_default(),
    );
    for placement in [Placement::Measured, Placement::Others, Placement::Policies] {
        let place = placement.name();
        for &size in &plan.rules {
            let rules = Some((placement, size));
            for (by, whom) in [(By::Hand, "raw kernel"), (By::Linear, "linear chain")] {
                add(
                    format!("new connection ns, {size} rules {place} / {whom}"),
                    connections,
                    (By::Npc, rules),
                    (by, rules),
                    Budget::None,
                );
            }
        }
        let most = if placement == Placement::Policies {
            most.min(MOST_POLICIES)
        } else {
            most
        };
        for (by, whom) in [(By::Npc, ""), (By::Linear, ", linear chain")] {
            let budget = match (backend, by, placement) {
                (Backend::Nftables, By::Npc, Placement::Measured | Placement::Others) => {
                    Budget::AtMost(1.2)
                }
                _ => Budget::None,
            };
            add(
                format!("new connection ns, {most} / {least} rules {place}{whom}"),
                connections,
                (by, Some((placement, most))),
                (by, Some((placement, least))),
                budget,
            );
        }
    }
    let rules = Some((Placement::Measured, most));
    let few = Some((Placement::Measured, least));
    for (name, other) in [
        ("raw kernel".to_owned(), (By::Hand, rules)),
        (format!("{least} rules"), (By::Npc, few)),
        ("no rules".to_owned(), (By::Nobody, None)),
    ] {
        add(
            format!("established round trip ns, {most} rules / {name}"),
            round_trips,
            (By::Npc, rules),
            other,
            Budget::None,
        );
    }
    add(
        format!("new connection ns, {least} rules on the pod / no rules"),
        connections,
        (By::Npc, few),
        (By::Nobody, None),
        Budget::None,
    );
    rows
}

/// Used by [`Plan`]'s defaults.
pub(crate) const SAMPLE: Duration = Duration::from_millis(100);
