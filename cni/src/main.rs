//! The CNI plugin of weft: started by the container runtime for every sandbox, on the host.
//!
//! It asks the router for addresses, makes the veth pair, has the router enforce ports and policy,
//! and only then lets traffic flow. It must not know Kubernetes, keep state of its own (tombstones
//! excepted), or need a runtime: one thread, blocking calls, about a millisecond to start.
//!
//! ```text
//! ADD:  router Add -> veth (host end down) -> pod side in its netns | router Enforce
//!       -> host end up -> announce -> result;  any failure undoes what was done
//! DEL:  host end away (by name and ifalias) -> router Del, or a tombstone if it cannot be reached
//! ```

mod add;
mod announce;
mod call;
mod check;
mod conf;
mod del;
mod error;
mod gc;
mod host;
mod link;
mod netlink;
mod netns;
mod outcome;
mod status;
mod sysctl;
mod uninstall;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    process::ExitCode,
};

use call::{Call, Verb};
use conf::{NetConf, Version};
use error::Failure;
use serde_json::{Value, json};

/// The largest configuration that is read from standard input, in bytes.
const MAX_STDIN: u64 = 8 << 20;

const USAGE: &str = concat!(
    "weft-cni ",
    env!("CARGO_PKG_VERSION"),
    "\n\
CNI plugin of weft; protocol versions 0.4.0, 1.0.0, 1.1.0.\n\
\n\
It is started by a container runtime, not by hand: the verb is in the variable CNI_COMMAND\n\
(ADD, DEL, CHECK, GC, STATUS, VERSION), the sandbox in CNI_CONTAINERID, CNI_NETNS and CNI_IFNAME,\n\
the pod in CNI_ARGS, the network configuration on standard input. The answer is JSON on standard\n\
output.\n\
\n\
To see whether it would serve an ADD:\n\
  echo '{\"cniVersion\":\"1.1.0\",\"name\":\"weft\",\"type\":\"weft-cni\"}' | CNI_COMMAND=STATUS weft-cni\n"
);

fn main() -> ExitCode {
    let environment = environment();
    if std::env::args_os()
        .nth(1)
        .is_some_and(|a| a == "--help" || a == "-h" || a == "--version")
    {
        return answer(USAGE.as_bytes());
    }
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|a| a == uninstall::VERB) {
        if let Some(marker) = arguments.next() {
            uninstall::finish(std::path::Path::new(&marker));
        }
        return ExitCode::SUCCESS;
    }
    if environment.is_empty() {
        // As the reference plugins do when they are started by hand.
        let _ = std::io::stderr().write_all(USAGE.as_bytes());
        return ExitCode::SUCCESS;
    }
    let mut input = Vec::new();
    let read = std::io::stdin().take(MAX_STDIN).read_to_end(&mut input);
    let version = conf::version_of(&input);
    let outcome = read
        .map_err(|e| Failure::io("cannot read the configuration from standard input", &e))
        .and_then(|_| serve(&environment, &input));
    match outcome {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(value)) => answer(value.to_string().as_bytes()),
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "weft-cni: {failure}");
            answer(failure.to_json(&version).to_string().as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// Carries a call out; what it answers is to be printed.
fn serve(environment: &BTreeMap<String, String>, input: &[u8]) -> Result<Option<Value>, Failure> {
    let verb = call::verb(environment)?;
    if verb == Verb::Version {
        return Ok(Some(versions(&conf::version_of(input))));
    }
    let call = Call::parse(verb, environment)?;
    let conf = NetConf::parse(input)?;
    match verb {
        Verb::Add => add::add(&call, &conf).map(|added| Some(added.to_json(conf.version))),
        Verb::Del => del::del(&call, &conf).map(|()| None),
        Verb::Check => check::check(&call, &conf).map(|()| None),
        Verb::Gc => gc::gc(&conf).map(|()| None),
        Verb::Status => status::status(&conf).map(|()| None),
        Verb::Version => Ok(None),
    }
}

fn versions(asked: &str) -> Value {
    let ours: Vec<&str> = Version::ALL.iter().map(|v| v.text()).collect();
    json!({ "cniVersion": asked, "supportedVersions": ours })
}

fn answer(text: &[u8]) -> ExitCode {
    let mut out = std::io::stdout();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The variables of the protocol. Names and values that are no text are left out: then they are
/// reported as missing.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .filter(|(k, _)| k.starts_with("CNI_"))
        .collect()
}
