//! Writes container images without a container engine: a docker-archive with one layer, the form
//! that `ctr images import`, `docker load` and `podman load` read.
//!
//! The archive depends on its arguments and the files' contents alone (order, times and owners are
//! fixed), so the same input gives the same image id. It must not know what is inside an image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::json;
use sha2::{Digest, Sha256};

#[cfg(test)]
mod tests;

/// What a runtime is told about an image, besides its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The program and its first arguments; kept when a pod sets `args`.
    pub entrypoint: Vec<String>,
    /// Arguments used when a pod sets none.
    pub command: Vec<String>,
    /// Environment of the program.
    pub environment: BTreeMap<String, String>,
    /// `user` or `uid:gid`; empty is root.
    pub user: String,
    /// Labels (`org.opencontainers.image.*`).
    pub labels: BTreeMap<String, String>,
}

/// What stands at a path of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A directory; the parents of every entry are made without being listed.
    Directory,
    /// A copy of this file; symbolic links are followed.
    File(PathBuf),
    /// These bytes.
    Bytes(Vec<u8>),
    /// A symbolic link to this target.
    Symlink(String),
}

/// One path of an image. Owner is root, modification time is the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Absolute path in the image.
    pub path: String,
    /// Permission bits; ignored for symbolic links.
    pub mode: u32,
    /// What stands there.
    pub content: Content,
}

impl Entry {
    /// A directory with mode 0755.
    #[must_use]
    pub fn directory(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            mode: 0o755,
            content: Content::Directory,
        }
    }

    /// A program: a copy of `source` with mode 0755.
    #[must_use]
    pub fn program(path: &str, source: &Path) -> Self {
        Self {
            path: path.to_owned(),
            mode: 0o755,
            content: Content::File(source.to_owned()),
        }
    }

    /// A small text file with mode 0644.
    #[must_use]
    pub fn text(path: &str, text: &str) -> Self {
        let content = Content::Bytes(text.as_bytes().to_vec());
        Self {
            path: path.to_owned(),
            mode: 0o644,
            content,
        }
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(path: &str, target: &str) -> Self {
        Self {
            path: path.to_owned(),
            mode: 0o777,
            content: Content::Symlink(target.to_owned()),
        }
    }
}

/// Writes an image with one layer to `out` and returns its id (`sha256:...`).
///
/// `names` are full names with a tag (`docker.io/weft/weft:0.1.0`). Later entries replace earlier
/// ones of the same path. `out` appears whole or not at all.
///
/// # Errors
/// A name without a tag, a path that is not absolute or climbs (`..`), a source that cannot be
/// read, an `out` that cannot be written.
pub fn write_docker_archive(
    out: &Path,
    names: &[String],
    config: &ImageConfig,
    entries: &[Entry],
) -> anyhow::Result<String> {
    for name in names {
        if !name
            .rsplit('/')
            .next()
            .is_some_and(|last| last.contains(':'))
        {
            bail!("image name {name:?} has no tag; write it as registry/repository:tag");
        }
    }
    let tree = complete(entries)?;
    let staging = out.with_extension("partial");
    let layer_path = out.with_extension("layer");
    let result = (|| {
        let (mut layer, layer_digest) = write_layer(&layer_path, &tree)?;
        let document = config_document(config, &layer_digest);
        let id = hex(&Sha256::digest(document.as_bytes()));
        let manifest = json!([{
            "Config": format!("{id}.json"),
            "RepoTags": names,
            "Layers": ["layer.tar"],
        }]);

        let file = File::create(&staging)
            .with_context(|| format!("cannot create {}", staging.display()))?;
        let mut archive = tar::Builder::new(BufWriter::new(file));
        append_bytes(&mut archive, &format!("{id}.json"), document.as_bytes())?;
        let length = layer.seek(SeekFrom::End(0))?;
        layer.seek(SeekFrom::Start(0))?;
        let mut header = plain_header(0o644);
        header.set_size(length);
        archive.append_data(&mut header, "layer.tar", BufReader::new(layer))?;
        append_bytes(
            &mut archive,
            "manifest.json",
            manifest.to_string().as_bytes(),
        )?;
        archive
            .into_inner()?
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        std::fs::rename(&staging, out)
            .with_context(|| format!("cannot rename the image to {}", out.display()))?;
        Ok(format!("sha256:{id}"))
    })();
    for leftover in [&staging, &layer_path] {
        if leftover.exists() {
            std::fs::remove_file(leftover)
                .with_context(|| format!("cannot remove {}", leftover.display()))?;
        }
    }
    result
}

