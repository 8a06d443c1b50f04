//! Repository tasks: the lab, the image, generated files, tidy checks, test reports, the demo.
//!
//! Everything that a person calls through `make` and that is more than one command stands here.
//! It must not be needed to build or run weft itself.

mod lab;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Repository tasks of weft")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// A real Kubernetes cluster on this machine.
    #[command(subcommand)]
    Lab(lab::Lab),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Lab(lab) => lab::run(lab),
    }
}
