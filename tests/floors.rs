//! The floors of the house: imports only go down, and never in a circle.
//!
//! The folders of `src/` stand on each other as ARCHITECTURE.md says: a folder imports only what stands
//! below it or beside it. And no file imports one that imports it, by whatever way round, so whoever reads
//! a file can read what it stands on first, and comes to an end.
//!
//! This test reads the paths of every file that begin with `crate`, `super`, or the name of a module
//! within it, and follows them through what other modules import and export again, to the file in
//! which the name is defined. A module that only exports a name again does not import it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up: folders on one floor may import each other.
const FLOORS: &[&[&str]] = &[
    &["ground"],
    &["concurrent", "locks"],
    &["queues"],
    &["channels"],
    &["ioloop"],
    &["coroutine"],
    &["sockets"],
    &["iostream", "signal", "hyper"],
    &["tls"],
    &["service", "process"],
    &["http"],
    &["testing"],
    // What users see, and what the attributes' expansions call.
    &["net", "__private"],
];

/// A `use` of a file, or a path within its code: what it names, by which name, and whether it is only
/// exported again.
#[derive(Debug, PartialEq)]
struct Import {
    path: Vec<String>,
    name: String,
    is_use: bool,
    is_export: bool,
}

/// The modules of a crate, each with what it imports.
type House = BTreeMap<String, Vec<Import>>;

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

/// `src/ioloop/core.rs` is `ioloop::core`, and `src/lib.rs` the empty name.
fn module_of(path: &Path, src: &Path) -> String {
    let path = path.strip_prefix(src).expect("found in src").with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_str().expect("plain names")).collect();
    let module = parts.join("::");
    match module.strip_suffix("::mod").unwrap_or(&module) {
        "lib" => String::new(),
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

/// The path, or the tree of paths in braces, that `text` begins with, each in full and with the name that
/// it has here; gives what follows.
fn paths<'a>(text: &'a str, before: &[&str], found: &mut Vec<(Vec<String>, String)>) -> &'a str {
    let mut text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(rest) = rest.strip_prefix('}') {
                return rest;
            }
            rest = paths(rest, before, found).trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest);
            if rest.is_empty() || !rest.contains('}') {
                return rest;
            }
        }
    }
    let mut path = before.to_vec();
    loop {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        match rest.strip_prefix("::") {
            Some(rest) if rest.starts_with('{') => {
                path.push(name);
                return paths(rest, &path, found);
            }
            Some(rest) if !rest.starts_with(['<', '*']) => {
                path.push(name);
                text = rest;
            }
            _ => {
                // In braces, `self` is what stands before them.
                if name != "self" {
                    path.push(name);
                }
                let known = path.last().copied().unwrap_or_default();
                let alias = rest.strip_prefix(" as ").map(|rest| {
                    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                    rest.split_at(end.unwrap_or(rest.len()))
                });
                let (name, rest) = alias.unwrap_or((known, rest));
                found.push((path.iter().map(|part| part.to_string()).collect(), name.into()));
                return rest;
            }
        }
    }
}

/// What a file names of the crate, `children` being the modules within it.
fn imports(text: &str, children: &BTreeSet<&str>) -> Vec<Import> {
    let code = code_of(text);
    let mut found = Vec::new();
    let mut add = |text: &str, is_use: bool, is_export: bool| {
        let mut named = Vec::new();
        paths(text, &[], &mut named);
        for (path, name) in named {
            let first = path.first().map(String::as_str).unwrap_or_default();
            if ["crate", "super", "self"].contains(&first) || children.contains(first) {
                found.push(Import { path, name, is_use, is_export });
            }
        }
    };
    // `code` with the statements of `use` taken out, for paths within the rest.
    let mut rest = String::new();
    for (at, statement) in code.split_inclusive([';', '}']).scan(0, |at, statement| {
        let begun = *at;
        *at += statement.len();
        Some((begun, statement))
    }) {
        let begin = statement.trim_start();
        let begin = begin.rsplit("]\n").next().unwrap_or(begin).trim_start();
        let visible = begin.strip_prefix("pub").map(|rest| match rest.strip_prefix('(') {
            Some(rest) => rest.split_once(')').map_or(rest, |(_, rest)| rest),
            None => rest,
        });
        match visible.unwrap_or(begin).trim_start().strip_prefix("use ") {
            Some(used) => {
                let offset = used.as_ptr() as usize - statement.as_ptr() as usize;
                add(&code[at + offset..], true, visible.is_some());
            }
            None => rest.push_str(statement),
        }
    }
    for root in ["crate::", "super::"] {
        for (at, _) in rest.match_indices(root) {
            let before = rest[..at].chars().next_back().unwrap_or(' ');
            if !before.is_alphanumeric() && !"_:".contains(before) {
                add(&rest[at..], false, false);
            }
        }
    }
    found
}

fn house() -> House {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let modules: Vec<_> = files.iter().map(|file| module_of(file, &src)).collect();
    let texts = files.iter().map(|file| fs::read_to_string(file).expect("src is readable"));
    let imports = |module: &String, text: String| {
        let within = modules.iter().filter_map(|other| match module.as_str() {
            "" => Some(other.as_str()),
            module => other.strip_prefix(module)?.strip_prefix("::"),
        });
        imports(&text, &within.filter(|other| !other.contains("::")).collect())
    };
    modules
        .iter()
        .zip(texts)
        .map(|(module, text)| (module.clone(), imports(module, text)))
        .collect()
}

