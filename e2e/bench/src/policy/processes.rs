//! What policies are compared with: one chain for all rules, walked from its first to the one that
//! matches, each rule and each member of a set brought in by a process of its own. That is how
//! weave-npc works, a little kinder: its rules look up two sets, ours here one and a network.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::ensure;

use super::{
    Backend,
    objects::{self, ALLOWED, CHANGING, CLIENT, FLOW, GROUPS, LAST, OTHERS, TARGET},
    space::program,
    stage::Stage,
};

const CHAIN: &str = "BENCH-INGRESS";

/// Commands of `ipset` and arguments of `iptables`, in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct State {
    sets: Vec<String>,
    rules: Vec<String>,
}

/// What bringing in a state by processes took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    /// Seconds per process of ipset.
    pub(crate) set: f64,
    /// Seconds per process of iptables.
    pub(crate) rule: f64,
}

fn rule(source: &str, destination: &str, protocol: &str, port: u16) -> String {
    format!(
        "-A {CHAIN} -p {protocol} {source} -m set --match-set {destination} dst \
         --dport {port} -j ACCEPT"
    )
}

impl State {
    /// A chain that drops what nothing in it allows, and sets of single pods.
    fn new() -> Self {
        let mut state = Self::default();
        let pods = (0..OTHERS)
            .map(|n| (format!("bench-o{n}"), objects::other(n)))
            .chain([
                ("bench-target".to_owned(), TARGET),
                ("bench-client".to_owned(), CLIENT),
            ]);
        for (name, address) in pods {
            state.sets.push(format!("create {name} hash:ip"));
            state.sets.push(format!("add {name} {address}"));
        }
        state.rules = [
            "-N BENCH".to_owned(),
            format!("-N {CHAIN}"),
            "-A BENCH -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".to_owned(),
            format!("-A BENCH -m conntrack --ctstate NEW -j {CHAIN}"),
            // The pod without policy, and what the node's own pods send out.
            format!("-A BENCH -d {} -j ACCEPT", objects::FREE),
            format!("-A BENCH -d {CLIENT} -j ACCEPT"),
            "-A BENCH -j DROP".to_owned(),
            "-A FORWARD -o weave -j BENCH".to_owned(),
        ]
        .into();
        state
    }

    /// So many rules, each with its own network and port; the last one lets the client in.
    pub(crate) fn linear(rules: usize, destination: impl Fn(usize) -> String) -> Self {
        let mut state = Self::new();
        for n in 0..rules - 1 {
            let (cidr, port) = objects::network(n);
            let rule = rule(&format!("-s {cidr}"), &destination(n), "tcp", port);
            state.rules.push(rule);
        }
        state
            .rules
            .push(rule(&format!("-s {LAST}"), "bench-target", "tcp", ALLOWED));
        state
    }

    /// The same as [`objects::fill`]: sets of groups, two rules per policy, the measured pod's last.
    pub(crate) fn filled(remotes: usize, policies: usize) -> Self {
        let mut state = Self::new();
        for group in 0..GROUPS {
            state.sets.push(format!("create bench-g{group} hash:ip"));
        }
        for n in 0..remotes {
            if let Some(group) = objects::group(n) {
                let address = objects::elsewhere(n);
                state.sets.push(format!("add bench-g{group} {address}"));
            }
        }
        for n in 0..policies.saturating_sub(1) {
            let (cidr, port) = objects::network(n);
            let to = format!("bench-o{}", n % OTHERS);
            let group = format!("-m set --match-set bench-g{} src", n % GROUPS);
            state.rules.push(rule(&group, &to, "tcp", 8080));
            state
                .rules
                .push(rule(&format!("-s {cidr}"), &to, "tcp", port));
        }
        let client = "-m set --match-set bench-client src";
        state
            .rules
            .push(rule(client, "bench-target", "tcp", ALLOWED));
        state.rules.push(rule(client, "bench-target", "udp", FLOW));
        state
    }

