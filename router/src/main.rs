//! `weft-router`: the router of a node. Parses arguments and hands over to the library.

use clap::Parser;
use weft_router::args::{Args, Command};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    weft_runtime::logging::init(args.log_format, &args.log)?;
    match args.command {
        Command::Run(args) => weft_router::run(args).await,
        Command::InstallCni(args) => weft_router::install::install(&args).await,
        Command::Cleanup(args) => weft_router::cleanup::cleanup(&args).await,
    }
}
