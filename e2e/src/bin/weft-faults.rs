//! `weft-faults`: the fault experiments on the lab, as `make e2e-faults` runs them. It prints a line
//! when an experiment is over and the table at the end, and writes the rows as JSON.

#![allow(
    clippy::print_stdout,
    reason = "a command line program talks to its user"
)]

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use weft_e2e::faults::{
    Size, chosen, elsewhere,
    row::{Row, Verdict, table},
    run,
};

/// Fault experiments on the lab with weft installed.
#[derive(Parser)]
#[command(name = "weft-faults", version)]
struct Arguments {
    /// Only these experiments.
    #[arg(long, value_delimiter = ',', value_name = "E2,E24")]
    only: Vec<String>,
    /// Little of each: a few minutes in all.
    #[arg(long)]
    short: bool,
    /// E2: how often npc is killed.
    #[arg(long, env = "E2_KILLS")]
    kills: Option<usize>,
    /// E7: how many pods start under the policy.
    #[arg(long, env = "E7_PODS")]
    pods: Option<usize>,
    /// E24: how many flushes.
    #[arg(long, env = "E24_FLUSHES")]
    flushes: Option<usize>,
    /// E26: seconds for which the lock is held.
    #[arg(long, env = "E26_LOCK")]
    lock: Option<u64>,
    /// E1: seconds for which npc is away.
    #[arg(long, env = "E1_ABSENT")]
    absent: Option<u64>,
    /// Where the rows are written.
    #[arg(long, default_value = "target/reports/e2e-faults.json")]
    json: PathBuf,
}

impl Arguments {
    fn size(&self) -> Size {
        let mut size = if self.short {
            Size::short()
        } else {
            Size::long()
        };
        size.kills = self.kills.unwrap_or(size.kills);
        size.pods = self.pods.unwrap_or(size.pods);
        size.flushes = self.flushes.unwrap_or(size.flushes);
        size.lock = self.lock.map_or(size.lock, Duration::from_secs);
        size.absent = self.absent.map_or(size.absent, Duration::from_secs);
        size
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let experiments = chosen(&arguments.only)?;
    let mut rows: Vec<Row> = Vec::new();
    run(&arguments.size(), &experiments, stop(), |row| {
        println!("{}", table(std::slice::from_ref(row)));
        rows.push(row.clone());
        // What is known stays known when something kills us.
        if let Err(error) = write(&arguments.json, &rows) {
            eprintln!("{error:#}");
        }
    })
    .await?;
    if arguments.only.is_empty() {
        rows.extend(elsewhere());
    }
    write(&arguments.json, &rows)?;
    println!("{}", table(&rows));
    let failed = rows
        .iter()
        .any(|row| matches!(row.verdict, Verdict::Failed(_)));
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Ends on SIGINT or SIGTERM.
async fn stop() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated => {}
    }
    eprintln!("stopping: taking back what the experiment did");
}

fn write(path: &PathBuf, rows: &[Row]) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, serde_json::to_string_pretty(rows)?)
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_changed_by_name() {
        let line = [
            "weft-faults",
            "--only",
            "E2,E24",
            "--kills",
            "6",
            "--lock",
            "60",
        ];
        let arguments = Arguments::try_parse_from(line).expect("a command line");
        assert_eq!(arguments.only, ["E2", "E24"]);
        assert_eq!(
            arguments.size(),
            Size {
                kills: 6,
                lock: Duration::from_secs(60),
                ..Size::long()
            }
        );
        let short = Arguments::try_parse_from(["weft-faults", "--short"]).expect("a command line");
        assert_eq!(short.size(), Size::short());
    }
}
