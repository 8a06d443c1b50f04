//! `weft-npc`: the network policy controller of a node. Parses arguments and hands over to the
//! library.

use std::process::ExitCode;

use clap::Parser;
use weft_npc::args::{Args, Command};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    weft_runtime::logging::init(args.log_format, &args.log)?;
    match args.command {
        Command::Run(args) => weft_npc::run(args).await?,
        Command::Dump(args) => weft_npc::dump(&args).await?,
        Command::Query(args) => return Ok(weft_npc::query(&args).await),
        Command::Cleanup => weft_npc::cleanup().await?,
    }
    Ok(ExitCode::SUCCESS)
}
