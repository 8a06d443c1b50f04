//! The plugin as a runtime starts it, without a network: answers, exit status, nothing else on
//! standard output.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

#[allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the test starts the plugin"
)]
fn run(args: &[&str], env: &[(&str, &str)], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weft-cni"))
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The plugin may have answered without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn version_answers_in_the_version_asked_for() {
    for (input, version) in [
        (r#"{"cniVersion":"1.1.0"}"#, "1.1.0"),
        (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
        ("", "1.1.0"),
    ] {
        let output = run(&[], &[("CNI_COMMAND", "VERSION")], input);
        assert!(output.status.success());
        assert_eq!(
            serde_json::from_slice::<Value>(&output.stdout).unwrap(),
            json!({"cniVersion": version, "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]})
        );
        assert_eq!(output.stderr, b"");
    }
}

#[test]
fn errors_are_json_on_standard_output_and_text_on_standard_error() {
    let conf = r#"{"cniVersion":"1.0.0","name":"weft","type":"weft-cni"}"#;
    for (env, input, code) in [
        (vec![("CNI_COMMAND", "ADD")], conf, 4),
        (vec![("CNI_IFNAME", "eth0")], conf, 4),
        (vec![("CNI_COMMAND", "DELETE")], conf, 4),
        (
            vec![
                ("CNI_COMMAND", "DEL"),
                ("CNI_CONTAINERID", "a"),
                ("CNI_IFNAME", "eth0"),
            ],
            "{",
            6,
        ),
        (
            vec![("CNI_COMMAND", "STATUS")],
            r#"{"cniVersion":"9.9.9","name":"weft"}"#,
            1,
        ),
        (
            vec![("CNI_COMMAND", "STATUS")],
            r#"{"cniVersion":"1.1.0"}"#,
            7,
        ),
        (
            vec![("CNI_COMMAND", "STATUS")],
            r#"{"cniVersion":"1.1.0","name":"weft","routerSocket":"/no/such.sock","uninstalledMarker":"/no/such"}"#,
            50,
        ),
    ] {
        let output = run(&[], &env, input);
        assert_eq!(output.status.code(), Some(1), "{env:?}");
        let error: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(error["code"], code, "{env:?}: {error}");
        assert!(error["msg"].as_str().is_some_and(|m| !m.is_empty()));
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.starts_with("weft-cni: "), "{log}");
    }
}

#[test]
fn by_hand_it_explains_itself() {
    let help = run(&["--help"], &[], "");
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("CNI_COMMAND"));
    let bare = run(&[], &[], "");
    assert!(bare.status.success());
    assert_eq!(bare.stdout, b"");
    assert!(
        String::from_utf8_lossy(&bare.stderr).contains("protocol versions 0.4.0, 1.0.0, 1.1.0")
    );
}
