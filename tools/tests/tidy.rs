//! Conventions of this repository as tests: the arrows between the crates, heads and lengths of files, names kept out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which crates of ours a crate may depend on: the arrows of ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("thalweg-model", &[]),
    ("thalweg-derive", &[]),
    ("thalweg-io", &["thalweg-model"]),
    ("thalweg-state", &["thalweg-model"]),
    // No member of the workspace: built by `cargo fuzz` alone.
    ("thalweg-fuzz", &["thalweg-io", "thalweg-state", "thalweg-model"]),
    ("thalweg-runtime", &["thalweg-io", "thalweg-state", "thalweg-model"]),
    ("thalweg-cluster", &["thalweg-model"]),
    (
        "thalweg",
        &["thalweg-runtime", "thalweg-cluster", "thalweg-io", "thalweg-state", "thalweg-model", "thalweg-derive"],
    ),
    ("thalweg-benches", &["thalweg", "thalweg-model"]),
    // `thalweg state` reads checkpoints as they lie on storage, without a job.
    (
        "thalweg-tools",
        &["thalweg-benches", "thalweg", "thalweg-cluster", "thalweg-io", "thalweg-state", "thalweg-model"],
    ),
];

/// What a crate's tests may use beyond its arrows. A generated implementation needs its trait to be tested, and those
/// who implement records by hand test against the macro.
const TEST_ARROWS: &[(&str, &str)] = &[
    ("thalweg-derive", "thalweg-model"),
    ("thalweg-io", "thalweg-derive"),
    ("thalweg-state", "thalweg-derive"),
    ("thalweg-runtime", "thalweg-derive"),
    ("thalweg-benches", "thalweg-derive"),
];

/// Beyond this a file is too long, above [`LINES_WANTED`] it is mentioned.
const LINES_MAX: usize = 900;
const LINES_WANTED: usize = 800;

/// What the top level may hold besides files that begin with a dot.
const TOP_LEVEL: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "core",
    "io",
    "operators",
    "rustfmt.toml",
    "state",
    "target",
    "tools",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tools lies in the root").to_path_buf()
}

/// Every file of the repository as far as people write it: no build output, no version control.
fn files() -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("readable directory") {
            let entry = entry.expect("readable entry");
            let (path, name) = (entry.path(), entry.file_name());
            if name == ".git" || name == "target" || entry.file_type().expect("file type").is_symlink() {
                continue;
            }
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").display().to_string()
}

fn sources() -> Vec<(String, String)> {
    let rust = files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.map(|path| (relative(&path), fs::read_to_string(&path).expect("UTF-8 source"))).collect()
}

/// Packages that a manifest's dependency tables name, and whether only its tests use them.
fn dependencies(manifest: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let (mut inside, mut tests) = (false, false);
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            inside = table.ends_with("dependencies");
            tests = table.contains("dev-dependencies");
            // [dependencies.name]
            if let Some((before, name)) = table.rsplit_once('.')
                && before.ends_with("dependencies")
            {
                found.push((name.trim_matches('"').to_owned(), tests));
            }
        } else if inside && !line.starts_with('#') {
            // name = "1", name = { ... }, name.workspace = true
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default().trim_matches('"');
            if !name.is_empty() {
                found.push((name.to_owned(), tests));
            }
        }
        if let Some((_, renamed)) = line.split_once("package = \"")
            && inside
        {
            found.push((renamed.split('"').next().unwrap_or_default().to_owned(), tests));
        }
    }
    found
}

#[test]
fn when_a_manifest_names_dependencies_then_all_ways_of_writing_them_are_seen() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = \"1\"\n# c = \"1\"\n\
                    [target.\"cfg(loom)\".dependencies]\nd = { version = \"1\" }\n[dev-dependencies]\n\"e\" = \"1\"\n\
                    g = { package = \"h\", version = \"1\" }\n[build-dependencies.f]\nversion = \"1\"\n";
    let expected = [("a", false), ("b", false), ("d", false), ("e", true), ("g", true), ("h", true), ("f", false)];
    assert_eq!(dependencies(manifest), expected.map(|(name, tests)| (name.to_owned(), tests)));
}

