//! The end of an uninstall: while sandboxes of ours exist, configuration and plugin must stay, or
//! the runtime could not tear them down. The DEL that takes the last one also takes us.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use weft_socket::CONFLIST;

use crate::{conf::NetConf, error::Failure, host::Mark, netlink::Netlink};

/// Removes the conflist, the plugin and the state directory if no link of ours is left. The marker,
/// inside the state directory, goes last: after a failure the next DEL goes on.
pub(crate) fn finish(host: &mut Netlink, conf: &NetConf) -> Result<(), Failure> {
    if host.links()?.iter().any(|link| Mark::of(link).is_some()) {
        return Ok(());
    }
    let marker = match fs::read_to_string(&conf.uninstalled) {
        // Another DEL was faster.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other
            .map_err(|e| Failure::io(&format!("cannot read {}", conf.uninstalled.display()), &e))?,
    };
    let conf_dir = PathBuf::from(marker.trim());
    if conf_dir.is_absolute() {
        let conflist = conf_dir.join(CONFLIST);
        gone(&conflist, fs::remove_file(&conflist))?;
    }
    if let Ok(plugin) = std::env::current_exe()
        && plugin.file_name().is_some_and(|name| name == "weft-cni")
    {
        gone(&plugin, fs::remove_file(&plugin))?;
    }
    match conf.uninstalled.parent() {
        // Only a directory of ours is removed with all that is in it.
        Some(state) if state.file_name().is_some_and(|name| name == "weft") => {
            gone(state, fs::remove_dir_all(state))
        }
        _ => gone(&conf.uninstalled, fs::remove_file(&conf.uninstalled)),
    }
}

fn gone(path: &Path, removed: io::Result<()>) -> Result<(), Failure> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|e| Failure::io(&format!("cannot remove {}", path.display()), &e)),
    }
}
