use super::*;

fn config() -> ImageConfig {
    ImageConfig {
        entrypoint: vec!["/bin/hello".into()],
        environment: BTreeMap::from([("PATH".into(), "/bin".into())]),
        ..ImageConfig::default()
    }
}

fn names() -> Vec<String> {
    vec!["example.org/hello:1".into()]
}

/// Every member of a tar: path, type, mode, content (link target for links).
fn members(bytes: &[u8]) -> Vec<(String, tar::EntryType, u32, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let header = entry.header().clone();
            assert_eq!(
                (header.mtime().unwrap(), header.uid().unwrap()),
                (0, 0),
                "{path}"
            );
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if let Some(target) = entry.link_name().unwrap() {
                content = target.display().to_string().into_bytes();
            }
            (path, header.entry_type(), header.mode().unwrap(), content)
        })
        .collect()
}

#[test]
fn the_archive_holds_config_layer_and_manifest_that_name_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("hello");
    std::fs::write(&program, "binary").unwrap();
    let out = directory.path().join("hello.tar");
    let entries = [
        Entry::program("/bin/hello", &program),
        Entry::symlink("/bin/sh", "hello"),
        Entry {
            mode: 0o1777,
            ..Entry::directory("/tmp")
        },
        Entry::text("/etc/passwd", "root:x:0:0::/:/bin/sh\n"),
    ];
    let id = write_docker_archive(&out, &names(), &config(), &entries).unwrap();

    let outer = members(&std::fs::read(&out).unwrap());
    let digest = id.strip_prefix("sha256:").unwrap();
    let paths: Vec<&str> = outer.iter().map(|member| member.0.as_str()).collect();
    assert_eq!(
        paths,
        [&format!("{digest}.json"), "layer.tar", "manifest.json"]
    );
    assert_eq!(hex(&Sha256::digest(&outer[0].3)), digest);

    let manifest: serde_json::Value = serde_json::from_slice(&outer[2].3).unwrap();
    assert_eq!(
        manifest,
        json!([{
            "Config": format!("{digest}.json"),
            "RepoTags": ["example.org/hello:1"],
            "Layers": ["layer.tar"],
        }])
    );
    let document: serde_json::Value = serde_json::from_slice(&outer[0].3).unwrap();
    assert_eq!(
        document["rootfs"]["diff_ids"],
        json!([format!("sha256:{}", hex(&Sha256::digest(&outer[1].3)))])
    );
    assert_eq!(document["config"]["Env"], json!(["PATH=/bin"]));

    let directory_type = tar::EntryType::Directory;
    assert_eq!(
        members(&outer[1].3),
        [
            ("bin/".to_owned(), directory_type, 0o755, vec![]),
            (
                "bin/hello".to_owned(),
                tar::EntryType::Regular,
                0o755,
                b"binary".to_vec()
            ),
            (
                "bin/sh".to_owned(),
                tar::EntryType::Symlink,
                0o777,
                b"hello".to_vec()
            ),
            ("etc/".to_owned(), directory_type, 0o755, vec![]),
            (
                "etc/passwd".to_owned(),
                tar::EntryType::Regular,
                0o644,
                b"root:x:0:0::/:/bin/sh\n".to_vec()
            ),
            ("tmp/".to_owned(), directory_type, 0o1777, vec![]),
        ]
    );
}

#[test]
fn the_same_entries_in_another_order_give_the_same_image() {
    let directory = tempfile::tempdir().unwrap();
    let mut entries = vec![
        Entry::text("/a", "1"),
        Entry::directory("/b"),
        Entry::text("/c/d", "2"),
    ];
    let first = directory.path().join("first.tar");
    let second = directory.path().join("second.tar");
    let id = write_docker_archive(&first, &names(), &config(), &entries).unwrap();
    entries.reverse();
    assert_eq!(
        write_docker_archive(&second, &names(), &config(), &entries).unwrap(),
        id
    );
    assert_eq!(
        std::fs::read(first).unwrap(),
        std::fs::read(second).unwrap()
    );
}

#[test]
fn long_paths_survive() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("long.tar");
    let path = format!("/{}/{}", "d".repeat(120), "f".repeat(120));
    write_docker_archive(&out, &names(), &config(), &[Entry::text(&path, "x")]).unwrap();
    let outer = members(&std::fs::read(&out).unwrap());
    let inner: Vec<String> = members(&outer[1].3)
        .into_iter()
        .map(|member| member.0)
        .collect();
    assert_eq!(
        inner,
        [format!("{}/", "d".repeat(120)), path[1..].to_owned()]
    );
}

#[test]
fn bad_input_is_refused_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("bad.tar");
    let refuse = |names: &[String], entry: Entry| {
        format!(
            "{:#}",
            write_docker_archive(&out, names, &config(), &[entry]).unwrap_err()
        )
    };
    assert_eq!(
        refuse(&["localhost:5000/hello".into()], Entry::text("/a", "")),
        "image name \"localhost:5000/hello\" has no tag; write it as registry/repository:tag"
    );
    assert_eq!(
        refuse(&names(), Entry::text("a", "")),
        "path \"a\" of the image is not absolute"
    );
    assert_eq!(
        refuse(&names(), Entry::text("/a/../b", "")),
        "path \"/a/../b\" of the image is not a plain path below /"
    );
    let missing = directory.path().join("missing");
    assert!(
        refuse(&names(), Entry::program("/a", &missing)).starts_with("cannot put"),
        "a missing source is named"
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
