//! The end of an uninstall: while sandboxes of ours exist, configuration and plugin must stay, or
//! the runtime could not tear them down. The DEL that takes the last one also takes us, a while
//! later: the kubelet stops a sandbox more than once, and containerd refuses to without a
//! configuration, so the files outlive the last DEL by [`LINGER`].

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use weft_socket::CONFLIST;

use crate::{conf::NetConf, host::Mark, netlink::Netlink};

/// First argument of the process that waits and removes.
pub(crate) const VERB: &str = "finish-uninstall";

/// How long configuration and plugin outlive the last sandbox.
const LINGER: Duration = Duration::from_secs(15);

/// Starts the process that removes the rest, if this was the last link of ours. A failure is only
/// said on standard error: the sandbox itself is gone, and a DEL that fails is asked again for ever.
pub(crate) fn schedule(host: &mut Netlink, conf: &NetConf) {
    match last(host) {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => return say(&error),
    }
    #[allow(
        clippy::disallowed_methods,
        reason = "this program again, outliving the call of the runtime"
    )]
    let started = std::env::current_exe().and_then(|me| {
        Command::new(me)
            .arg(VERB)
            .arg(&conf.uninstalled)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
    });
    if let Err(error) = started {
        say(&format!("cannot start the end of the uninstall: {error}"));
    }
}

/// Waits, and removes conflist, plugin and state if still no link of ours is there and weft was not
/// installed again (then the marker is gone).
pub(crate) fn finish(marker: &Path) {
    #[allow(
        clippy::disallowed_methods,
        reason = "a process of its own that only waits"
    )]
    std::thread::sleep(LINGER);
    match Netlink::open()
        .map_err(|e| e.to_string())
        .and_then(|mut host| last(&mut host))
    {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => return say(&error),
    }
    let Ok(text) = fs::read_to_string(marker) else {
        return;
    };
    let conf_dir = PathBuf::from(text.trim());
    if conf_dir.is_absolute() {
        gone(fs::remove_file(conf_dir.join(CONFLIST)), &conf_dir);
    }
    if let Ok(plugin) = std::env::current_exe()
        && plugin.file_name().is_some_and(|name| name == "weft-cni")
    {
        gone(fs::remove_file(&plugin), &plugin);
    }
    // The directory may be a mount point: its contents count.
    let state = marker
        .parent()
        .filter(|s| s.file_name().is_some_and(|name| name == "weft"));
    for entry in state
        .and_then(|s| fs::read_dir(s).ok())
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = entry.path();
        if path != marker {
            let removed = match path.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            gone(removed, &path);
        }
    }
    // Last, so that what was cut short can be seen.
    gone(fs::remove_file(marker), marker);
    if let Some(state) = state {
        // Not empty or a mount point: it stays.
        let _ = fs::remove_dir(state);
    }
}

fn last(host: &mut Netlink) -> Result<bool, String> {
    let links = host.links().map_err(|e| e.to_string())?;
    Ok(!links.iter().any(|link| Mark::of(link).is_some()))
}

fn gone(removed: io::Result<()>, path: &Path) {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => say(&format!("cannot remove {}: {e}", path.display())),
        Ok(()) => {}
    }
}

fn say(text: &str) {
    use io::Write as _;
    let _ = writeln!(io::stderr(), "weft-cni: {text}");
}