/// The module in which what `module` names by `path` is defined.
fn defined_in(house: &House, module: &str, path: &[String], depth: u32) -> String {
    let mut within: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    let mut path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path[0] {
        "crate" => within.clear(),
        "super" => drop(within.pop()),
        _ => {}
    }
    if ["crate", "super", "self"].contains(&path[0]) {
        path.remove(0);
    }
    while path.first() == Some(&"super") {
        path.remove(0);
        within.pop();
    }
    for (n, name) in path.iter().enumerate() {
        let inner = [within.as_slice(), &[name]].concat().join("::");
        if house.contains_key(&inner) {
            within.push(name);
            continue;
        }
        // It is defined there, or comes from elsewhere.
        let here = within.join("::");
        let from = house.get(&here).and_then(|imports| {
            imports.iter().find(|import| import.is_use && import.name == **name)
        });
        return match from.filter(|_| depth < 8) {
            Some(from) => {
                let further = path[n + 1..].iter().map(|part| part.to_string());
                let path: Vec<_> = from.path.iter().cloned().chain(further).collect();
                defined_in(house, &here, &path, depth + 1)
            }
            None => here,
        };
    }
    within.join("::")
}

/// Which modules each module imports: by the files in which the names are defined.
fn edges(house: &House) -> BTreeMap<&str, BTreeSet<String>> {
    let edges = house.iter().map(|(module, imports)| {
        let imports = imports.iter().filter(|import| !import.is_export);
        let defined = imports.map(|import| defined_in(house, module, &import.path, 0));
        (module.as_str(), defined.filter(|other| other != module).collect())
    });
    edges.collect()
}

/// A way from `module` back to itself.
fn circle<'a>(
    edges: &'a BTreeMap<&str, BTreeSet<String>>,
    module: &'a str,
    way: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Option<Vec<&'a str>> {
    if let Some(begin) = way.iter().position(|other| *other == module) {
        return Some(way[begin..].to_vec());
    }
    if done.contains(module) {
        return None;
    }
    way.push(module);
    let others = edges.get(module).into_iter().flatten();
    let found = others.into_iter().find_map(|other| circle(edges, other, way, done));
    way.pop();
    done.insert(module);
    found
}

fn floor(module: &str) -> Option<usize> {
    let folder = module.split("::").next().unwrap_or_default();
    FLOORS.iter().position(|folders| folders.contains(&folder))
}

#[test]
fn imports_only_go_down() {
    let house = house();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (module, others) in edges(&house).into_iter().filter(|(module, _)| !module.is_empty()) {
        for other in others.iter().filter(|other| !other.is_empty()) {
            seen += 1;
            match (floor(module), floor(other)) {
                (Some(own), Some(other)) if other <= own => {}
                (Some(_), Some(_)) => wrong.push(format!("{module} imports {other} from above")),
                _ => wrong.push(format!("{module} imports {other}: one has no floor")),
            }
        }
    }
    assert!(seen > 200, "only {seen} imports found: does this test still read them?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_never_go_in_a_circle() {
    let house = house();
    let edges = edges(&house);
    let mut done = BTreeSet::new();
    for module in edges.keys() {
        let found = circle(&edges, module, &mut Vec::new(), &mut done);
        assert_eq!(found, None, "each of these imports the next one, and the last the first");
    }
}

/// A crate with these files.
fn small(files: &[(&str, &str)]) -> House {
    let known: HashMap<&str, BTreeSet<&str>> =
        HashMap::from([("", BTreeSet::from(["a", "b"])), ("b", BTreeSet::from(["c", "d"]))]);
    let none = BTreeSet::new();
    files
        .iter()
        .map(|(module, text)| {
            (module.to_string(), imports(text, known.get(module).unwrap_or(&none)))
        })
        .collect()
}

#[test]
fn names_are_found_where_they_are_defined_by_whatever_path() {
    let house = small(&[
        ("", "mod a;\npub mod b;\npub use b::{\n    C, // first\n    D as E,\n};"),
        ("a", "struct A;"),
        ("b", "mod c;\nmod d;\npub use c::C;\npub(crate) use self::d::{D, f};\nuse crate::a::A;"),
        ("b::c", "struct C;"),
        ("b::d", "struct D;"),
    ]);
    let of = |module: &str, text: &str| -> Vec<String> {
        let imports = imports(text, &BTreeSet::new());
        imports.iter().map(|import| defined_in(&house, module, &import.path, 0)).collect()
    };
    assert_eq!(of("a", "use crate::C;"), ["b::c"]);
    assert_eq!(of("a", "use crate::{E, b::C as B};"), ["b::d", "b::c"]);
    assert_eq!(of("a", "use crate::b::{self, f};"), ["b", "b::d"]);
    assert_eq!(of("b::c", "use super::A;"), ["a"]);
    assert_eq!(of("b::c", "use super::super::E;\nuse super::d::*;"), ["b::d", "b::d"]);
    assert_eq!(of("b::c", "fn f() { super::f::<crate::a::A>(\"}\") }"), ["a", "b::d"]);
    assert_eq!(of("a", "#[cfg(unix)]\nuse crate::b::C;\nuse std::fmt;"), ["b::c"]);
    assert_eq!(of("a", "// crate::b\n#[cfg(test)]\nmod tests { use crate::b; }").len(), 0);
}

#[test]
fn a_circle_is_found_and_exporting_again_is_none() {
    let fine = [("b", "mod c;\nmod d;\npub use c::C;"), ("b::c", "use super::d::D;"), ("b::d", "")];
    let found = |house: &House| {
        let edges = edges(house);
        circle(&edges, "b::c", &mut Vec::new(), &mut BTreeSet::new())
            .map(|way| way.iter().map(|module| module.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(found(&small(&fine)), None);
    let mut wrong = fine;
    wrong[2].1 = "use super::C;";
    assert_eq!(found(&small(&wrong)), Some(vec!["b::c".into(), "b::d".into()]));
}
