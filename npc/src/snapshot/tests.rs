use std::os::unix::fs::MetadataExt as _;

use weft_netfilter::Ruleset;
use weft_policy::cases;
use weft_policy_compile::NodeView;
use weft_testkit::eventually::eventually;

use super::*;

fn file(dir: &Path) -> SnapshotFile {
    SnapshotFile::new(dir, "c", "n1")
}

/// The rules are not kept, so they can be missing.
fn compiled(model: PolicyModel) -> Compiled {
    Compiled {
        model,
        view: NodeView {
            blocks: cases::BLOCKS.map(|net| net.parse().expect("net")).into(),
            gateways: cases::GATEWAYS
                .map(|ip| ip.parse().expect("address"))
                .into(),
            ..NodeView::default()
        },
        ruleset: Ruleset::default(),
    }
}

fn kept(compiled: &Compiled) -> Kept {
    Kept {
        backend: "nftables".to_owned(),
        blocks: compiled.view.blocks.clone(),
        gateways: compiled.view.gateways.clone(),
        model: compiled.model.clone(),
    }
}

/// Every model of the table of cases.
fn models() -> Vec<PolicyModel> {
    let mut models: Vec<PolicyModel> = Vec::new();
    for case in cases::all() {
        case.play(|index, _, _| {
            let model = index.model();
            if models.last() != Some(&model) {
                models.push(model);
            }
        });
    }
    models
}

/// The largest of them, so that a file has something of everything.
fn large() -> Compiled {
    let all = models().into_iter();
    compiled(
        all.max_by_key(|model| format!("{model:?}").len())
            .expect("a case"),
    )
}

fn bytes(compiled: &Compiled) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("directory");
    let file = file(dir.path());
    file.write(compiled, "nftables").expect("written");
    fs::read(file.path()).expect("read")
}

#[test]
fn what_was_written_is_read_whatever_policies_say() {
    let dir = tempfile::tempdir().expect("directory");
    let file = file(&dir.path().join("made"));
    assert_eq!(file.read(), Ok(None));
    let models = models();
    assert!(models.len() > 75, "only {}", models.len());
    for model in models {
        let compiled = compiled(model);
        file.write(&compiled, "nftables").expect("written");
        assert_eq!(file.read(), Ok(Some(kept(&compiled))));
    }
    let names: Vec<_> = fs::read_dir(&file.dir)
        .expect("directory")
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    assert_eq!(names, [NPC_SNAPSHOT]);
}

#[test]
fn cut_at_any_byte_it_is_ignored() {
    let file = file(Path::new("/nowhere"));
    let bytes = bytes(&large());
    let head = format!("{MAGIC}{FORMAT}\n").len();
    for cut in 0..bytes.len() {
        let damage = match cut {
            0 => Damage::Empty,
            cut if cut < head => Damage::NotASnapshot,
            _ => Damage::Corrupt,
        };
        assert_eq!(file.decode(&bytes[..cut]), Err(damage), "cut at {cut}");
    }
    let mut longer = bytes;
    longer.push(b'\n');
    assert_eq!(file.decode(&longer), Err(Damage::Corrupt));
}

#[test]
fn any_changed_byte_is_noticed() {
    let file = file(Path::new("/nowhere"));
    let whole = bytes(&large());
    let mut bytes = whole.clone();
    for at in 0..bytes.len() {
        bytes[at] ^= 1 << (at % 8);
        let read = file.decode(&bytes);
        assert!(read.is_err(), "byte {at}");
        bytes[at] = whole[at];
    }
    assert!(file.decode(&bytes).is_ok());
}

#[test]
fn what_is_not_ours_is_named() {
    let file = file(Path::new("/nowhere"));
    let compiled = large();
    let bytes = bytes(&compiled);
    for (cluster, node) in [("other", "n1"), ("c", "n2")] {
        let foreign = SnapshotFile::new(Path::new("/nowhere"), cluster, node);
        let damage = Damage::Foreign {
            node: "n1".to_owned(),
            cluster: "c".to_owned(),
        };
        assert_eq!(foreign.decode(&bytes), Err(damage));
    }
    assert_eq!(file.decode(&[0; 4096]), Err(Damage::NotASnapshot));
    assert_eq!(
        file.decode(format!("{MAGIC}2\nwhatever\n").as_bytes()),
        Err(Damage::Format(2))
    );
    let huge = vec![b' '; usize::try_from(MAX_BYTES).expect("usize") + 1];
    assert_eq!(file.decode(&huge), Err(Damage::Oversized));
    // A checksum that is right proves nothing about what it covers.
    let mut odd = format!("{MAGIC}{FORMAT}\n{{}}\n");
    odd.push_str(&trailer(crc32fast::hash(odd.as_bytes())));
    assert_eq!(
        file.decode(odd.as_bytes()),
        Err(Damage::Unreadable(
            "missing field `cluster` at line 1 column 2".to_owned()
        ))
    );
}

#[test]
fn after_a_write_that_failed_no_older_state_remains() {
    let dir = tempfile::tempdir().expect("directory");
    let file = file(dir.path());
    let compiled = large();
    file.write(&compiled, "nftables").expect("written");
    // In the way of the temporary file.
    let new = dir.path().join(format!("{NPC_SNAPSHOT}.new"));
    fs::create_dir(&new).expect("directory");
    file.write(&compiled, "nftables").unwrap_err();
    assert_eq!(file.read(), Ok(None));
    fs::remove_dir(&new).expect("removed");
    file.write(&compiled, "nftables").expect("written");
    assert_eq!(file.read(), Ok(Some(kept(&compiled))));
    for _ in 0..2 {
        forget(dir.path()).expect("forgotten");
        assert_eq!(file.read(), Ok(None));
    }
}

#[test]
fn what_would_not_be_read_is_not_written() {
    let mut to = Summing::new(io::sink());
    to.length = MAX_BYTES;
    let error = to.write_all(b"x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
}

/// Its clock stands still while the loop or a write is at work, however slow the machine is.
#[tokio::test(start_paused = true)]
async fn churn_is_written_once_in_a_while_and_the_newest_at_the_end() {
    let dir = tempfile::tempdir().expect("directory");
    let file = file(dir.path());
    let (newest, in_force) = watch::channel(None);
    let token = CancellationToken::new();
    let writing = tokio::spawn(run(
        file.clone(),
        InUse::new("nftables"),
        in_force,
        token.clone(),
    ));
    let models = models();
    let inode = || fs::metadata(file.path()).map(|found| found.ino());
    newest.send_replace(Some(Arc::new(compiled(models[0].clone()))));
    let first = {
        let path = file.path();
        let look = move || fs::metadata(&path).map(|found| found.ino());
        let found = tokio::task::spawn_blocking(|| eventually(Duration::from_secs(20), look));
        found.await.expect("looked")
    };
    for model in &models[1..] {
        newest.send_replace(Some(Arc::new(compiled(model.clone()))));
        tokio::task::yield_now().await;
    }
    assert_eq!(inode().expect("file"), first);
    token.cancel();
    writing.await.expect("ended");
    let last = compiled(models.last().expect("a model").clone());
    assert_eq!(file.read(), Ok(Some(kept(&last))));
}
