use super::*;

fn entry(parts: &[&str]) -> String {
    let mut inputs = Inputs::default();
    for part in parts {
        inputs.add(part.as_bytes());
    }
    inputs.entry("helm", "4.3.1")
}

#[test]
fn an_entry_is_named_by_all_its_inputs() {
    assert!(entry(&["a"]).starts_with("helm-4.3.1-"));
    assert_eq!(entry(&["a", "b"]), entry(&["a", "b"]));
    assert_ne!(entry(&["a", "b"]), entry(&["b", "a"]));
    assert_ne!(entry(&["ab", "c"]), entry(&["a", "bc"]));
}

#[test]
fn a_failed_build_publishes_nothing_and_the_next_one_starts_anew() {
    let cache = tempfile::tempdir().unwrap();
    let failed = build(cache.path(), "x", |staging| {
        fs::write(staging.join("half"), "")?;
        anyhow::bail!("compiler error")
    });
    assert_eq!(failed.unwrap_err().to_string(), "compiler error");
    assert_eq!(find(cache.path(), "x"), None);

    let path = build(cache.path(), "x", |staging| {
        assert_eq!(fs::read_dir(staging)?.count(), 0);
        fs::write(staging.join("whole"), "")?;
        Ok(())
    })
    .unwrap();
    assert_eq!(find(cache.path(), "x"), Some(path.clone()));
    assert!(path.join("whole").exists());
}
