//! What strace does: it writes the system calls of a process down, and kills it at one of them.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{APPLY, THREAD, Which};

const EVERYWHERE: &str = "WEFT_KILL_EVERYWHERE";

/// One system call: its name, and the how manieth of this name it is.
pub(super) type Point = (String, usize);

/// The calls that strace wrote down, of the process that it started.
pub(super) fn points(log: &str, which: &[&str]) -> Vec<Point> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut first = None;
    let mut points = Vec::new();
    for line in log.lines() {
        // With -f, a process id stands before each line.
        let (pid, line) = match line.split_once(' ') {
            Some((pid, rest)) if pid.bytes().all(|b| b.is_ascii_digit()) => {
                (pid, rest.trim_start())
            }
            _ => ("", line),
        };
        if *first.get_or_insert(pid) != pid {
            continue;
        }
        let Some((name, _)) = line.split_once('(') else {
            continue;
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        let count = counts.entry(name).or_default();
        *count += 1;
        points.push((name.to_owned(), *count));
    }
    if !everywhere() {
        points.retain(|(name, _)| which.contains(&name.as_str()));
    }
    points
}

#[allow(clippy::disallowed_methods, reason = "a test's own switch")]
fn everywhere() -> bool {
    std::env::var(EVERYWHERE).is_ok()
}

pub(super) fn inject((name, count): &Point) -> String {
    format!("inject={name}:signal=KILL:when={count}")
}

/// Runs a tool, under strace when it is its turn.
pub(super) const TURNS: &str = r#"#!/bin/sh
dir=$1
shift
runs=$(($(cat "$dir/runs") + 1))
echo $runs >"$dir/runs"
if [ "$runs" = "$(cat "$dir/turn")" ]; then
    exec strace -f -qq -o "$dir/trace" $(cat "$dir/how") "$@"
fi
exec "$@"
"#;

/// Which tool is put under strace, and how.
pub(super) struct Turns(pub(super) PathBuf);

impl Turns {
    pub(super) fn set(&self, turn: usize, how: &str) {
        for (file, text) in [("runs", "0"), ("turn", &turn.to_string()), ("how", how)] {
            fs::write(self.0.join(file), text).expect("written");
        }
    }

    pub(super) fn runs(&self) -> usize {
        let text = fs::read_to_string(self.0.join("runs")).expect("runs");
        text.trim().parse().expect("a number")
    }
}

/// This test program as the npc that is killed, process 1 of a PID namespace.
pub(super) struct Npc {
    unshare: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    /// The thread that applies.
    thread: String,
}

#[allow(clippy::disallowed_methods, reason = "tests start tools")]
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

impl Npc {
    pub(super) fn start(which: Which) -> Self {
        let number = Which::ALL.iter().position(|other| *other == which);
        let mut unshare = command("unshare")
            .args(["--fork", "--pid", "--kill-child=KILL"])
            .arg(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "killed::npc_that_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(APPLY, number.expect("one of all").to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("unshare");
        let mut lines = BufReader::new(unshare.stdout.take().expect("stdout")).lines();
        let ready = lines.by_ref().any(|line| line.expect("line") == "ready");
        assert!(ready, "npc is not ready");
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let child = fs::read_to_string(children).expect("the child");
        let tasks = Path::new("/proc").join(child.trim()).join("task");
        let mut threads = fs::read_dir(&tasks).expect("threads").map(|task| {
            let task = task.expect("thread").path();
            let name = fs::read_to_string(task.join("comm")).expect("name");
            (
                name.trim().to_owned(),
                task.file_name().expect("id").to_string_lossy().into_owned(),
            )
        });
        let thread = threads.find(|(name, _)| name == THREAD);
        Self {
            unshare,
            lines,
            thread: thread.expect("the thread of the test").1,
        }
    }

    /// Lets it apply the new rules under strace: does it survive?
    pub(super) fn apply(mut self, how: &[&str]) -> bool {
        let mut strace = command("strace")
            .args(["-p", &self.thread])
            .args(how)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace");
        let mut words = BufReader::new(strace.stderr.take().expect("stderr")).lines();
        let attached = words
            .by_ref()
            .any(|line| line.expect("line").contains("attached"));
        assert!(attached, "strace did not attach");
        let mut stdin = self.unshare.stdin.take().expect("stdin");
        stdin.write_all(b"go\n").expect("told to go");
        let done = self
            .lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line == "done");
        // Only when everything in the PID namespace is dead.
        self.unshare.wait().expect("ended");
        for _ in words {}
        strace.wait().expect("ended");
        done
    }
}
