//! `nft` on this host.

use std::time::Duration;

use super::Runner;
use crate::backend::{Nft, ToolError};

/// The tool.
#[derive(Debug, Clone)]
pub struct HostNft {
    runner: Runner,
}

/// The first script of a node holds all rules; one that is killed has changed nothing.
const DEADLINE: Duration = Duration::from_secs(30);

/// One of everything that is written, for a kernel that may lack something. It is checked by the
/// kernel and not taken.
const PROBE: &str = "\
add table inet weft-probe
add chain inet weft-probe forward { type filter hook forward priority -10; policy accept; }
add chain inet weft-probe to
add map inet weft-probe way { type ipv4_addr : verdict; }
add set inet weft-probe nets { type ipv6_addr; flags interval; }
add set inet weft-probe ports { type ipv4_addr . inet_proto . inet_service; flags interval; }
add element inet weft-probe ports { 10.0.0.0/8 . 6 . 80-90 }
add rule inet weft-probe forward ct mark & 0x08000000 == 0x08000000 drop
add rule inet weft-probe forward ct state 0x2,0x4 return
add rule inet weft-probe forward ip saddr . meta l4proto . th dport @ports meta mark set meta mark | 0x00040000
add rule inet weft-probe forward ip6 saddr @nets log prefix \"weft\" group 86
add rule inet weft-probe forward ip daddr vmap @way
add table bridge weft-probe
add map bridge weft-probe ports { type ifname : mark; }
add chain bridge weft-probe forward { type filter hook forward priority -200; policy accept; }
add rule bridge weft-probe forward meta mark set oifname map @ports
";

impl HostNft {
    /// Runs `nft` so.
    #[must_use]
    pub fn new(runner: Runner) -> Self {
        let deadline = runner.deadline.max(DEADLINE);
        Self {
            runner: Runner { deadline, ..runner },
        }
    }

    /// Asks the kernel whether it would take what we write.
    ///
    /// # Errors
    /// [`ToolError`]: it would not, or there is no `nft`.
    pub async fn probe(runner: Runner) -> Result<Self, ToolError> {
        runner.run("nft", &["-c", "-f", "-"], PROBE).await?;
        Ok(Self::new(runner))
    }

    /// Tables of the host, one `family name` each.
    ///
    /// # Errors
    /// [`ToolError`].
    pub async fn tables(&self) -> Result<Vec<String>, ToolError> {
        let text = self.runner.run("nft", &["list", "tables"], "").await?;
        let names = text.lines().filter_map(|line| line.strip_prefix("table "));
        Ok(names.map(str::to_owned).collect())
    }
}

impl Nft for HostNft {
    async fn list(&mut self, table: &str) -> Result<Option<String>, ToolError> {
        let mut args = vec!["-n", "list", "table"];
        args.extend(table.split(' '));
        match self.runner.run("nft", &args, "").await {
            Ok(text) => Ok(Some(text)),
            // Of the table; a tool that is not there is of another class.
            Err(error)
                if error.class == "exit" && error.message.contains("No such file or directory") =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn run(&mut self, script: &str) -> Result<(), ToolError> {
        self.runner.run("nft", &["-f", "-"], script).await.map(drop)
    }
}
