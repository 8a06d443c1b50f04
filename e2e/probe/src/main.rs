//! `weft-probe`: the traffic tool of weft. It makes the smallest traffic that answers one question
//! ("does this packet arrive, and whom does the other end see?") and prints the answer as one JSON
//! document on stdout, so that the demo, the cluster tests, `helm test` and the bench read the same
//! words. What a person wants to know while it runs goes to stderr.
//!
//! It runs without root and without capabilities. It must not know anything of weft: it would test
//! any pod network.

mod connect;
mod group;
mod hold;
mod icmp;
mod meter;
mod ping;
mod push;
mod rr;
mod serve;
mod stop;
mod test;
mod wait;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use weft_probe::{duration, report};

#[derive(Parser)]
#[command(name = "weft-probe", version, about = "Traffic probe of weft")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Answer on TCP and UDP ports until SIGTERM: whom we see, then an echo.
    Serve(serve::Arguments),
    /// Reach a server once, several times, or over one long connection.
    Connect(connect::Arguments),
    /// ICMP echo.
    Ping(ping::Arguments),
    /// Receive what is sent to a multicast group or to broadcast.
    ListenGroup(group::ListenArguments),
    /// Send to a multicast group or to broadcast.
    SendGroup(group::SendArguments),
    /// Many attempts a second that must or must not succeed, and flows that are held meanwhile.
    Meter(meter::Arguments),
    /// Request/response latency over one TCP connection.
    Rr(rr::Arguments),
    /// Wait for a TCP server, or without one for SIGTERM.
    Wait(wait::Arguments),
    /// Connectivity test from inside a cluster, as `helm test` runs it.
    Test(test::Arguments),
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().task {
        Task::Serve(arguments) => serve::run(&arguments).await,
        Task::Connect(arguments) => connect::run(&arguments).await,
        Task::Ping(arguments) => ping::run(&arguments).await,
        Task::ListenGroup(arguments) => group::listen(&arguments).await,
        Task::SendGroup(arguments) => group::send(&arguments).await,
        Task::Meter(arguments) => meter::run(&arguments).await,
        Task::Rr(arguments) => rr::run(&arguments).await,
        Task::Wait(arguments) => wait::run(&arguments).await,
        Task::Test(arguments) => test::run(&arguments).await,
    }
}
