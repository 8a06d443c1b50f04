//! `weft-npc dump`: what the running npc wants in the kernel.
#![allow(clippy::print_stdout, reason = "the rules are this command's output")]

use std::time::Duration;

use anyhow::Context as _;
use weft_socket::{NpcRequest, call};

use crate::args::SocketArgs;

/// Prints the rules of the running npc.
///
/// # Errors
/// npc does not answer.
pub async fn dump(args: &SocketArgs) -> anyhow::Result<()> {
    let socket = args.run_dir.join("npc.sock");
    let rules: String = tokio::task::spawn_blocking(move || {
        call(&socket, &NpcRequest::Dump, Duration::from_secs(10))
            .with_context(|| format!("is npc running? asked on {}", socket.display()))
    })
    .await??;
    print!("{rules}");
    Ok(())
}
