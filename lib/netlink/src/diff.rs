//! From what is there to what shall be there.

use crate::{Desired, FdbEntry, Foreign, IfName, Kind, Link, Network, Owner, Plan, Step};

/// Steps that turn `observed` into `desired`, touching only what is `owner`'s: fabric links with
/// what hangs on them, and the bridge port attributes and FDB entries of pod links.
///
/// What already is right gets no step, so a running fabric is adopted without losing a frame. A
/// device that has a name of ours and is not ours goes to [`Plan::foreign`], and nothing that
/// depends on it is planned.
#[must_use]
pub fn diff(observed: &Network, desired: &Desired, owner: &Owner) -> Plan {
    let mut plan = Plan::default();
    let mut now = observed.clone();

    for (name, want) in &desired.links {
        if let Some(have) = observed.links.get(name)
            && (!owner.is_fabric(have) || have.kind.name() != want.kind.name())
        {
            plan.foreign.push(Foreign {
                name: name.clone(),
                found: have.kind.name().to_owned(),
                wanted: want.kind.name().to_owned(),
                alias: have.alias.clone(),
            });
        }
    }
    let blocked = |name: &IfName| plan.foreign.iter().any(|f| f.name == *name);
    let blocked: Vec<IfName> = desired
        .links
        .keys()
        .filter(|n| blocked(n))
        .cloned()
        .collect();
    let usable = |name: &IfName| !blocked.contains(name);

    // Links that must go: of ours and no longer wanted, or made in a way that cannot be changed.
    for (name, have) in &observed.links {
        let stale = match desired.links.get(name) {
            None => owner.is_fabric(have),
            Some(want) => usable(name) && !same_make(&have.kind, &want.kind),
        };
        if stale && now.links.contains_key(name) {
            push(&mut plan, &mut now, Step::DeleteLink(name.clone()));
        }
    }
    // Bridges before ports, so that a port finds its bridge.
    let (bridges, others): (Vec<_>, Vec<_>) = desired
        .links
        .iter()
        .filter(|(name, _)| usable(name))
        .partition(|(_, link)| matches!(link.kind, Kind::Bridge(_)));
    for (name, want) in bridges.into_iter().chain(others) {
        let peer_is_blocked = matches!(&want.kind, Kind::Veth { peer: Some(p) } if !usable(p));
        if !now.links.contains_key(name) && !peer_is_blocked {
            let step = Step::CreateLink {
                name: name.clone(),
                link: Box::new(want.clone()),
            };
            push(&mut plan, &mut now, step);
        }
    }
    for (name, want) in &desired.links {
        if usable(name) {
            settle(&mut plan, &mut now, name, want, &usable);
        }
    }
    for (name, want) in &desired.pod_ports {
        let Some(have) = now.links.get(name) else {
            continue;
        };
        if owner.container_of(have).is_some()
            && have.port.as_ref() != Some(want)
            && usable(&want.bridge)
            && now.links.contains_key(&want.bridge)
        {
            let step = Step::SetPort {
                name: name.clone(),
                port: want.clone(),
            };
            push(&mut plan, &mut now, step);
        }
    }
    hangings(&mut plan, &mut now, desired, owner);
    plan
}

/// What cannot be changed on an existing link is the same.
fn same_make(have: &Kind, want: &Kind) -> bool {
    match (have, want) {
        (Kind::Bridge(_), Kind::Bridge(_)) => true,
        (Kind::Veth { peer: have }, Kind::Veth { peer: want }) => have == want,
        (Kind::Vxlan(have), Kind::Vxlan(want)) => have == want,
        (Kind::Other(have), Kind::Other(want)) => have == want,
        (Kind::Bridge(_) | Kind::Veth { .. } | Kind::Vxlan(_) | Kind::Other(_), _) => false,
    }
}

