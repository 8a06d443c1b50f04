use std::fs;

use super::*;

fn layout() -> Layout {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Layout::new(&repository, Path::new("/nonexistent"))
}

/// Version of `module` in the unit's go.mod.
fn pinned(unit: &GoUnit, module: &str) -> String {
    let path = layout().sources().join(unit.module).join("go.mod");
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .find_map(|line| {
            let mut words = line.trim().trim_start_matches("require ").split(' ');
            (words.next() == Some(module)).then(|| words.next())?
        })
        .unwrap()
        .to_owned()
}

#[test]
fn versions_that_programs_show_are_those_that_go_mod_pins() {
    for (unit, module) in [
        (&KUBERNETES, "k8s.io/kubernetes"),
        (&AGNHOST, "k8s.io/kubernetes"),
        (&NETPOL, "k8s.io/kubernetes"),
        (&CONTAINERD, "github.com/containerd/containerd/v2"),
        (&HELM, "helm.sh/helm/v4"),
        (&CNI_PLUGINS, "github.com/containernetworking/plugins"),
    ] {
        assert_eq!(
            pinned(unit, module),
            format!("v{}", unit.version),
            "{}",
            unit.name
        );
        assert!(
            !unit.link.contains("=v") || unit.link.contains(&format!("=v{}", unit.version)),
            "{}: {}",
            unit.name,
            unit.link
        );
    }
}

#[test]
fn plugins_of_the_image_are_not_vulnerable() {
    // CVE-2025-67499 is fixed in 1.9.0.
    let mut parts = CNI_PLUGINS
        .version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap());
    let version = (parts.next().unwrap(), parts.next().unwrap());
    assert!(version >= (1, 9), "{version:?}");
}

#[test]
fn each_processor_has_an_entry_of_its_own() {
    let amd64 = CNI_PLUGINS.entry(&layout(), "amd64").unwrap();
    let arm64 = CNI_PLUGINS.entry(&layout(), "arm64").unwrap();
    assert_ne!(amd64, arm64);
    assert!(amd64.starts_with("cni-plugins-1.9.1-"), "{amd64}");
}
