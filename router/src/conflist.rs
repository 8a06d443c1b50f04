//! The CNI configuration: what makes the kubelet call the node ready. Written only when the fabric
//! is up; stays at exit, because a runtime without it could not tear pods down.

use std::{fs, io, path::Path};

use serde_json::{Value, json};
use weft_crds::NodeConfig;
use weft_socket::{CONFLIST, UNINSTALLED_MARKER};

use crate::args::Paths;

/// Writes the conflist if it is missing or differs and `servable` says that ADD would work.
pub(crate) fn write(paths: &Paths, config: &NodeConfig, servable: bool) {
    if !servable {
        return;
    }
    let marker = Path::new(UNINSTALLED_MARKER).file_name();
    if let Some(marker) = marker.map(|m| paths.state_dir.join(m)) {
        // We are back: an earlier uninstall is over.
        match fs::remove_file(&marker) {
            Ok(()) => {
                tracing::info!(path = %marker.display(), "Removed the marker of an uninstall")
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %marker.display(), %error, "Cannot remove"),
        }
    }
    let path = paths.cni_conf_dir.join(CONFLIST);
    let text = text(config);
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return;
    }
    match replace(&path, &text) {
        Ok(()) => tracing::info!(path = %path.display(), "CNI configuration written"),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "Cannot write the CNI configuration");
        }
    }
}

/// All or nothing, for a runtime that watches the directory. The temporary name does not end in a
/// suffix that runtimes read.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, path)
}

fn text(config: &NodeConfig) -> String {
    // 1.0.0: Debian's portmap 1.1.1 refuses 1.1.0.
    let list: Value = json!({
        "cniVersion": "1.0.0",
        "name": "weft",
        "plugins": [
            {"type": "weft-cni", "clusterID": config.cluster_id},
            {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
            {"type": "bandwidth", "capabilities": {"bandwidth": true}},
        ],
    });
    let mut text = serde_json::to_string_pretty(&list).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conflist_is_written_only_when_add_works_and_ends_an_uninstall() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            config: dir.path().join("node.json"),
            state_dir: dir.path().to_owned(),
            run_dir: dir.path().to_owned(),
            cni_conf_dir: dir.path().to_owned(),
            sysctl_dir: dir.path().to_owned(),
        };
        let config = NodeConfig {
            cluster_id: "c1".into(),
            ..NodeConfig::default()
        };
        fs::write(dir.path().join("uninstalled"), "").unwrap();
        let path = dir.path().join(CONFLIST);
        write(&paths, &config, false);
        assert!(!path.exists());
        write(&paths, &config, true);
        assert!(!dir.path().join("uninstalled").exists());
        let list: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(list["cniVersion"], "1.0.0");
        let types: Vec<&str> = list["plugins"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|p| p["type"].as_str())
            .collect();
        assert_eq!(types, ["weft-cni", "portmap", "bandwidth"]);
    }
}
