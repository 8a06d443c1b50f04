use std::path::PathBuf;

use super::*;

/// A directory with plugins that say these lines.
fn plugins(list: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for (name, says) in list {
        let path = dir.path().join(name);
        let script = format!("#!/bin/sh\ntest -z \"$CNI_COMMAND\" && echo '{says}' >&2\n");
        // Written by another process: a file that is open for writing here, while some other test
        // forks, could not be started.
        let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
        #[allow(clippy::disallowed_methods, reason = "see above")]
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", write, "sh", &script]).arg(&path);
        assert!(shell.status().unwrap().success());
    }
    let path = dir.path().to_owned();
    (dir, path)
}

#[test]
fn versions_are_found_in_what_plugins_say() {
    let find = |text| Version::find(text);
    let said = "CNI portmap plugin v1.9.1\nCNI protocol versions supported: 0.1.0, 1.1.0\n";
    assert_eq!(find(said), Some(Version(1, 9, 1)));
    assert_eq!(
        find("CNI portmap plugin v1.1.1-3+b2"),
        Some(Version(1, 1, 1))
    );
    assert_eq!(find("CNI portmap plugin v1.10"), Some(Version(1, 10, 0)));
    assert_eq!(find("CNI portmap plugin version unknown"), None);
    assert_eq!(find(""), None);
    assert!(Version(1, 10, 0) > version::FIXED && Version(1, 8, 9) < version::FIXED);
}

#[tokio::test]
async fn a_plugin_of_the_host_that_is_too_old_is_named_with_the_remedy() {
    let (_dir, path) = plugins(&[
        ("old", "CNI portmap plugin v1.1.1"),
        ("new", "CNI portmap plugin v1.9.1"),
        ("mute", ""),
    ]);
    let say = async |plugin, file: &str| {
        let file = path.join(file);
        advice(plugin, &file, &version::of(&file).await)
    };
    let old = say("portmap", "old").await.unwrap();
    assert!(
        old.contains("is v1.1.1; before v1.9.0") && old.contains("CVE-2025-67499"),
        "{old}"
    );
    assert!(old.contains("delete the pod weft-node"), "{old}");
    assert_eq!(say("portmap", "new").await, None);
    let bandwidth = say("bandwidth", "old").await.unwrap();
    assert!(bandwidth.contains("older than v1.9.0"), "{bandwidth}");
    assert!(
        say("portmap", "mute")
            .await
            .unwrap()
            .contains("cannot tell")
    );
    assert!(
        say("portmap", "absent")
            .await
            .unwrap()
            .contains("cannot start it")
    );
}

#[tokio::test]
async fn what_the_host_has_stays_and_what_it_lacks_is_installed() {
    let (_from, source_dir) = plugins(&[
        ("weft-cni", "ours"),
        ("portmap", "CNI portmap plugin v1.9.1"),
        ("loopback", "CNI loopback plugin v1.9.1"),
    ]);
    let (_to, bin_dir) = plugins(&[
        ("portmap", "CNI portmap plugin v1.1.1"),
        ("weft-cni", "older"),
    ]);
    let args = InstallArgs {
        source_dir: source_dir.clone(),
        bin_dir: bin_dir.clone(),
    };
    install(&args).await.unwrap();
    assert_eq!(
        version::of(&bin_dir.join("portmap")).await,
        Ok(Version(1, 1, 1))
    );
    assert_eq!(
        version::of(&bin_dir.join("loopback")).await,
        Ok(Version(1, 9, 1))
    );
    let read = |dir: &Path| fs::read_to_string(dir.join("weft-cni")).unwrap();
    assert_eq!(read(&bin_dir), read(&source_dir));
    assert!(!bin_dir.join("bandwidth").exists());
}