    /// How long it would take by processes that take so long each.
    pub(crate) fn seconds(&self, took: Took) -> f64 {
        self.sets.len() as f64 * took.set + self.rules.len() as f64 * took.rule
    }

    /// Loads it at once.
    pub(crate) fn load(&self, stage: &Stage, backend: Backend) -> anyhow::Result<()> {
        stage
            .node
            .feed(&["ipset", "restore"], &(self.sets.join("\n") + "\n"))?;
        let mut text = "*filter\n".to_owned();
        for rule in &self.rules {
            match rule.strip_prefix("-N ") {
                Some(chain) => writeln!(text, ":{chain} - [0:0]")?,
                None => writeln!(text, "{rule}")?,
            }
        }
        text.push_str("COMMIT\n");
        stage
            .node
            .feed(&[&backend.iptables("-restore"), "--noflush"], &text)
    }

    /// Brings it in by a process per line.
    pub(crate) fn bring_in(&self, stage: &Stage, backend: Backend) -> anyhow::Result<Took> {
        let start = Instant::now();
        run(stage, "ipset", &self.sets)?;
        let sets = start.elapsed();
        run(stage, &backend.iptables(""), &self.rules)?;
        let rules = start.elapsed() - sets;
        let mean = |time: Duration, lines: &[String]| time.as_secs_f64() / lines.len() as f64;
        Ok(Took {
            set: mean(sets, &self.sets),
            rule: mean(rules, &self.rules),
        })
    }
}

/// The rule of the changing port, in or out.
pub(crate) fn change(stage: &Stage, backend: Backend, open: bool) -> anyhow::Result<()> {
    let client = "-m set --match-set bench-client src";
    let rule = rule(client, "bench-target", "tcp", CHANGING);
    let line = if open {
        rule
    } else {
        rule.replacen("-A", "-D", 1)
    };
    run(stage, &backend.iptables(""), &[line])
}

/// A pod elsewhere goes from its group to the next.
pub(crate) fn move_pod(stage: &Stage, n: usize, from: usize) -> anyhow::Result<()> {
    let (address, to) = (objects::elsewhere(n), (from + 1) % GROUPS);
    let lines = [
        format!("del bench-g{from} {address}"),
        format!("add bench-g{to} {address}"),
    ];
    run(stage, "ipset", &lines)
}

/// A restart as weave-npc does it: the chain is emptied and filled again, rule by rule.
pub(crate) fn restart(stage: &Stage, backend: Backend, state: &State) -> anyhow::Result<()> {
    let prefix = format!("-A {CHAIN} ");
    let mut lines = vec![format!("-F {CHAIN}")];
    lines.extend(
        state
            .rules
            .iter()
            .filter(|rule| rule.starts_with(&prefix))
            .cloned(),
    );
    run(stage, &backend.iptables(""), &lines)
}

/// One process per line, one after the other.
fn run(stage: &Stage, tool: &str, lines: &[String]) -> anyhow::Result<()> {
    let (tool, lines) = (tool.to_owned(), lines.to_vec());
    stage.node.run(move || {
        for line in lines {
            let words: Vec<&str> = [tool.as_str()]
                .into_iter()
                .chain(line.split_whitespace())
                .collect();
            let output = program(&words).output()?;
            ensure!(
                output.status.success(),
                "{tool} {line}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_that_matches_is_the_last() {
        let state = State::linear(10, |_| "bench-target".to_owned());
        let own: Vec<&String> = state
            .rules
            .iter()
            .filter(|rule| rule.starts_with("-A BENCH-INGRESS"))
            .collect();
        assert_eq!(own.len(), 10);
        assert!(own[9].contains("-s 10.36.7.0/30"), "{}", own[9]);
    }

    #[test]
    fn a_state_takes_as_long_as_its_processes() {
        let state = State {
            sets: vec![String::new(); 3],
            rules: vec![String::new(); 2],
        };
        let took = Took {
            set: 1.0,
            rule: 10.0,
        };
        assert_eq!(state.seconds(took), 23.0);
    }
}
