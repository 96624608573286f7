//! The floors of the house: imports only go down.
//!
//! ARCHITECTURE.md orders the modules; a module imports only what stands below it. This test reads
//! the paths of every file that begin with `crate` or `super`, and says where that is not so. A name
//! that `lib.rs` exports again counts for the module that it comes from.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up: folders on one floor may import each other.
const FLOORS: &[&[&str]] = &[
    &["ground", "waterspout_macros"],
    &["concurrent", "locks"],
    &["queues"],
    &["channels"],
    &["ioloop"],
    &["coroutine"],
    &["sockets"],
    &["iostream", "signal"],
    &["service", "process"],
    &["testing"],
    // What users see, and what the attributes' expansions call.
    &["net", "__private"],
];

fn floor(module: &str) -> Option<usize> {
    let matches = |known: &str| module == known || module.starts_with(&format!("{known}::"));
    let found = FLOORS.iter().enumerate().flat_map(|(floor, modules)| {
        modules.iter().filter(|known| matches(known)).map(move |known| (known.len(), floor))
    });
    found.max().map(|(_, floor)| floor)
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// `src/ioloop/core.rs` is `ioloop::core`.
fn module_of(path: &Path, src: &Path) -> String {
    let path = path.strip_prefix(src).expect("found in src").with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_str().expect("plain names")).collect();
    let module = parts.join("::");
    match module.strip_suffix("::mod").unwrap_or(&module) {
        "private" => "__private".into(),
        module => module.into(),
    }
}

/// The code of a file without comments and its own tests.
fn code_of(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    code.collect::<Vec<_>>().join("\n")
}

/// The path, or the tree of paths in braces, that `text` begins with, each in full; gives what follows.
fn paths<'a>(text: &'a str, before: &str, found: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(rest) = rest.strip_prefix('}') {
                return rest;
            }
            rest = paths(rest, before, found);
            // What it is called here, and the comma.
            let end = rest.find([',', '}']).unwrap_or(rest.len());
            rest = rest[end..].strip_prefix(',').unwrap_or(&rest[end..]);
            if rest.is_empty() {
                return rest;
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = format!("{before}{name}");
    match rest.strip_prefix("::") {
        // A turbofish, or everything.
        Some(rest) if rest.starts_with(['<', '*']) => {
            found.push(path);
            rest
        }
        Some(rest) => paths(rest, &format!("{path}::"), found),
        None => {
            found.push(path);
            rest
        }
    }
}

/// What `lib.rs` exports again, each with the path that it has there.
fn exports(lib: &str) -> HashMap<String, String> {
    let mut found = Vec::new();
    let code = code_of(lib);
    for exported in code.split("pub use ").skip(1) {
        paths(exported, "", &mut found);
    }
    let named = found.into_iter().filter_map(|path| {
        let (_, name) = path.rsplit_once("::")?;
        Some((name.to_owned(), path.clone()))
    });
    named.collect()
}

/// The modules that `module` names by `crate::` and `super::`.
fn imports(text: &str, module: &str, exports: &HashMap<String, String>) -> Vec<String> {
    let code = code_of(text);
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if !before.is_alphanumeric() && !"_:".contains(before) {
                paths(&code[at..], "", &mut found);
            }
        }
    }
    let resolved = found.into_iter().map(|path| {
        let mut above: Vec<&str> = module.split("::").collect();
        let mut names: Vec<&str> = path.split("::").collect();
        while names.first() == Some(&"super") {
            names.remove(0);
            above.pop();
        }
        if names.first() == Some(&"crate") {
            names.remove(0);
            above.clear();
        }
        above.extend(names);
        match above[..] {
            [name] => exports.get(name).cloned().unwrap_or(name.into()),
            _ => above.join("::"),
        }
    });
    resolved.collect()
}

#[test]
fn imports_are_found_by_whatever_path() {
    let exports =
        exports("pub use ioloop::{\n    Builder, IoLoop as Loop, // first\n    IoLoop,\n};");
    let of = |text: &str| imports(text, "locks::event", &exports);
    assert_eq!(of("use crate::IoLoop;"), ["ioloop::IoLoop"]);
    assert_eq!(of("use crate::{foreign, IoLoop};"), ["foreign", "ioloop::IoLoop"]);
    assert_eq!(of("use super::super::IoLoop;"), ["ioloop::IoLoop"]);
    assert_eq!(of("use super::{lock::Lock, Event};"), ["locks::lock::Lock", "locks::Event"]);
    assert_eq!(of("use crate::{\n    a::{b, c as d},\n    e::*,\n};"), ["a::b", "a::c", "e"]);
    assert_eq!(of("let x = f::<crate::Builder>(super::g::<u8>());").len(), 2);
    assert_eq!(of("let x = crate::ioloop::run(\"}\");"), ["ioloop::run"]);
    assert_eq!(
        of("// crate::net\nuse std::fmt;\n#[cfg(test)]\nmod tests { use crate::net; }").len(),
        0
    );
}

#[test]
fn imports_only_go_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let exports = exports(&fs::read_to_string(src.join("lib.rs")).expect("src is readable"));
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in files.iter().filter(|file| !file.ends_with("src/lib.rs")) {
        let module = module_of(file, &src);
        let Some(own) = floor(&module) else {
            wrong.push(format!("{module} stands on no floor"));
            continue;
        };
        let text = fs::read_to_string(file).expect("src is readable");
        for import in imports(&text, &module, &exports) {
            let Some(other) = floor(&import) else {
                wrong.push(format!("{module} imports {import}, which stands on no floor"));
                continue;
            };
            seen += 1;
            if other > own {
                wrong.push(format!("{module} imports {import}, which stands above it"));
            }
        }
    }
    assert!(seen > 20, "only {seen} imports found: does this test still read them?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