#[test]
fn when_a_crate_depends_on_another_then_an_arrow_allows_it() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut seen = 0;
    for path in files().into_iter().filter(|path| path.file_name().is_some_and(|name| name == "Cargo.toml")) {
        let manifest = fs::read_to_string(&path).expect("UTF-8 manifest");
        let Some(name) = manifest.lines().find_map(|line| line.strip_prefix("name = \"")) else { continue };
        let name = name.trim_end_matches('"');
        let arrows = allowed.get(name).unwrap_or_else(|| {
            panic!("{}: give the new crate {name} its arrows in this test and in ARCHITECTURE.md", relative(&path))
        });
        for (dependency, tests) in dependencies(&manifest) {
            let good = !allowed.contains_key(dependency.as_str())
                || arrows.contains(&dependency.as_str())
                || (tests && TEST_ARROWS.contains(&(name, dependency.as_str())));
            assert!(good, "{name} must not depend on {dependency} (see ARCHITECTURE.md)");
        }
        seen += 1;
    }
    assert_eq!(seen, ARROWS.len(), "a crate of the table is missing");
}

#[test]
fn when_glommio_is_named_then_it_is_in_core_runtime() {
    for path in files().into_iter().filter(|path| path.file_name().is_some_and(|name| name == "Cargo.toml")) {
        let name = relative(&path);
        let manifest = fs::read_to_string(&path).expect("UTF-8 manifest");
        let names = dependencies(&manifest).iter().any(|(dependency, _)| dependency == "glommio");
        assert!(!names || name == "core/runtime/Cargo.toml" || name == "Cargo.toml", "{name} depends on glommio");
    }
    for (name, text) in sources() {
        let names = text.contains("glommio::") || text.contains("use glommio");
        let excused = name.starts_with("core/runtime/") || name == "tools/tests/tidy.rs";
        assert!(!names || excused, "{name} names glommio: only core/runtime may");
    }
}

#[test]
fn when_a_source_file_begins_then_it_says_what_it_holds() {
    for (name, text) in sources() {
        let first = text.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("//! ") && first.len() > 10,
            "{name}: the first line must be `//! what this file holds`"
        );
    }
}

#[test]
fn when_a_source_file_grows_then_it_stays_readable() {
    for (name, text) in sources() {
        let lines = text.lines().count();
        if lines > LINES_WANTED {
            println!("warning: {name} has {lines} lines: split it before it has {LINES_MAX}");
        }
        assert!(lines <= LINES_MAX, "{name} has {lines} lines: split it, one concept a file");
    }
}

#[test]
fn when_work_is_unfinished_then_it_is_not_hidden_in_the_code() {
    // Put together so that this file does not name them itself.
    let banned = [["todo", "!("].concat(), ["unimplemented", "!("].concat(), ["allow(dead", "_code)"].concat()];
    // What the macro generates must compile without warnings in any crate, used or not; and of a module that several
    // test programs share, each uses a part.
    let excused = |name: &str| name.starts_with("core/derive/") || name.contains("/tests/common/");
    for (name, text) in sources().into_iter().filter(|(name, _)| !excused(name)) {
        for word in &banned {
            assert!(!text.contains(word.as_str()), "{name} holds {word}");
        }
    }
}

#[test]
fn when_a_file_is_committed_then_it_names_no_place_of_one_machine() {
    let banned = [["/work", "/"].concat(), ["/root", "/"].concat(), ["/home", "/"].concat()];
    // Cargo writes its registry's address into the lock file by itself; nothing else names one.
    let registries =
        [["index.", "crates.io"].concat(), ["static.", "crates.io"].concat(), ["registry", "+http"].concat()];
    let text_of = |path: &Path| match path.extension().and_then(|extension| extension.to_str()) {
        Some("rs" | "toml" | "md" | "yml" | "yaml" | "sh" | "json" | "lock") | None => fs::read_to_string(path).ok(),
        _ => None,
    };
    for path in files() {
        let name = relative(&path);
        let Some(text) = text_of(&path) else { continue };
        for word in &banned {
            assert!(!text.contains(word.as_str()), "{name} names {word}: a path of one machine");
        }
        for word in registries.iter().filter(|_| !name.ends_with("Cargo.lock")) {
            assert!(!text.contains(word.as_str()), "{name} names a registry: {word}");
        }
    }
}

#[test]
fn when_the_top_level_is_listed_then_it_holds_what_it_should() {
    for entry in fs::read_dir(root()).expect("readable root") {
        let name = entry.expect("readable entry").file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || TOP_LEVEL.contains(&name.as_str()), "{name} does not belong at the top level");
    }
}
