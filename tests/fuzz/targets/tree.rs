// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our own records, which somebody else may have written.

use std::path::Path;

use dkms_hooks::gate::verdict::Verdict;
use dkms_hooks::module::ModuleId;
use dkms_hooks::sys::root::Root;
use dkms_hooks::tree::{Tree, transaction};

use super::{Target, kernel, release, shown};

pub const TARGETS: &[Target] = &[Target {
    name: "records",
    read: records,
    words: &[
        "{",
        "}",
        "[",
        "]",
        "\"what\":",
        "\"changes\":",
        "\"target\":",
        "\"staged\":",
        "\"saved\":",
        "null",
        "true",
        "prepared\n",
        "kept\n",
        "undone\n",
        "\"version\":",
        "\"files\":",
        "@/",
        "\"standing\":",
        "\"held\"",
    ],
    inputs: 800,
}];

/// Our own records: what is deleted by their word lies where it may.
fn records(input: &[u8], room: &Path) -> String {
    let here = room.to_str().unwrap();
    let text = String::from_utf8_lossy(input).replace("@", here);
    let root = Root::at(room);
    let tree = Tree {
        dkms: root.path("/var/lib/dkms"),
        source: root.path("/usr/src"),
        install: root.path("/lib/modules"),
        arch: kernel().arch,
        root,
    };
    let hooks = tree.hooks_dir();
    for name in [
        "runs/1.json",
        "verdicts/6.1.json",
        "attempts/foo/1.0/6.1/x86_64/attempt.json",
        "retained/foo/6.1/x86_64.json",
    ] {
        let path = hooks.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, &text).unwrap();
    }
    let id = ModuleId::new("foo", "1.0").unwrap();
    let run = tree.run(1).map(|run| run.only_removes()).map_err(|error| format!("{error:#}"));
    let verdict = Verdict::load(&tree, &release()).map(|verdict| verdict.map(|verdict| verdict.is_stale()));
    let attempt = tree.attempt(&id, &kernel()).map(|attempt| attempt.code);
    let retained = tree.all_retained();
    for path in retained.iter().flat_map(|retained| &retained.files) {
        assert!(path.starts_with(tree.kernel_dir(&release())), "{path:?}");
    }
    let recovered = journal(&tree, &text, room);
    format!(
        "{} {:?} {attempt:?} {} {recovered}",
        run.map_or_else(
            |error| error.rsplit(": ").next().unwrap_or_default().to_owned(),
            |run| run.to_string()
        ),
        verdict.map_err(|error| error.root_cause().to_string()),
        retained.len()
    )
}

/// A journal is carried out, so one that names other places than ours stays unread here.
fn journal(tree: &Tree, text: &str, room: &Path) -> String {
    fn strings<'a>(value: &'a serde_json::Value, found: &mut Vec<&'a str>) {
        match value {
            serde_json::Value::String(text) => found.push(text),
            serde_json::Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
            serde_json::Value::Object(values) => values.values().for_each(|value| strings(value, found)),
            _ => {}
        }
    }
    let first = text.split_inclusive('\n').next().unwrap_or_default();
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(first) {
        let mut found = Vec::new();
        strings(value.get("changes").unwrap_or(&serde_json::Value::Null), &mut found);
        let below = room.join("var");
        let is_ours = |text: &&str| Path::new(text).starts_with(&below) && !text.contains("..");
        if !found.iter().all(is_ours) {
            return "elsewhere".to_owned();
        }
    }
    let directory = tree.hooks_dir().join("journal");
    fs_err::create_dir_all(&directory).unwrap();
    fs_err::write(directory.join("1.journal"), text).unwrap();
    let came_to = match transaction::recover(tree) {
        Err(error) => error.root_cause().to_string(),
        Ok(recovered) => {
            let stuck: Vec<String> =
                recovered.stuck.iter().map(|error| error.root_cause().to_string()).collect();
            format!("{} {}", recovered.carried_out.len(), shown(&stuck))
        }
    };
    let _ = fs_err::remove_dir_all(room.join("var"));
    came_to
}
