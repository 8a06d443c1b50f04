//! An OCI image layout in one tar file, which containerd imports and docker loads.
//!
//! Types of the specification come from the `oci-spec` crate; the tar from the `tar` crate. One
//! uncompressed layer: an import on the same machine is faster without compression, and a registry
//! client compresses on push.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result};
use oci_spec::image::{
    ConfigBuilder, Descriptor, DescriptorBuilder, ImageConfigurationBuilder, ImageIndexBuilder,
    ImageManifestBuilder, MediaType, PlatformBuilder, RootFsBuilder, Sha256Digest,
};
use sha2::{Digest, Sha256};

use super::Arch;

/// Time of every entry (2026-01-01): the same content gives the same digest.
const TIME: u64 = 1_767_225_600;
const CREATED: &str = "2026-01-01T00:00:00Z";

/// Writes `root` as the image `reference` to `archive`.
pub(super) fn write(archive: &Path, root: &Path, reference: &str, arch: Arch) -> Result<()> {
    let layer_path = archive.with_extension("layer");
    let layer = layer(root, &layer_path)?;
    let result = write_archive(archive, &layer_path, &layer, reference, arch);
    let _ = fs::remove_file(&layer_path);
    result
}

fn write_archive(
    archive: &Path,
    layer_path: &Path,
    layer: &Blob,
    reference: &str,
    arch: Arch,
) -> Result<()> {
    let labels = [
        ("org.opencontainers.image.title", "weft"),
        (
            "org.opencontainers.image.description",
            "A Kubernetes pod network with NetworkPolicy",
        ),
        ("org.opencontainers.image.url", "https://weft.dev"),
        ("org.opencontainers.image.licenses", "Apache-2.0"),
        (
            "org.opencontainers.image.version",
            env!("CARGO_PKG_VERSION"),
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let config = ImageConfigurationBuilder::default()
        .created(CREATED)
        .architecture(arch.name())
        .os("linux")
        .config(
            ConfigBuilder::default()
                .env(vec![
                    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
                ])
                .working_dir("/")
                .labels(std::collections::HashMap::from(labels))
                .build()?,
        )
        .rootfs(
            RootFsBuilder::default()
                .typ("layers")
                .diff_ids(vec![format!("sha256:{}", layer.digest)])
                .build()?,
        )
        .history(Vec::new())
        .build()?;
    let config = Blob::of(canonical(&config)?);
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(config.descriptor(MediaType::ImageConfig)?)
        .layers(vec![layer.descriptor(MediaType::ImageLayer)?])
        .build()?;
    let manifest = Blob::of(canonical(&manifest)?);
    let mut descriptor = manifest.descriptor(MediaType::ImageManifest)?;
    descriptor.set_platform(Some(
        PlatformBuilder::default()
            .os("linux")
            .architecture(arch.name())
            .build()?,
    ));
    let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    descriptor.set_annotations(Some(
        [
            ("io.containerd.image.name", reference),
            ("org.opencontainers.image.ref.name", tag),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
    ));
    let index = ImageIndexBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageIndex)
        .manifests(vec![descriptor])
        .build()?;
    // What `docker load` reads; containerd takes index.json.
    let docker = serde_json::json!([{
        "Config": config.path(),
        "RepoTags": [reference],
        "Layers": [layer.path()],
    }]);

    let partial = archive.with_extension("partial");
    let mut tar = tar::Builder::new(BufWriter::new(
        File::create(&partial).with_context(|| format!("write {}", partial.display()))?,
    ));
    add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut tar, "index.json", &canonical(&index)?)?;
    add(&mut tar, "manifest.json", &serde_json::to_vec(&docker)?)?;
    for blob in [&config, &manifest] {
        add(&mut tar, &blob.path(), &blob.content)?;
    }
    let mut header = header(tar::EntryType::Regular, 0o644);
    header.set_size(layer.size);
    tar.append_data(&mut header, layer.path(), File::open(layer_path)?)?;
    tar.into_inner()?
        .into_inner()
        .map_err(io::Error::from)?
        .sync_all()?;
    fs::rename(&partial, archive)?;
    Ok(())
}

/// JSON with sorted keys: `oci-spec` holds labels in a hash map.
fn canonical(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&serde_json::to_value(value)?)?)
}

fn add(tar: &mut tar::Builder<impl Write>, name: &str, content: &[u8]) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, 0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content)?;
    Ok(())
}

/// Content-addressed piece of the image. The layer's content stays in its file.
struct Blob {
    digest: String,
    size: u64,
    content: Vec<u8>,
}

