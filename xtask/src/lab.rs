//! `cargo xtask lab`: arguments and output of the lab; the work is in `weft-lab`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use weft_lab::{Component, Families, Layout, Options, ProxyMode};

/// Where the lab keeps things.
#[derive(Args)]
pub(crate) struct Place {
    /// Directory of built programs, shared by all checkouts [default: ~/.cache/weft].
    #[arg(long, env = "WEFT_CACHE", global = true)]
    cache: Option<PathBuf>,
}

/// The lab of this checkout.
#[derive(Args)]
pub(crate) struct Lab {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    verb: Verb,
}

/// Verbs of the lab.
#[derive(Subcommand)]
enum Verb {
    /// Build the lab's programs into the cache (`up` does it too).
    Build,
    /// Start a cluster. Its nodes become Ready when a CNI is installed.
    Up(Up),
    /// Remove the cluster and everything that `up` made.
    Down,
    /// Say what is up.
    Status {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Run a command in the namespaces of a node, of `hub` (control plane) or of `outside`.
    Enter {
        /// n1, n2, ..., hub or outside.
        member: String,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Import an image archive on every node, now and on nodes that are added later.
    LoadImage {
        /// A docker-archive or OCI archive.
        archive: PathBuf,
    },
    /// Add a node.
    AddNode {
        /// Its name [default: the next of n1, n2, ...].
        name: Option<String>,
    },
    /// Stop a node and remove everything of it.
    RemoveNode {
        /// Its name.
        name: String,
        /// Whether to delete the Node object too.
        #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
        delete_object: bool,
    },
    /// Stop a component.
    Stop(Part),
    /// Start a component that was stopped or died.
    Start(Part),
}

/// Shape of a new cluster.
#[derive(Args)]
struct Up {
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// Backend of kube-proxy: iptables or nftables.
    #[arg(long, default_value_t = ProxyMode::Iptables)]
    proxy_mode: ProxyMode,
    /// Address families: v4 or dual.
    #[arg(long, default_value_t = Families::V4)]
    families: Families,
    /// MTU of the links between nodes.
    #[arg(long, default_value_t = 1500)]
    underlay_mtu: u32,
}

/// A component and where it runs.
#[derive(Args)]
struct Part {
    /// etcd, apiserver, controller-manager, scheduler, kubelet, containerd, proxy or link.
    component: Component,
    /// The node, for kubelet, containerd, proxy and link.
    node: Option<String>,
}

/// The lab of this checkout, with the cache at `cache`, `WEFT_CACHE` or its usual place.
///
/// # Errors
/// There is no home directory and no cache is given.
fn open(cache: Option<PathBuf>) -> anyhow::Result<weft_lab::Lab> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask lies in no checkout")?;
    let cache = match cache.or_else(|| std::env::var_os("WEFT_CACHE").map(PathBuf::from)) {
        Some(cache) => cache,
        None => std::env::home_dir()
            .context("there is no home directory for the cache; set WEFT_CACHE")?
            .join(".cache/weft"),
    };
    let cache = std::path::absolute(&cache)
        .with_context(|| format!("cannot make {} absolute", cache.display()))?;
    Ok(weft_lab::Lab::new(Layout::new(repository, &cache)))
}

/// The lab of this checkout as other tasks use it: for the programs that it builds.
///
/// # Errors
/// As [`open`].
pub(crate) fn of_this_checkout() -> anyhow::Result<weft_lab::Lab> {
    open(None)
}

/// What the lab that is up was started with: the word behind `name` (`--proxy-mode`).
///
/// # Errors
/// No lab is up, or it knows no such option.
pub(crate) fn option(name: &str) -> anyhow::Result<String> {
    let status = of_this_checkout()?
        .status()?
        .context("no lab is up in this checkout")?;
    word_behind(name, &status.options)
        .map(str::to_owned)
        .with_context(|| format!("the lab was started with {}: no {name}", status.options))
}

fn word_behind<'a>(name: &str, line: &'a str) -> Option<&'a str> {
    let mut words = line.split_whitespace();
    words.find(|word| *word == name)?;
    words.next()
}

/// Runs one verb.
pub(crate) fn run(arguments: Lab) -> anyhow::Result<()> {
    let lab = open(arguments.place.cache)?;
    match arguments.verb {
        Verb::Build => {
            lab.build()?;
            println!(
                "the lab's programs are in {}",
                lab.layout().cache().display()
            );
        }
        Verb::Up(up) => {
            lab.up(&Options {
                nodes: up.nodes,
                proxy_mode: up.proxy_mode,
                families: up.families,
                underlay_mtu: up.underlay_mtu,
            })?;
            print_status(&lab, false)?;
        }
        Verb::Down => {
            if !lab.down()? {
                println!("no lab is up in this checkout");
            }
        }
        Verb::Status { json } => print_status(&lab, json)?,
        Verb::Enter { member, command } => lab.enter(&member, &command)?,
        Verb::LoadImage { archive } => lab.load_image(&archive)?,
        Verb::AddNode { name } => println!("{}", lab.add_node(name.as_deref())?),
        Verb::RemoveNode {
            name,
            delete_object,
        } => lab.remove_node(&name, delete_object)?,
        Verb::Stop(part) => lab.stop(part.component, part.node.as_deref())?,
        Verb::Start(part) => lab.start(part.component, part.node.as_deref())?,
    }
    Ok(())
}

fn print_status(lab: &weft_lab::Lab, json: bool) -> anyhow::Result<()> {
    let text = match (lab.status()?, json) {
        (status, true) => format!("{}\n", serde_json::to_string_pretty(&status)?),
        (Some(status), false) => status.to_string(),
        (None, false) => "no lab is up in this checkout\n".to_owned(),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader (`head`, `grep -q`) has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_lab_are_read_as_they_are_typed() {
        let options = Options {
            nodes: 3,
            proxy_mode: ProxyMode::Nftables,
            families: Families::Dual,
            underlay_mtu: 1500,
        }
        .to_string();
        assert_eq!(word_behind("--proxy-mode", &options), Some("nftables"));
        assert_eq!(word_behind("--families", &options), Some("dual"));
        assert_eq!(word_behind("--colour", &options), None);
    }
}