/// Changes one existing link until it is as wanted; up comes last.
fn settle(
    plan: &mut Plan,
    now: &mut Network,
    name: &IfName,
    want: &Link,
    usable: &dyn Fn(&IfName) -> bool,
) {
    let Some(have) = now.links.get(name).cloned() else {
        return;
    };
    let name = || name.clone();
    let mut steps = Vec::new();
    if have.alias != want.alias {
        steps.push(Step::SetAlias {
            name: name(),
            alias: want.alias.clone(),
        });
    }
    if let Some(mac) = want.mac.filter(|m| have.mac != Some(*m)) {
        steps.push(Step::SetMac { name: name(), mac });
    }
    if let (Kind::Bridge(had), Kind::Bridge(bridge)) = (&have.kind, want.kind.clone())
        && *had != bridge
    {
        steps.push(Step::SetBridge {
            name: name(),
            bridge,
        });
    }
    if have.port != want.port {
        match &want.port {
            Some(port) if usable(&port.bridge) && now.links.contains_key(&port.bridge) => steps
                .push(Step::SetPort {
                    name: name(),
                    port: port.clone(),
                }),
            Some(_) => {}
            None => steps.push(Step::ClearPort { name: name() }),
        }
    }
    // After the port: a bridge without a fixed MTU follows its ports.
    if let Some(mtu) = want.mtu.filter(|m| have.mtu != Some(*m)) {
        steps.push(Step::SetMtu { name: name(), mtu });
    }
    if let Some(up) = want.up.filter(|up| have.up != Some(*up)) {
        steps.push(Step::SetUp { name: name(), up });
    }
    for step in steps {
        push(plan, now, step);
    }
}

/// Addresses, routes, FDB entries and neighbours on our links: old ones go after new ones came, so
/// that nothing that stays is ever without (a second gateway is added before the first one leaves).
fn hangings(plan: &mut Plan, now: &mut Network, desired: &Desired, owner: &Owner) {
    let fabric = |n: &Network, name: &IfName| n.links.get(name).is_some_and(|l| owner.is_fabric(l));
    let ours = |n: &Network, name: &IfName| {
        n.links
            .get(name)
            .is_some_and(|l| owner.is_fabric(l) || owner.container_of(l).is_some())
    };
    let mut steps = Vec::new();
    let add = desired.addresses.difference(&now.addresses);
    steps.extend(
        add.filter(|a| fabric(now, &a.link))
            .cloned()
            .map(Step::AddAddress),
    );
    let add = desired.routes.difference(&now.routes);
    steps.extend(
        add.filter(|r| fabric(now, &r.link))
            .cloned()
            .map(Step::AddRoute),
    );
    let add = desired.fdb.difference(&now.fdb);
    steps.extend(
        add.filter(|e| ours(now, e.link()) && holds(now, e))
            .cloned()
            .map(Step::AddFdb),
    );
    // A neighbour is replaced in one step; deleting the old one first would open a gap.
    let add = desired.neighbours.difference(&now.neighbours);
    steps.extend(
        add.filter(|n| fabric(now, &n.link))
            .cloned()
            .map(Step::AddNeighbour),
    );
    for step in steps {
        push(plan, now, step);
    }

    let mut steps = Vec::new();
    let old = now.neighbours.difference(&desired.neighbours);
    steps.extend(
        old.filter(|n| fabric(now, &n.link))
            .cloned()
            .map(Step::DeleteNeighbour),
    );
    let old = now.fdb.difference(&desired.fdb);
    steps.extend(
        old.filter(|e| ours(now, e.link()))
            .cloned()
            .map(Step::DeleteFdb),
    );
    let old = now.routes.difference(&desired.routes);
    steps.extend(
        old.filter(|r| fabric(now, &r.link))
            .cloned()
            .map(Step::DeleteRoute),
    );
    let old = now.addresses.difference(&desired.addresses);
    steps.extend(
        old.filter(|a| fabric(now, &a.link))
            .cloned()
            .map(Step::DeleteAddress),
    );
    for step in steps {
        push(plan, now, step);
    }
}

/// The link can take the entry: the kernel knows port entries only on ports.
fn holds(now: &Network, entry: &FdbEntry) -> bool {
    match entry {
        FdbEntry::Tunnel { .. } => true,
        FdbEntry::Port { link, .. } => now.links.get(link).is_some_and(|l| l.port.is_some()),
    }
}

/// Plans a step and follows it in the model.
fn push(plan: &mut Plan, now: &mut Network, step: Step) {
    now.apply(&step);
    plan.steps.push(step);
}

#[cfg(test)]
mod tests;
