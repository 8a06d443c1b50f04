//! iptables with ipset.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
};

use super::{Backend, Done, Error, ToolError};
use crate::{
    Family, HookJump, Ruleset, SetName, TableName,
    plan::{Observed, Owner, Plan, Saved, SetOp, Step, diff},
};

/// The five tools, of one variant.
pub trait Tools: Send {
    /// `iptables-legacy` or `iptables-nft`.
    fn variant(&self) -> &str;
    /// Families that can be filtered here. A kernel without IPv6 has no IPv6 packets either.
    fn families(&self) -> &[Family];
    /// `iptables-save -t TABLE`.
    fn iptables_save(
        &mut self,
        family: Family,
        table: TableName,
    ) -> impl Future<Output = Result<String, ToolError>> + Send;
    /// `ipset save`.
    fn ipset_save(&mut self) -> impl Future<Output = Result<String, ToolError>> + Send;
    /// `iptables-restore --noflush` with this input.
    fn iptables_restore(
        &mut self,
        family: Family,
        input: &str,
    ) -> impl Future<Output = Result<(), ToolError>> + Send;
    /// `ipset restore` with this input.
    fn ipset_restore(&mut self, input: &str) -> impl Future<Output = Result<(), ToolError>> + Send;
    /// These changes in this order, up to the first that fails: `ipset restore`, or what does the
    /// same in less time.
    fn ipset_change(
        &mut self,
        ops: &[SetOp],
    ) -> impl Future<Output = Result<(), ToolError>> + Send {
        let input = Step::Sets(ops.to_vec()).text();
        async move { self.ipset_restore(&input).await }
    }
}

/// Rules of one owner in iptables and ipset.
#[derive(Debug)]
pub struct Iptables<T> {
    owner: Owner,
    tools: T,
    /// What is in the kernel if nobody else touched it; `None`: read back first.
    applied: Option<Observed>,
}

impl<T: Tools> Iptables<T> {
    /// Nothing is read or written yet.
    #[must_use]
    pub fn new(owner: Owner, tools: T) -> Self {
        Self {
            owner,
            tools,
            applied: None,
        }
    }

    /// The tools, for tests.
    pub fn tools_mut(&mut self) -> &mut T {
        &mut self.tools
    }

    /// What of ours is in the kernel now, under the names of the IR.
    ///
    /// # Errors
    /// A tool failed.
    pub async fn read(&mut self) -> Result<Ruleset, Error> {
        Ok(self.observe().await?.ruleset)
    }

    async fn observe(&mut self) -> Result<Observed, ToolError> {
        let mut saved = Saved::default();
        for family in self.tools.families().to_vec() {
            for table in self.owner.tables().to_vec() {
                let text = self.tools.iptables_save(family, table).await?;
                saved.tables.insert((family, table), text);
            }
        }
        saved.sets = self.tools.ipset_save().await?;
        Ok(Observed::read(&self.owner, &saved))
    }

    fn plan(&self, observed: &Observed, desired: &Ruleset) -> Result<Plan, Error> {
        let unfiltered = desired
            .tables
            .keys()
            .any(|family| !self.tools.families().contains(family));
        let plan = if unfiltered {
            let mut desired = desired.clone();
            desired
                .tables
                .retain(|family, _| self.tools.families().contains(family));
            diff(observed, &desired)?
        } else {
            diff(observed, desired)?
        };
        Ok(plan)
    }

    async fn apply(&mut self, observed: Observed, desired: &Ruleset) -> Result<Done, Error> {
        let plan = self.plan(&observed, desired)?;
        let done = Done {
            plan: plan.to_string(),
            steps: plan
                .steps
                .iter()
                .filter(|step| !matches!(step, Step::Cleanup(_)))
                .count(),
            rules: plan.steps.iter().any(|step| matches!(step, Step::Rules(_))),
            read_back: false,
        };
        let after = self.run(plan).await?;
        self.applied = Some(after);
        Ok(done)
    }

    async fn run(&mut self, plan: Plan) -> Result<Observed, ToolError> {
        let Plan { steps, mut after } = plan;
        for step in steps {
            match &step {
                Step::Sets(ops) => self.tools.ipset_change(ops).await?,
                Step::Rules(rules) => {
                    let text = step.text();
                    self.tools.iptables_restore(rules.family, &text).await?;
                }
                Step::Cleanup(sets) => after.stale.extend(self.clean(sets.clone()).await),
            }
        }
        Ok(after)
    }

    /// Destroys sets; returns those that the kernel still holds.
    async fn clean(&mut self, sets: Vec<SetName>) -> BTreeSet<SetName> {
        let mut held = BTreeSet::new();
        let mut rest = sets;
        while !rest.is_empty() {
            let input = Step::Cleanup(rest.clone()).text();
            match self.tools.ipset_restore(&input).await {
                Ok(()) => break,
                // Lines before the bad one are done, those after it are not.
                Err(ToolError {
                    line_number: Some(line),
                    ..
                }) if (1..=rest.len()).contains(&line) => {
                    let mut tail = rest.split_off(line - 1);
                    held.insert(tail.remove(0));
                    rest = tail;
                }
                Err(_) => {
                    held.extend(rest);
                    break;
                }
            }
        }
        held
    }
}