/// Entries by relative path, with every missing parent directory added.
fn complete(entries: &[Entry]) -> anyhow::Result<BTreeMap<String, Entry>> {
    let mut tree = BTreeMap::new();
    for entry in entries {
        let Some(relative) = entry.path.strip_prefix('/') else {
            bail!("path {:?} of the image is not absolute", entry.path);
        };
        let relative = relative.trim_end_matches('/');
        if relative.is_empty()
            || relative
                .split('/')
                .any(|part| matches!(part, "" | "." | ".."))
        {
            bail!(
                "path {:?} of the image is not a plain path below /",
                entry.path
            );
        }
        let mut parent = relative;
        while let Some((above, _)) = parent.rsplit_once('/') {
            tree.entry(above.to_owned())
                .or_insert_with(|| Entry::directory(&format!("/{above}")));
            parent = above;
        }
        tree.insert(relative.to_owned(), entry.clone());
    }
    Ok(tree)
}

/// Writes the layer and returns it with the hex digest of its bytes.
fn write_layer(path: &Path, tree: &BTreeMap<String, Entry>) -> anyhow::Result<(File, String)> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    let mut layer = tar::Builder::new(Hashed {
        inner: BufWriter::new(file),
        hash: Sha256::new(),
    });
    for (relative, entry) in tree {
        let mut header = plain_header(entry.mode);
        match &entry.content {
            Content::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                layer.append_data(&mut header, format!("{relative}/"), io::empty())?;
            }
            Content::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                layer.append_link(&mut header, relative, target)?;
            }
            Content::Bytes(bytes) => {
                header.set_size(bytes.len() as u64);
                layer.append_data(&mut header, relative, bytes.as_slice())?;
            }
            Content::File(source) => {
                let context = || format!("cannot put {} into the image", source.display());
                let file = File::open(source).with_context(context)?;
                let metadata = file.metadata().with_context(context)?;
                if !metadata.is_file() {
                    bail!("{}: it is not a regular file", context());
                }
                header.set_size(metadata.len());
                layer.append_data(&mut header, relative, file.take(metadata.len()))?;
            }
        }
    }
    let hashed = layer.into_inner()?;
    let file = hashed
        .inner
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    Ok((file, hex(&hashed.hash.finalize())))
}

/// The image's configuration document, as the OCI image specification names its fields.
fn config_document(config: &ImageConfig, layer: &str) -> String {
    let environment: Vec<String> = config
        .environment
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    json!({
        "architecture": architecture(std::env::consts::ARCH),
        "os": "linux",
        "config": {
            "Entrypoint": config.entrypoint,
            "Cmd": config.command,
            "Env": environment,
            "User": config.user,
            "Labels": config.labels,
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        "history": [{ "created": "1970-01-01T00:00:00Z" }],
    })
    .to_string()
}

/// Rust's name of an architecture in Go's and OCI's words.
fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn append_bytes<W: Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    bytes: &[u8],
) -> io::Result<()> {
    let mut header = plain_header(0o644);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, name, bytes)
}

/// A header without owner or time, so that the archive is a function of its input.
fn plain_header(mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

/// Lower-case hexadecimal, as digests are written everywhere.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Passes bytes on and hashes them.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
