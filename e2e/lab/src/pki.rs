//! Certificates, keys and kubeconfigs of a lab. One authority, thrown away with the lab.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use crate::layout::Layout;
use crate::network::{API_PORT, API_SERVER, API_SERVICE};

#[cfg(test)]
mod tests;

/// Who a certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    /// Name of the files: `<name>.crt`, `<name>.key`, `<name>.kubeconfig`.
    pub(crate) file: String,
    /// The user, as Kubernetes reads it from the common name.
    pub(crate) user: String,
    /// The group, as Kubernetes reads it from the organisation.
    pub(crate) group: Option<String>,
    /// Names and addresses under which it serves; empty for a client.
    pub(crate) names: Vec<String>,
}

impl Subject {
    fn client(file: &str, user: &str, group: Option<&str>) -> Self {
        Self {
            file: file.to_owned(),
            user: user.to_owned(),
            group: group.map(str::to_owned),
            names: Vec::new(),
        }
    }
}

/// The control plane's subjects. Users and groups are those of Kubernetes' default RBAC roles.
pub(crate) fn control_plane() -> Vec<Subject> {
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
    ];
    let mut names: Vec<String> = names.map(str::to_owned).into();
    names.extend([API_SERVER.to_string(), API_SERVICE.to_string()]);
    let server = Subject {
        names,
        ..Subject::client("apiserver", "kube-apiserver", None)
    };
    vec![
        server,
        Subject::client("admin", "kubernetes-admin", Some("system:masters")),
        Subject::client(
            "kubelet-client",
            "kube-apiserver-kubelet-client",
            Some("system:masters"),
        ),
        Subject::client("controller-manager", "system:kube-controller-manager", None),
        Subject::client("scheduler", "system:kube-scheduler", None),
        Subject::client("proxy", "system:kube-proxy", None),
    ]
}

/// A node's subject: client of the API server and server of the kubelet's port.
pub(crate) fn node(name: &str, addresses: &[String]) -> Subject {
    let mut names = vec![name.to_owned()];
    names.extend_from_slice(addresses);
    Subject {
        names,
        ..Subject::client(name, &format!("system:node:{name}"), Some("system:nodes"))
    }
}

/// The lab's certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority, and the key that signs service account tokens.
    pub(crate) fn create(layout: &Layout) -> anyhow::Result<Self> {
        fs::create_dir_all(layout.pki())
            .with_context(|| format!("cannot create {}", layout.pki().display()))?;
        let key = KeyPair::generate()?;
        let parameters = authority_parameters();
        let certificate = parameters.self_signed(&key)?;
        write(&layout.pki().join("ca.crt"), &certificate.pem())?;
        write(&layout.pki().join("ca.key"), &key.serialize_pem())?;

        let accounts = KeyPair::generate()?;
        write(
            &layout.pki().join("service-accounts.key"),
            &accounts.serialize_pem(),
        )?;
        write(
            &layout.pki().join("service-accounts.pub"),
            &accounts.public_key_pem(),
        )?;
        Ok(Self {
            issuer: Issuer::new(parameters, key),
        })
    }

    /// Opens the authority of a running lab.
    pub(crate) fn open(layout: &Layout) -> anyhow::Result<Self> {
        let path = layout.pki().join("ca.key");
        let key =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            issuer: Issuer::new(authority_parameters(), KeyPair::from_pem(&key)?),
        })
    }

    /// Writes a subject's certificate, key and kubeconfig.
    pub(crate) fn issue(&self, layout: &Layout, subject: &Subject) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = name(&subject.user, subject.group.as_deref());
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !subject.names.is_empty() {
            parameters
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        for name in &subject.names {
            parameters
                .subject_alt_names
                .push(match name.parse::<IpAddr>() {
                    Ok(address) => SanType::IpAddress(address),
                    Err(_) => SanType::DnsName(name.as_str().try_into()?),
                });
        }
        parameters.use_authority_key_identifier_extension = true;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        let file = |extension: &str| layout.pki().join(format!("{}.{extension}", subject.file));
        write(&file("crt"), &certificate.pem())?;
        write(&file("key"), &key.serialize_pem())?;
        write(
            &layout.kubeconfig(&subject.file),
            &kubeconfig(layout, &subject.file),
        )
    }
}

/// The authority's name and powers; with its key they are all that issuing needs.
fn authority_parameters() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = name("weft-lab-ca", None);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    parameters
}

fn name(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, user);
    name
}

/// A kubeconfig that points at the lab's API server.
fn kubeconfig(layout: &Layout, file: &str) -> String {
    let pki = layout.pki();
    let pki = pki.display();
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: weft-lab
  cluster:
    server: https://{API_SERVER}:{API_PORT}
    certificate-authority: {pki}/ca.crt
users:
- name: {file}
  user:
    client-certificate: {pki}/{file}.crt
    client-key: {pki}/{file}.key
contexts:
- name: weft-lab
  context:
    cluster: weft-lab
    user: {file}
current-context: weft-lab
"
    )
}

/// Writes a file that only root reads.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    fs::write(path, text).with_context(context)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).with_context(context)
}
