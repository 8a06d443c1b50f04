//! A listening unix socket that only root may use.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use tokio::net::{UnixListener, UnixStream};

/// Listens at `path` (mode 0600). The socket of a process that died is replaced; one that somebody
/// still serves is an error.
pub(crate) async fn bind(path: &Path) -> io::Result<UnixListener> {
    let context = |what: &str, error: io::Error| {
        io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|e| context("cannot create the directory of", e))?;
    }
    match UnixStream::connect(path).await {
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("another process serves {}", path.display()),
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|e| context("cannot remove the stale socket", e))?;
        }
        Err(error) => return Err(context("cannot use the socket", error)),
    }
    let listener = UnixListener::bind(path).map_err(|e| context("cannot listen on", e))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(|e| context("cannot restrict", e))?;
    Ok(listener)
}