impl Blob {
    fn of(content: Vec<u8>) -> Self {
        Self {
            digest: hex(&Sha256::digest(&content)),
            size: content.len() as u64,
            content,
        }
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn descriptor(&self, media_type: MediaType) -> Result<Descriptor> {
        Ok(DescriptorBuilder::default()
            .media_type(media_type)
            .digest(Sha256Digest::from_str(&self.digest)?)
            .size(self.size)
            .build()?)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writer that hashes and counts what goes through.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The tree as a layer: sorted, owned by root, times fixed.
fn layer(root: &Path, to: &Path) -> Result<Blob> {
    let file = File::create(to).with_context(|| format!("write {}", to.display()))?;
    let mut tar = tar::Builder::new(Hashed {
        inner: BufWriter::new(file),
        hash: Sha256::new(),
        size: 0,
    });
    for path in tree(root)? {
        let name = path.strip_prefix(root)?;
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_symlink() {
            let mut header = header(tar::EntryType::Symlink, 0o777);
            header.set_size(0);
            tar.append_link(&mut header, name, fs::read_link(&path)?)?;
        } else if meta.is_dir() {
            // Only /tmp differs from the usual mode; the umask of this machine must not show.
            let mode = if meta.permissions().mode() & 0o1000 != 0 {
                0o1777
            } else {
                0o755
            };
            let mut header = header(tar::EntryType::Directory, mode);
            header.set_size(0);
            tar.append_data(&mut header, name, io::empty())?;
        } else {
            let mode = if meta.permissions().mode() & 0o100 != 0 {
                0o755
            } else {
                0o644
            };
            let mut header = header(tar::EntryType::Regular, mode);
            header.set_size(meta.len());
            tar.append_data(&mut header, name, File::open(&path)?.take(meta.len()))?;
        }
    }
    let mut hashed = tar.into_inner()?;
    hashed.flush()?;
    Ok(Blob {
        digest: hex(&hashed.hash.finalize()),
        size: hashed.size,
        content: Vec::new(),
    })
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(TIME);
    header
}

/// Everything below `root`, parents before children, sorted by name.
fn tree(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn sample(root: &Path) {
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::write(root.join("usr/bin/b"), "two").unwrap();
        fs::write(root.join("usr/bin/a"), "one").unwrap();
        symlink("usr/bin", root.join("bin")).unwrap();
    }

    #[test]
    fn same_content_gives_the_same_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let bytes = |name: &str| {
            let root = directory.path().join(name);
            fs::create_dir_all(&root).unwrap();
            sample(&root);
            let archive = directory.path().join(format!("{name}.tar"));
            write(&archive, &root, "docker.io/x/y:1", Arch::Amd64).unwrap();
            fs::read(archive).unwrap()
        };
        assert!(bytes("first") == bytes("second"));
    }

    #[test]
    fn layout_has_an_index_that_leads_to_the_layer() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir_all(&root).unwrap();
        sample(&root);
        let archive = directory.path().join("image.tar");
        write(&archive, &root, "docker.io/x/y:1", Arch::Arm64).unwrap();

        let mut files = std::collections::BTreeMap::new();
        let mut tar = tar::Archive::new(File::open(&archive).unwrap());
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(name, content);
        }
        let json =
            |name: &str| -> serde_json::Value { serde_json::from_slice(&files[name]).unwrap() };
        let blob = |descriptor: &serde_json::Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            format!("blobs/{}", digest.replace(':', "/"))
        };
        let index = json("index.json");
        let entry = &index["manifests"][0];
        assert_eq!(
            (
                &entry["annotations"]["io.containerd.image.name"],
                &entry["platform"]["architecture"]
            ),
            (&"docker.io/x/y:1".into(), &"arm64".into())
        );
        let manifest = json(&blob(entry));
        let config = json(&blob(&manifest["config"]));
        let layer = &manifest["layers"][0];
        assert_eq!(config["rootfs"]["diff_ids"][0], layer["digest"]);
        let content = &files[&blob(layer)];
        assert_eq!(layer["size"].as_u64(), Some(content.len() as u64));
        let mut names = Vec::new();
        for entry in tar::Archive::new(content.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            names.push((
                entry.path().unwrap().to_string_lossy().into_owned(),
                entry.header().mtime().unwrap(),
                entry.header().uid().unwrap(),
            ));
        }
        assert_eq!(
            names,
            ["bin", "usr", "usr/bin", "usr/bin/a", "usr/bin/b"].map(|name| (
                name.trim_end_matches('/').to_owned(),
                TIME,
                0
            ))
        );
    }
}
