//! Rules that every SQL statement of this crate keeps, read from its sources.

use std::{collections::BTreeMap, fs, path::Path};

/// Statements that are not about an organization, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("CREATE_STATE", "the version of the schema belongs to the database"),
    ("FIRST_STATE", "the version of the schema belongs to the database"),
    ("LOCK_STATE", "the version of the schema belongs to the database"),
    ("SET_STATE", "the version of the schema belongs to the database"),
    ("READ_STATE", "the version of the schema belongs to the database"),
    ("STATE_EXISTS", "the version of the schema belongs to the database"),
    ("READ_CLOCK", "asks what time it is"),
    ("NOTIFY", "the organization is in the message"),
];

/// What no statement may contain: it would not be there on every version and kind of PostgreSQL, or it would take the
/// log apart.
const BANNED: &[&str] = &[
    "DELETE FROM audit_log",
    "TRUNCATE",
    "advisory",
    "SERIAL",
    "TRIGGER",
    "REFERENCES",
    "nextval",
    "xmax",
    "MERGE INTO",
    "RETURNING *",
    "DELETE FROM audit_block",
    "UPDATE audit_block",
    "DELETE FROM audit_checkpoint",
    "UPDATE audit_checkpoint",
    "DELETE FROM audit_head",
];

/// What retention does to the log, and nothing else may: no leaf, number, id or time is ever in it.
const DROP_BODIES: &str = "UPDATE audit_log SET body = NULL, actor_id = '', target_id = NULL \
                           WHERE org_id = $1 AND seq > $2 AND seq <= $3";

#[test]
fn every_statement_names_the_organization() {
    let statements = statements();
    for (name, text) in &statements {
        let excepted = EXCEPTIONS.iter().any(|(exception, _)| name.ends_with(&format!("::{exception}")));
        assert_ne!(excepted, text.contains("org_id"), "{name}: {text}");
    }
    for (exception, _) in EXCEPTIONS {
        let suffix = format!("::{exception}");
        assert!(
            statements.keys().any(|name| name.ends_with(&suffix)),
            "{exception} is gone: take it off the list"
        );
    }
}

#[test]
fn the_log_is_only_appended_to_and_nothing_needs_one_kind_of_postgresql() {
    let migrations = files("migrations");
    let sources = statements().into_iter().chain(migrations);
    for (name, text) in sources {
        let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        let words = code.join(" ");
        // Without the backslashes at the ends of lines.
        let words: Vec<_> = words.split_whitespace().filter(|word| *word != "\\").collect();
        let code = words.join(" ").to_lowercase();
        let code = code.replace(&DROP_BODIES.to_lowercase(), "");
        assert!(!code.contains("update audit_log"), "{name} changes the log");
        for banned in BANNED {
            assert!(!code.contains(&banned.to_lowercase()), "{name} contains `{banned}`");
        }
    }
}

#[test]
fn every_key_begins_with_the_organization() {
    for (file, text) in files("migrations") {
        let keys = text.lines().filter(|line| line.contains("PRIMARY KEY (") || line.contains("UNIQUE"));
        for key in keys {
            assert!(key.contains("(org_id"), "{file}: `{key}`");
        }
    }
}

/// What is given to sqlx is a constant, so the tests above have seen it, and no value is ever part of its text.
#[test]
fn statements_are_constants() {
    for (file, text) in files("src") {
        for (at, call) in text.match_indices("sqlx::query(").chain(text.match_indices("sqlx::raw_sql(")) {
            let argument = text[at + call.len()..].split([')', ',']).next().unwrap_or_default();
            let constant = argument.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            // Arguments of type `&'static str`, a constant at the caller.
            let passed_on = matches!(argument, "sql" | "statement" | "end" | "*migration");
            let liveness = argument == "\"SELECT 1\"";
            assert!(constant || passed_on || liveness, "{file}: `{argument}`");
        }
        assert!(!text.contains("AssertSqlSafe"), "{file}");
    }
}

/// Every constant with SQL in it, by `file::NAME`; what a macro adds to it comes after it.
fn statements() -> BTreeMap<String, String> {
    let files = files("src");
    let all = files.values().cloned().collect::<String>();
    let mut found = BTreeMap::new();
    for (file, text) in &files {
        for (at, _) in text.match_indices("const ") {
            let Some((name, rest)) = text[at + 6..].split_once(": &str =") else { continue };
            let is_name = name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            let Some(end) = rest.find(";\n").filter(|_| is_name) else { continue };
            let mut value = rest[..end].to_owned();
            let words = ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "WITH"];
            if !words.iter().any(|word| value.contains(word)) {
                continue;
            }
            for (at, _) in rest[..end].match_indices("!(") {
                let start =
                    rest[..at].rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
                let definition = format!("macro_rules! {} {{", &rest[start..at]);
                let body = all.split(&definition).nth(1).and_then(|body| body.split("\n}\n").next());
                // The row that every change adds to the outbox says nothing about the change itself.
                if let Some(body) = body.filter(|_| &rest[start..at] != "recorded") {
                    value.push_str(body);
                }
            }
            found.insert(format!("{file}::{name}"), value);
        }
    }
    assert!(found.len() > 60, "the scan finds statements: {}", found.len());
    found
}

/// The text of every file in a directory of this crate, and in those below it, by name.
fn files(directory: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            found.insert(name, fs::read_to_string(path).expect("a text file"));
        }
    }
    found
}
