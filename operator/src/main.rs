//! The weft operator: grants address blocks to nodes, publishes the peers of the fabric, and keeps
//! the node agent on every node.
//!
//! It talks to the Kubernetes API and to nothing else; it must not know netlink, netfilter or the
//! sockets of a node. Controllers are pure decisions over watched tables plus a thin layer that
//! reads and writes; each runs in [`looping::Looped::run`].
//!
//! ```text
//! stores (one watch per kind) --wake--> blocks   IPPool + Node      -> IPBlock, and back
//!                                       nodes    Node + IPBlock     -> WeftNode, Node condition
//!                                       peers    WeftNode + IPBlock -> PeerSlice
//!                                       pools    IPPool + IPBlock   -> IPPool status
//!                                       network  WeftNetwork        -> DaemonSet weft-node, RBAC, ...
//!                                       status   DaemonSet          -> WeftNetwork status
//! ```

mod api;
mod args;
mod blocks;
mod clock;
mod crds;
mod defaults;
mod events;
mod looping;
mod metrics;
mod network;
mod nodes;
mod pools;
mod rows;
mod run;
#[cfg(test)]
mod scripted;
mod slim;
mod stores;
mod table;
mod uninstall;

use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Run(options) => run::run(*options).await,
        Command::Health(options) => run::health(&options).await,
        Command::Uninstall(options) => run::uninstall(&options).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "the last word of the process")]
            {
                eprintln!("weft-operator: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
