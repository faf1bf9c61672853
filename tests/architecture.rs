//! Rules of the architecture that no compiler checks: who may depend on whom, and what must not be in the tree.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

#[test]
fn core_depends_on_no_runtime_server_or_database() {
    let output =
        cargo(&["tree", "-p", "lumoauth-core", "-e", "normal", "--prefix", "none", "--format", "{p}"]);
    let names: BTreeSet<&str> = output.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("lumoauth-core") && names.len() > 5, "{output}");
    let banned = [
        "tokio",
        "hyper",
        "axum",
        "tower",
        "sqlx",
        "sqlx-core",
        "redis",
        "reqwest",
        "async-std",
        "smol",
        "futures-executor",
        "async-global-executor",
    ];
    for banned in banned {
        assert!(!names.contains(banned), "lumoauth-core pulls in {banned}");
    }
}

#[test]
fn our_crates_depend_only_downwards() {
    for package in workspace_packages() {
        let name = package["name"].as_str().expect("a name");
        let ours: BTreeSet<&str> = dependencies(&package, "normal").filter(|it| is_ours(it)).collect();
        let allowed: &[&str] = match name {
            "lumoauth-core" => &[],
            // Hosts, examples and tests stand above everything.
            "lumoauth-server" | "llm-gateway" | "file-service" | "aauth-agent" | "aauth-resource"
            | "lumoauth-tests" => continue,
            _ => &["lumoauth-core"],
        };
        for dependency in ours {
            assert!(allowed.contains(&dependency), "{name} must not depend on {dependency}");
        }
    }
}

/// Neither knows the other, also not in its tests: a store is tested against the ports, the service against memory.
#[test]
fn stores_and_the_service_do_not_know_each_other() {
    let (mut stores, mut services) = (0, 0);
    for package in workspace_packages() {
        let name = package["name"].as_str().expect("a name");
        let others: &[&str] = match name {
            "lumoauth-tower" => &["lumoauth-store-", "embedded-store"],
            name if name.starts_with("lumoauth-store-") => &["lumoauth-tower"],
            _ => continue,
        };
        stores += usize::from(name != "lumoauth-tower");
        services += usize::from(name == "lumoauth-tower");
        for kind in ["normal", "dev", "build"] {
            for dependency in dependencies(&package, kind) {
                let is_other = others.iter().any(|other| dependency.starts_with(other));
                assert!(!is_other, "{name} must not depend on {dependency}, {kind}");
            }
        }
    }
    assert_eq!((stores, services), (2, 1), "the packages have these names");
}

#[test]
fn every_package_takes_the_lints_of_the_workspace_and_is_not_published() {
    for package in workspace_packages() {
        let manifest =
            fs::read_to_string(package["manifest_path"].as_str().expect("a path")).expect("a manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{}", package["name"]);
        assert_eq!(package["publish"], Value::Array(Vec::new()), "{}", package["name"]);
    }
}

/// Which modules stand on which level of core; a module imports from its own level and below.
const LEVELS: &[(&str, &[&str])] = &[
    ("values", &["clock", "id", "secret", "random", "json", "jwks", "merkle", "network"]),
    (
        "domain",
        &[
            "aauth_resource",
            "agent",
            "capability",
            "budget",
            "organization",
            "user",
            "client",
            "consent",
            "api_key",
            "approval",
            "jit",
            "mcp",
            "policy",
            "audit",
            "workload",
        ],
    ),
    ("ports", &["store", "keys", "fetch", "notify", "people"]),
    (
        "protocol",
        &[
            "aauth",
            "audit_export",
            "token",
            "principal",
            "spending",
            "client_auth",
            "foreign_keys",
            "grant",
            "httpsig",
            "authz",
            "authorize",
            "wire",
        ],
    ),
    ("server", &["server"]),
];

#[test]
fn modules_of_core_import_only_downwards() {
    let level = |module: &str| LEVELS.iter().position(|(_, modules)| modules.contains(&module));
    let source = root().join("lumoauth-core/src");
    let mut seen = 0;
    for path in files(&source, &["rs"]) {
        let below = path.strip_prefix(&source).expect("below the source");
        let module = below.iter().next().expect("a component").to_string_lossy().replace(".rs", "");
        // Unit tests may look at a thing from above.
        let is_test = below.iter().any(|part| ["tests", "tests.rs"].iter().any(|name| part == *name));
        if module == "lib" || is_test {
            continue;
        }
        let own = level(&module).unwrap_or_else(|| panic!("`{module}` has no level: add it to LEVELS"));
        let text = fs::read_to_string(&path).expect("a source file");
        for import in imports(&text) {
            // A name that is no module is a macro or a re-export at the root.
            let Some(other) = level(&import) else { continue };
            seen += 1;
            let (from, to) = (LEVELS[own].0, LEVELS[other].0);
            assert!(
                other <= own,
                "{}: {from} module `{module}` imports {to} module `{import}`",
                path.display()
            );
        }
    }
    assert!(seen > 20, "the scan finds imports");
}

