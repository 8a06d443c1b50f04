//! Every `.rs` file is compiled: it is the root of a target or some `mod` leads to it. A file that
//! nothing leads to looks like tested code and is none.

use std::collections::BTreeSet;

use super::{Finding, Sources, metadata::Metadata};

/// Rust files of members that no target reaches.
pub(super) fn orphans(metadata: &Metadata, sources: &Sources) -> Vec<Finding> {
    let mut reached = BTreeSet::new();
    for member in metadata.members.values() {
        for root in &member.roots {
            follow(root, true, sources, &mut reached);
        }
    }
    sources
        .keys()
        .filter(|path| path.ends_with(".rs") && !reached.contains(path.as_str()))
        .map(|path| format!("{path}: no `mod` leads to this file; declare it or delete it"))
        .collect()
}

/// Adds `path` and every file that a `mod` in it leads to; `root`: it is the root of a target.
pub(super) fn follow(path: &str, root: bool, sources: &Sources, reached: &mut BTreeSet<String>) {
    let Some(text) = sources.get(path) else {
        return;
    };
    if !reached.insert(path.to_owned()) {
        return;
    }
    let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = file.trim_end_matches(".rs");
    // Children of a crate root and of `mod.rs` lie beside it, of others in a directory of its name.
    let children = if root || stem == "mod" {
        directory.to_owned()
    } else {
        format!("{directory}/{stem}")
    };
    for declaration in declarations(text) {
        match declaration {
            Declaration::Named(name) => {
                for candidate in [
                    format!("{children}/{name}.rs"),
                    format!("{children}/{name}/mod.rs"),
                ] {
                    follow(&candidate, false, sources, reached);
                }
            }
            Declaration::Path(relative) => {
                follow(&join(directory, &relative), false, sources, reached);
            }
        }
    }
}

/// What a `mod` line says.
#[derive(Debug, PartialEq, Eq)]
enum Declaration {
    /// `mod name;`, below the directory of the file. Nested inline modules give `outer/name`.
    Named(String),
    /// `#[path = "..."] mod name;`.
    Path(String),
}

/// Scans line by line: rustfmt puts each declaration on a line of its own. Inline modules are
/// followed by their indentation.
fn declarations(text: &str) -> Vec<Declaration> {
    let mut found = Vec::new();
    let mut path = None;
    let mut inline: Vec<(usize, String)> = Vec::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        while line == "}" && inline.last().is_some_and(|(at, _)| *at == indent) {
            inline.pop();
        }
        if let Some(value) = line
            .strip_prefix("#[path = \"")
            .and_then(|rest| rest.strip_suffix("\"]"))
        {
            path = Some(value.to_owned());
            continue;
        }
        let Some(rest) = after_visibility(line).strip_prefix("mod ") else {
            // Other attributes and comments may stand between `path` and `mod`.
            if !line.starts_with('#') && !line.starts_with("//") {
                path = None;
            }
            continue;
        };
        if let Some(name) = rest.strip_suffix(';') {
            found.push(match path.take() {
                Some(path) => Declaration::Path(path),
                None => {
                    let mut parts: Vec<&str> = inline.iter().map(|(_, n)| n.as_str()).collect();
                    parts.push(name.trim_start_matches("r#"));
                    Declaration::Named(parts.join("/"))
                }
            });
        } else if let Some(name) = rest.strip_suffix(" {") {
            inline.push((indent, name.to_owned()));
        }
    }
    found
}

fn after_visibility(line: &str) -> &str {
    let Some(rest) = line.strip_prefix("pub") else {
        return line;
    };
    match rest.strip_prefix('(') {
        Some(inner) => inner.split_once(") ").map_or(line, |(_, rest)| rest),
        None => rest.trim_start(),
    }
}

/// `directory` and a relative path with `..`.
fn join(directory: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = directory.split('/').collect();
    for part in relative.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::metadata::Member;
    use super::*;

    #[test]
    fn a_seeded_orphan_is_found_and_nothing_else() {
        let member = Member {
            roots: ["a/src/lib.rs".into(), "a/tests/netns.rs".into()].into(),
            ..Member::default()
        };
        let metadata = Metadata {
            members: [("weft-a".into(), member)].into(),
            tree: [].into(),
        };
        let text = [
            (
                "a/src/lib.rs",
                "mod one;\npub(crate) mod two;\n#[cfg(test)]\nmod tests;\n",
            ),
            ("a/src/one.rs", "mod deep;\n"),
            ("a/src/one/deep.rs", ""),
            ("a/src/one/orphan.rs", ""),
            ("a/src/two/mod.rs", "pub mod beside;\n"),
            ("a/src/two/beside.rs", ""),
            ("a/src/tests.rs", ""),
            (
                "a/tests/netns.rs",
                "#[path = \"../shared/set.rs\"]\nmod set;\nmod kernel {\n    mod fdb;\n}\n",
            ),
            ("a/tests/kernel/fdb.rs", ""),
            ("a/shared/set.rs", ""),
        ];
        let sources: Sources = text
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect();
        assert_eq!(
            orphans(&metadata, &sources),
            ["a/src/one/orphan.rs: no `mod` leads to this file; declare it or delete it"]
        );
    }

    #[test]
    fn words_in_comments_and_strings_declare_nothing() {
        assert_eq!(
            declarations("// mod a;\nlet x = \"mod b;\";\nmodern();\n"),
            []
        );
    }
}
