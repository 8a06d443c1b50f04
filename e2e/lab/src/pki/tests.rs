use super::*;

#[test]
fn users_and_groups_are_those_of_the_default_roles() {
    let subjects: Vec<(String, String, Option<String>)> = control_plane()
        .into_iter()
        .map(|subject| (subject.file, subject.user, subject.group))
        .collect();
    let masters = Some("system:masters".to_owned());
    assert_eq!(
        subjects,
        [
            ("apiserver".into(), "kube-apiserver".into(), None),
            ("admin".into(), "kubernetes-admin".into(), masters.clone()),
            (
                "kubelet-client".into(),
                "kube-apiserver-kubelet-client".into(),
                masters
            ),
            (
                "controller-manager".into(),
                "system:kube-controller-manager".into(),
                None
            ),
            ("scheduler".into(), "system:kube-scheduler".into(), None),
            ("proxy".into(), "system:kube-proxy".into(), None),
        ]
    );
    assert_eq!(
        node("n2", &["172.30.0.12".into(), "fd30::12".into()]),
        Subject {
            file: "n2".into(),
            user: "system:node:n2".into(),
            group: Some("system:nodes".into()),
            names: vec!["n2".into(), "172.30.0.12".into(), "fd30::12".into()],
        }
    );
}

#[test]
fn an_opened_authority_issues_what_the_created_one_would() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path(), directory.path());
    Authority::create(&layout).unwrap();
    let subject = node("n1", &["172.30.0.11".into()]);
    Authority::open(&layout)
        .unwrap()
        .issue(&layout, &subject)
        .unwrap();
    let certificate = fs::read_to_string(layout.pki().join("n1.crt")).unwrap();
    assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"));
    let mode = fs::metadata(layout.pki().join("n1.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let kubeconfig = fs::read_to_string(layout.kubeconfig("n1")).unwrap();
    assert!(kubeconfig.contains("server: https://172.30.0.1:6443\n"));
    assert!(kubeconfig.contains(&format!("client-key: {}/n1.key\n", layout.pki().display())));
}