/// First segments of everything that a file names below `crate::`, tests left out.
fn imports(text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `pub(crate)` and `$crate::` name nothing; a name such as `mycrate::` is another crate.
        if code[..at].chars().last().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(first_segments(group)),
            None => found.extend(identifier(rest)),
        }
    }
    found
}

/// `a::b, c::{d, e}, f}` gives `a`, `c` and `f`.
fn first_segments(group: &str) -> Vec<String> {
    let (mut depth, mut segments, mut expects) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expects = true,
            c if expects && depth == 0 && !c.is_whitespace() => {
                segments.extend(identifier(&group[at..]));
                expects = false;
            }
            _ => {}
        }
    }
    segments
}

fn identifier(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

#[test]
fn the_scan_for_imports_reads_groups_and_skips_tests() {
    let text = "use crate::{\n    clock::Timestamp,\n    id::{AgentId, OrgId},\n    secret,\n};\n// crate::server\n\
                fn f(x: crate::json::Json) {}\npub(crate) fn g() {}\n#[cfg(test)]\nmod tests { use crate::server; }";
    assert_eq!(imports(text).into_iter().collect::<Vec<_>>(), ["clock", "id", "json", "secret"]);
}

#[test]
fn nothing_unfinished_or_silenced_is_in_the_tree() {
    // Written in halves, so that this file does not find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[ig", "nore"),
        concat!("#[all", "ow("),
        concat!("#![all", "ow("),
        concat!("dbg", "!("),
        concat!("pytest.mark.sk", "ip"),
        concat!("pytest.sk", "ip"),
    ];
    let mut problems = Vec::new();
    for path in files(&root(), &["rs", "toml", "py", "run"]) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            problems.extend(
                marks
                    .iter()
                    .filter(|mark| line.contains(**mark))
                    .map(|_| format!("{}:{}: {line}", path.display(), number + 1)),
            );
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn files_of_the_tests_stay_readable() {
    for path in files(&root().join("tests"), &["rs", "py"]) {
        let lines = fs::read_to_string(&path).expect("a source file").lines().count();
        assert!(lines < 500, "{} has {lines} lines", path.display());
    }
}

#[test]
fn banned_packages_are_not_in_the_dependency_graph() {
    let policy = policy();
    let mut banned: BTreeSet<String> = strings_of(&section(&policy, "bans"), "deny").into_iter().collect();
    banned.extend(["openssl", "openssl-sys", "native-tls", "rsa", "dotenv"].map(str::to_owned));
    for package in metadata()["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        assert!(!banned.contains(name), "{name} is banned");
    }
}

#[test]
fn every_licence_is_on_the_list() {
    let policy = policy();
    let allowed: BTreeSet<String> = strings_of(&section(&policy, "licenses"), "allow").into_iter().collect();
    assert!(!allowed.is_empty(), "deny.toml allows licences");
    let exceptions = exceptions(&section(&policy, "licenses"));
    for package in metadata()["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("{name} states no licence"));
        let mut allowed = allowed.clone();
        allowed.extend(exceptions.get(name).into_iter().flatten().cloned());
        assert!(licence_allowed(licence, &allowed), "{name} is under {licence}");
    }
}

#[test]
fn dependencies_come_from_the_registry_only() {
    for package in metadata()["packages"].as_array().expect("packages") {
        let source = package["source"].as_str();
        let ours = source.is_none()
            && package["manifest_path"]
                .as_str()
                .is_some_and(|it| it.starts_with(root().to_str().expect("utf-8")));
        assert!(
            ours || source.is_some_and(|it| it.starts_with("registry+")),
            "{} from {source:?}",
            package["name"]
        );
    }
}

#[test]
fn licence_expressions_are_read_as_spdx() {
    let allowed: BTreeSet<String> = ["MIT", "ISC", "Apache-2.0"].map(str::to_owned).into();
    for (expression, expected) in [
        ("MIT", true),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0", false),
        ("MIT AND ISC", true),
        ("MIT AND OpenSSL", false),
        ("(MIT OR GPL-3.0) AND ISC", true),
        ("ISC AND (GPL-2.0 OR GPL-3.0)", false),
        ("Apache-2.0 WITH LLVM-exception", false),
        ("MIT/Apache-2.0", true),
    ] {
        assert_eq!(licence_allowed(expression, &allowed), expected, "{expression}");
    }
}

/// Whether the choice that `expression` leaves can be made within `allowed`.
fn licence_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut place = 0;
    let verdict = either(&words, &mut place, allowed);
    verdict && place == words.len()
}

