//! The tools of one variant on this host.

use super::{NfSocket, Runner, Variant};
use crate::{
    Family, TableName,
    backend::{ToolError, Tools},
    plan::{SetOp, Step},
};

/// Seconds to wait for the xtables lock (legacy; nft has none and ignores the option).
const LOCK_SECONDS: &str = "5";

/// iptables of one variant, and ipset.
#[derive(Debug)]
pub struct HostTools {
    runner: Runner,
    variant: Variant,
    families: Vec<Family>,
    /// For elements of sets. It belongs to the namespace of the thread that opened it; tools that run
    /// behind a wrapper may work in another one, and then there is none.
    socket: Option<NfSocket>,
}

impl HostTools {
    /// Tries which families can be filtered here.
    ///
    /// # Errors
    /// [`ToolError`]: not even IPv4 can, or nobody knows about IPv6.
    pub async fn probe(runner: Runner, variant: Variant) -> Result<Self, ToolError> {
        let socket = if runner.wrapper.is_empty() {
            NfSocket::open()
                .inspect_err(|error| tracing::info!(%error, "Sets are changed by ipset alone"))
                .ok()
        } else {
            None
        };
        let mut tools = Self {
            runner,
            variant,
            families: vec![Family::V4],
            socket,
        };
        tools.iptables_save(Family::V4, TableName::Filter).await?;
        match tools.iptables_save(Family::V6, TableName::Filter).await {
            Ok(_) => tools.families.push(Family::V6),
            Err(error) if error.is_absent() => {
                tracing::info!(%error, "IPv6 cannot be filtered here: no IPv6 rules");
            }
            Err(error) => return Err(error),
        }
        Ok(tools)
    }

    fn tool(&self, family: Family, verb: &str) -> String {
        let version = match family {
            Family::V4 => "",
            Family::V6 => "6",
        };
        format!("ip{version}tables-{}-{verb}", self.variant.suffix())
    }
}

impl Tools for HostTools {
    fn variant(&self) -> &str {
        self.variant.name()
    }

    fn families(&self) -> &[Family] {
        &self.families
    }

    async fn iptables_save(
        &mut self,
        family: Family,
        table: TableName,
    ) -> Result<String, ToolError> {
        let tool = self.tool(family, "save");
        self.runner.run(&tool, &["-t", table.as_str()], "").await
    }

    async fn ipset_save(&mut self) -> Result<String, ToolError> {
        self.runner.run("ipset", &["save"], "").await
    }

    async fn iptables_restore(&mut self, family: Family, input: &str) -> Result<(), ToolError> {
        let tool = self.tool(family, "restore");
        let args = ["--noflush", "-w", LOCK_SECONDS];
        self.runner.run(&tool, &args, input).await.map(drop)
    }

    async fn ipset_restore(&mut self, input: &str) -> Result<(), ToolError> {
        self.runner
            .run("ipset", &["restore"], input)
            .await
            .map(drop)
    }

    async fn ipset_change(&mut self, ops: &[SetOp]) -> Result<(), ToolError> {
        let socket = self.socket.as_ref();
        let done = socket.map_or(0, |socket| socket.change_elements(ops));
        // What is left is for the tool, whose words about it are better.
        let rest = ops.get(done..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        let input = Step::Sets(rest.to_vec()).text();
        let result = self.ipset_restore(&input).await;
        result.map_err(|mut error| {
            error.line_number = error.line_number.map(|line| line + done);
            error
        })
    }
}
