//! Resident memory of weft's processes on this machine (the lab's nodes share the PID namespace).

use crate::{
    report::{Budget, Row},
    sample::spread,
};

/// Largest resident set of each binary, in MB, against its budget.
pub(crate) fn measure() -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, budget) in [
        ("weft-operator", 60.0),
        ("weft-router", 30.0),
        ("weft-npc", 40.0),
    ] {
        let sizes = resident(name)?;
        anyhow::ensure!(
            !sizes.is_empty(),
            "no process {name} runs here: is weft installed?"
        );
        let ratios: Vec<f64> = sizes.iter().map(|mb| mb / budget).collect();
        let all = spread(&sizes);
        rows.push(Row::new(
            &format!("RSS MB of {name} in the lab / budget at 100 nodes"),
            "lab",
            (all.max, budget),
            spread(&ratios),
            None,
            Budget::AtMost(1.0),
        ));
    }
    Ok(rows)
}

/// `VmRSS` of every process whose executable has this name, in MB.
fn resident(name: &str) -> anyhow::Result<Vec<f64>> {
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(exe) = std::fs::read_link(entry.path().join("exe")) else {
            continue;
        };
        if exe.file_name().and_then(|f| f.to_str()) != Some(name) {
            continue;
        }
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else {
            continue;
        };
        let kb = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .and_then(|l| l.trim().trim_end_matches(" kB").trim().parse::<f64>().ok());
        sizes.extend(kb.map(|kb| kb / 1024.0));
    }
    Ok(sizes)
}