fn either(words: &[&str], place: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut verdict = both(words, place, allowed);
    while words.get(*place) == Some(&"OR") {
        *place += 1;
        let other = both(words, place, allowed);
        verdict |= other;
    }
    verdict
}

fn both(words: &[&str], place: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut verdict = one(words, place, allowed);
    while words.get(*place) == Some(&"AND") {
        *place += 1;
        let other = one(words, place, allowed);
        verdict &= other;
    }
    verdict
}

fn one(words: &[&str], place: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let Some(word) = words.get(*place) else { return false };
    *place += 1;
    if *word == "(" {
        let verdict = either(words, place, allowed);
        *place += 1;
        return verdict;
    }
    let mut name = (*word).to_owned();
    if words.get(*place) == Some(&"WITH") {
        name = format!("{name} WITH {}", words.get(*place + 1).unwrap_or(&""));
        *place += 2;
    }
    allowed.contains(&name)
}

fn policy() -> String {
    let text = fs::read_to_string(root().join("deny.toml")).expect("deny.toml states the dependency policy");
    text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The lines of `[name]` and of its sub-tables.
fn section(policy: &str, name: &str) -> String {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in policy.lines() {
        if let Some(header) = line.trim().strip_prefix('[').filter(|_| !line.starts_with(' ')) {
            let header = header.trim_matches(['[', ']']);
            inside = header == name || header.starts_with(&format!("{name}."));
        }
        if inside {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// The names in `key = [..]`, written as strings or as `{ name = ".." }` or `{ crate = ".." }`.
fn strings_of(section: &str, key: &str) -> Vec<String> {
    let Some(start) = section.lines().position(|line| line.trim_start().starts_with(&format!("{key} =")))
    else {
        return Vec::new();
    };
    let text = section.lines().skip(start).collect::<Vec<_>>().join("\n");
    let text = text.split_once('[').map_or("", |(_, rest)| rest);
    let mut names = Vec::new();
    // A table entry carries a reason as well; only its name counts.
    for entry in text.split("\n]").next().unwrap_or_default().split(['{', '\n']) {
        let end_of_list = entry.contains(']') && !entry.contains('[');
        names.extend(entry.split('"').nth(1).map(|name| name.split('@').next().unwrap_or(name).to_owned()));
        if !entry.contains('=') {
            names.extend(entry.split('"').skip(3).step_by(2).map(str::to_owned));
        }
        if end_of_list {
            break;
        }
    }
    names
}

/// `exceptions = [{ crate = "x", allow = ["L"] }]`.
fn exceptions(section: &str) -> BTreeMap<String, Vec<String>> {
    let Some((_, text)) = section.split_once("exceptions = [") else { return BTreeMap::new() };
    let entries = text.split('{').skip(1);
    entries
        .filter_map(|entry| {
            let mut quoted = entry.split('}').next()?.split('"').skip(1).step_by(2).map(str::to_owned);
            Some((quoted.next()?, quoted.collect()))
        })
        .collect()
}

fn workspace_packages() -> Vec<Value> {
    let metadata = metadata();
    let members = metadata["workspace_members"].as_array().expect("members").clone();
    let packages = metadata["packages"].as_array().expect("packages");
    let ours: Vec<Value> =
        packages.iter().filter(|package| members.contains(&package["id"])).cloned().collect();
    assert!(ours.len() >= 5, "the workspace has its members");
    ours
}

fn dependencies<'a>(package: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a str> {
    let all = package["dependencies"].as_array().expect("dependencies");
    let wanted = move |it: &&Value| it["kind"].as_str().unwrap_or("normal") == kind;
    all.iter().filter(wanted).map(|it| it["name"].as_str().expect("a name"))
}

fn is_ours(name: &str) -> bool {
    name.starts_with("lumoauth-") || name == "embedded-store"
}

fn metadata() -> Value {
    serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--locked"]))
        .expect("metadata is JSON")
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the workspace").to_owned()
}

/// Source files below `dir` with one of these endings, build output and version control left out. A script
/// without an ending counts by its name.
fn files(dir: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | ".git" | "__pycache__" | ".cache" | ".pytest_cache") {
                found.extend(files(&path, endings));
            }
        } else if endings.contains(&name.rsplit('.').next().unwrap_or_default()) {
            found.push(path);
        }
    }
    found.sort();
    found
}
