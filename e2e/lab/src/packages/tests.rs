use super::*;

#[test]
fn exactly_the_missing_packages_are_named() {
    assert_eq!(missing(|program| Some(program.into())), Vec::<&str>::new());
    let installed = |program: &str| (!matches!(program, "runc" | "nft")).then(|| program.into());
    assert_eq!(missing(installed), ["nftables", "runc"]);
}

#[test]
fn a_dynamic_program_is_told_from_a_static_one() {
    assert!(needs_interpreter(
        b"\x7fELF....../lib64/ld-linux-x86-64.so.2\0"
    ));
    assert!(!needs_interpreter(b"\x7fELF......"));
}
