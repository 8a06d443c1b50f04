//! `cargo xtask lab`: arguments and output of the lab; the work is in `weft-lab`.

use clap::Subcommand;

/// Verbs of the lab.
#[derive(Subcommand)]
pub(crate) enum Lab {
    /// Say what is up.
    Status,
}

/// Runs one verb.
pub(crate) fn run(lab: Lab) -> anyhow::Result<()> {
    match lab {
        Lab::Status => Ok(()),
    }
}
