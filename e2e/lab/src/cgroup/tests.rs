use super::*;

#[test]
fn a_lab_has_a_tree_of_its_own() {
    assert_eq!(node_root("0a1b2c3d", "n1"), "/weft-lab-0a1b2c3d/n1");
}

#[test]
fn only_controllers_that_exist_and_are_off_are_switched_on() {
    assert_eq!(
        missing_controllers("cpuset cpu io memory pids rdma", "cpu memory\n"),
        "+cpuset +io +pids"
    );
    assert_eq!(missing_controllers("cpu memory", "cpu memory"), "");
}

#[test]
fn a_v1_cpuset_is_filled_from_its_parent() {
    let hierarchy = tempfile::tempdir().unwrap();
    fs::write(hierarchy.path().join("cpuset.cpus"), "0-1\n").unwrap();
    let child = hierarchy.path().join("weft-lab-x");
    fs::create_dir(&child).unwrap();
    fs::write(child.join("cpuset.cpus"), "\n").unwrap();
    create_in(hierarchy.path(), &["weft-lab-x"]).unwrap();
    assert_eq!(
        fs::read_to_string(child.join("cpuset.cpus")).unwrap(),
        "0-1\n"
    );
}