impl<T: Tools> Backend for Iptables<T> {
    fn name(&self) -> &str {
        self.tools.variant()
    }

    async fn sync(&mut self, desired: &Ruleset) -> Result<Done, Error> {
        // Taken, so that a failure (or a call that is dropped half-way) leaves nothing remembered.
        match self.applied.take() {
            Some(observed) => self.apply(observed, desired).await,
            None => self.verify(desired).await,
        }
    }

    async fn verify(&mut self, desired: &Ruleset) -> Result<Done, Error> {
        self.applied = None;
        let observed = self.observe().await?;
        let done = self.apply(observed, desired).await?;
        Ok(Done {
            read_back: true,
            ..done
        })
    }

    async fn in_force(&mut self, desired: &Ruleset) -> Result<bool, Error> {
        let observed = self.observe().await?;
        let broken = observed.broken.clone();
        let seen = observed.with_jumps();
        let judged = |family: Family, jump: &HookJump| {
            let Some(seen) = seen.tables.get(&family) else {
                return false;
            };
            let mut jumps = seen.hooks.iter();
            // A chain that holds a rule we would not write (another version's) holds rules.
            let filled = seen.chains.get(&jump.to).is_some_and(|chain| {
                !chain.rules.is_empty() || broken.contains(&(family, jump.to.clone()))
            });
            filled && jumps.any(|seen| seen.hook == jump.hook && seen.to == jump.to)
        };
        let filtered = self.tools.families();
        let mut wanted = desired
            .tables
            .iter()
            .filter(|(family, _)| filtered.contains(family))
            .flat_map(|(family, table)| table.hooks.iter().map(|jump| (*family, jump)));
        Ok(wanted.all(|(family, jump)| judged(family, jump)))
    }

    fn set_sizes(&self) -> BTreeMap<String, usize> {
        let Some(applied) = &self.applied else {
            return BTreeMap::new();
        };
        let tables = applied.ruleset.tables.values();
        tables
            .flat_map(|table| &table.sets)
            .map(|(name, set)| (applied.kernel_name(name).to_string(), set.elements.len()))
            .collect()
    }

    #[cfg(feature = "trace")]
    async fn trace(
        &mut self,
        desired: &Ruleset,
        packet: &crate::trace::Packet,
        passes: &[crate::trace::Pass],
    ) -> Result<super::Traced, Error> {
        let observed = self.observe().await?;
        let drift = self.plan(&observed, desired)?.repairs();
        if observed.is_foreign(packet.family()) {
            return Ok(super::Traced {
                drift,
                ..super::Traced::default()
            });
        }
        let ruleset = observed.with_jumps();
        let outcome = crate::trace::trace(&ruleset, packet, passes)
            .map_err(|why| ToolError::untraceable(self.name(), &why))?;
        Ok(super::Traced {
            dropped: Some(outcome.dropped),
            path: outcome.path.iter().map(ToString::to_string).collect(),
            drift,
        })
    }
}

#[cfg(feature = "fake")]
impl Tools for crate::fake::FakeKernel {
    fn variant(&self) -> &'static str {
        "iptables-fake"
    }

    fn families(&self) -> &[Family] {
        &Family::ALL
    }

    async fn iptables_save(
        &mut self,
        family: Family,
        table: TableName,
    ) -> Result<String, ToolError> {
        Ok(Self::iptables_save(self, family, table))
    }

    async fn ipset_save(&mut self) -> Result<String, ToolError> {
        Ok(Self::ipset_save(self))
    }

    async fn iptables_restore(&mut self, family: Family, input: &str) -> Result<(), ToolError> {
        Self::iptables_restore(self, family, input, &mut |_| {})
            .map_err(|message| ToolError::from_output("iptables-restore", message, input))
    }

    async fn ipset_restore(&mut self, input: &str) -> Result<(), ToolError> {
        Self::ipset_restore(self, input, &mut |_| {})
            .map_err(|message| ToolError::from_output("ipset restore", message, input))
    }
}

impl ToolError {
    /// From what a tool printed: finds the line of its input that it complains about.
    #[must_use]
    pub fn from_output(tool: &str, message: String, input: &str) -> Self {
        let line_number = ["Error occurred at line: ", "Error in line ", "line "]
            .iter()
            .find_map(|before| {
                let rest = message.split_once(before)?.1;
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                digits.parse::<usize>().ok()
            });
        let line = line_number
            .and_then(|number| input.lines().nth(number.checked_sub(1)?))
            .map(ToOwned::to_owned);
        Self {
            tool: tool.to_owned(),
            class: "exit",
            message: message.split_whitespace().collect::<Vec<_>>().join(" "),
            line,
            line_number,
        }
    }
}

#[cfg(test)]
mod tests;
