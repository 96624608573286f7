//! The floors of the house: imports only go down.
//!
//! ARCHITECTURE.md orders the modules; a module imports only what stands below it. This test reads
//! the `use` lines and the `crate::` paths of every file and says where that is not so.

use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up: modules on one floor may import each other. `ioloop/slots` and
/// `ioloop/timers` are plain data, and lie below the loop that they are part of.
const FLOORS: &[&[&str]] = &[
    &[
        "ioloop::slots",
        "ioloop::timers",
        "error",
        "foreign",
        "park",
        "report",
        "resumption",
        "concurrent::executor",
    ],
    &["wait_queue"],
    &["concurrent", "locks"],
    &["queues"],
    &["ioloop"],
    &["coroutine"],
    &["net"],
    &["iostream"],
    &["net::tcp_client", "net::tcp_server", "signal"],
    &["process"],
    &["testing"],
    &["__private"],
];

/// What a lower floor may name of a higher one: types that it only passes on, in errors and docs.
const EXCEPTIONS: &[(&str, &str)] = &[
    // `RunError::TimedOut` lists the coroutines that are stuck.
    ("error", "ioloop::introspect"),
    // The table of waiters is the loop's kind of table, by the name under which the loop has it.
    ("wait_queue", "ioloop"),
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

/// The modules that a file names by `crate::`, without comments and its own tests.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code = code.collect::<Vec<_>>().join("\n");
    let path = |rest: &str| -> String {
        rest.chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect()
    };
    code.split("crate::").skip(1).map(path).collect()
}

#[test]
fn imports_only_go_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in files.iter().filter(|file| !file.ends_with("src/lib.rs")) {
        let module = module_of(file, &src);
        let Some(own) = floor(&module) else {
            wrong.push(format!("{module} stands on no floor"));
            continue;
        };
        let text = fs::read_to_string(file).expect("src is readable");
        for import in imports(&text) {
            let Some(other) = floor(&import) else { continue };
            let excused = EXCEPTIONS
                .iter()
                .any(|(from, to)| module.starts_with(from) && import.starts_with(to));
            seen += 1;
            if other > own && !excused {
                wrong.push(format!("{module} imports {import}, which stands above it"));
            }
        }
    }
    assert!(seen > 20, "only {seen} imports found: does this test still read them?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
