//! What shows that the audit log was not changed: signed heads, proofs, and `audit verify` on what was exported.

use std::{fs, path::PathBuf};

use lumoauth_core::merkle::{Node, verify_consistency, verify_inclusion};
use lumoauth_tests::{Org, Server, int, list, on_each_backend, run_server, text, unique};
use serde_json::{Value, json};

on_each_backend!(
    entries_are_proven_to_be_in_the_log,
    the_log_is_proven_to_have_only_grown,
    an_export_is_verified_without_the_server,
    a_tampered_export_is_found_out,
    the_tree_refuses_what_does_not_exist,
    keys_of_heads_are_no_keys_of_tokens,
);

fn get(org: &Org<'_>, path: &str) -> Value {
    org.admin("GET", &format!("/audit-logs/tree/{path}")).send().ok()["data"].clone()
}

fn number(value: &Value) -> u64 {
    u64::try_from(int(value)).expect("not negative")
}

fn node(value: &Value) -> Node {
    text(value).parse().expect("a hash")
}

fn nodes(value: &Value) -> Vec<Node> {
    list(value).iter().map(node).collect()
}

fn entries_are_proven_to_be_in_the_log(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&["read:a"]);
    agent.token();
    let head = get(&org, "head");
    let (size, root) = (number(&head["size"]), node(&head["root"]));
    for entry in org.audit(&format!("targetId={}", agent.agent_id)) {
        let seq = number(&entry["id"]);
        let proof = get(&org, &format!("inclusion?seq={seq}&size={size}"));
        assert_eq!(node(&proof["root"]), root);
        let (leaf, path) = (node(&proof["leaf"]), nodes(&proof["proof"]));
        assert!(verify_inclusion(leaf, seq - 1, size, &path, root), "{proof}");
        assert!(size < 2 || !verify_inclusion(leaf, seq % size, size, &path, root));
    }
}

fn the_log_is_proven_to_have_only_grown(server: &Server) {
    let org = server.acme();
    org.agent(&[]);
    let older = get(&org, "head");
    org.agent(&[]).token();
    let newer = get(&org, "head");
    let of = |head: &Value| (number(&head["size"]), node(&head["root"]));
    assert!(of(&older).0 < of(&newer).0);
    let path = format!("consistency?from={}&to={}", older["size"], newer["size"]);
    let proof = get(&org, &path);
    assert_eq!((node(&proof["fromRoot"]), node(&proof["root"])), (of(&older).1, of(&newer).1));
    assert!(verify_consistency(of(&older), of(&newer), &nodes(&proof["proof"])), "{proof}");
    // Heads stay, byte for byte.
    let after = number(&older["size"]) - 1;
    let kept = get(&org, &format!("checkpoints?after={after}"));
    assert_eq!(list(&kept)[0]["head"], older["head"]);
}

/// The files of one test.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(unique("lumoauth-audit"));
        fs::create_dir_all(&directory).expect("a directory");
        Self(directory)
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a file");
        path.to_str().expect("a path").to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// All parts of the log of `org`, joined.
fn exported(org: &Org<'_>, limit: u64) -> String {
    let (mut all, mut after) = (String::new(), 0);
    loop {
        let path = format!("/audit-logs/tree/export?after={after}&limit={limit}");
        let response = org.admin("GET", &path).send().expect(200);
        let kind = response.header("content-type").expect("a content type").to_owned();
        assert!(kind.starts_with("application/jsonl"), "{kind}");
        let part = response.text();
        let mut lines = part.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let last = lines.rfind(|line| line["type"] == "entry");
        let Some(last) = last else { return all };
        all.push_str(&part);
        after = number(&last["seq"]);
    }
}

fn verify(arguments: &[&str]) -> (bool, String) {
    let (code, text) = run_server(&[&["audit", "verify"], arguments].concat(), &[]);
    assert!(!text.contains("panicked"), "{text}");
    (code == Some(0), text)
}

fn keys(org: &Org<'_>) -> String {
    org.get("/.well-known/audit-jwks.json").send().ok().to_string()
}

fn an_export_is_verified_without_the_server(server: &Server) {
    let org = server.globex();
    let early = get(&org, "head").to_string();
    let agent = org.agent(&["read:a"]);
    agent.token();
    let files = Files::new();
    // Others write meanwhile, so the parts may be of different ages.
    let log = files.write("log.jsonl", &exported(&org, 7));
    let (jwks, head) = (files.write("jwks.json", &keys(&org)), files.write("head.json", &early));
    let (whole, shown) = verify(&[&log, "--jwks", &jwks, "--head", &head]);
    assert!(whole && shown.starts_with("whole: ") && !shown.contains("warning"), "{shown}");
    // An export can be the earlier head, however long it is.
    let padded = format!("{}\n", "{\"type\":\"key\",\"jwk\":{}}").repeat(60_000);
    let older = fs::read_to_string(&log).expect("a file");
    let older = files.write("older.jsonl", &format!("{padded}{older}"));
    let (whole, shown) = verify(&[&log, "--jwks", &jwks, "--head", &older]);
    assert!(whole && !shown.contains("note"), "{shown}");
    let long = files.write("long.json", &" ".repeat(16 * 1024 * 1024 + 1));
    let (whole, shown) = verify(&[&log, "--jwks", &jwks, "--head", &long]);
    assert!(!whole && shown.contains("too long"), "{shown}");
    // Without the keys of the server nobody knows who signed, so that must be wanted.
    let (whole, shown) = verify(&[&log]);
    assert!(!whole && shown.contains("--jwks"), "{shown}");
    let (whole, shown) = verify(&[&log, "--no-jwks"]);
    assert!(whole && shown.contains("warning") && shown.contains("--head"), "{shown}");
    assert!(fs::read_to_string(&log).expect("a file").contains(&agent.agent_id));
    let other = files.write("other.json", &keys(&server.acme()));
    assert!(!verify(&[&log, "--jwks", &other]).0, "keys of another organization");
}

fn a_tampered_export_is_found_out(server: &Server) {
    let org = server.globex();
    let agent = org.agent(&["read:a"]);
    let early = get(&org, "head");
    // Two entries, so that what is cut off later is a range.
    agent.token();
    agent.token();
    let log = exported(&org, 10_000);
    let files = Files::new();
    let jwks = files.write("jwks.json", &keys(&org));
    let check = |text: &str, more: &[&str]| {
        let log = files.write("log.jsonl", text);
        verify(&[&[log.as_str(), "--jwks", &jwks], more].concat())
    };
    assert!(check(&log, &[]).0);

    let lines: Vec<_> = log.split_inclusive('\n').collect();
    let is_ours = |line: &&str| {
        line.contains(r#"{"type":"entry""#)
            && line.contains("agent.created")
            && line.contains(&agent.agent_id)
    };
    let at = lines.iter().position(is_ours).expect("the entry");
    let seq = serde_json::from_str::<Value>(lines[at]).expect("JSON")["seq"].clone();
    let renamed = log.replace(lines[at], &lines[at].replace("agent.created", "agent.updated"));
    let (whole, shown) = check(&renamed, &[]);
    assert!(!whole && shown.contains(&format!("entry {seq}:")), "{shown}");
    let (whole, shown) = check(&log.replace(lines[at], ""), &[]);
    assert!(!whole && shown.contains(&format!("entry {seq}:")), "{shown}");
    for more in ["", "{}", "not JSON", "\u{0}", "{\"type\":\"entry\"}"] {
        assert!(!check(&format!("{log}{more}\n"), &[]).0, "{more:?}");
    }

    // The end is gone, with the heads about it: only whoever kept one knows.
    let size = number(&early["size"]);
    let last = lines.iter().position(|line| line.starts_with(&format!(r#"{{"type":"entry","seq":{size},"#)));
    let cut: String = lines[..last.expect("an entry") + 2].concat();
    assert!(check(&cut, &[]).0, "a log of its own");
    let head = files.write("head.txt", text(&get(&org, "head")["head"]));
    let (whole, shown) = check(&cut, &["--head", &head]);
    assert!(!whole && shown.contains(&format!("between {}", size + 1)), "{shown}");
    assert!(shown.contains("cut off"), "{shown}");
}

fn the_tree_refuses_what_does_not_exist(server: &Server) {
    let org = server.acme();
    org.agent(&[]);
    let refused = |path: &str, status: u16| {
        org.admin("GET", &format!("/audit-logs/tree/{path}")).send().expect(status).refused_somehow();
    };
    for path in ["inclusion?seq=0", "inclusion?seq=9999999999", "inclusion?seq=1&size=9999999999"] {
        refused(path, 404);
    }
    for path in ["consistency?from=0", "consistency?from=2&to=1", "consistency?from=9999999999"] {
        refused(path, 404);
    }
    for path in ["inclusion", "inclusion?seq=x", "inclusion?seq=-1", "consistency", "checkpoints?after=%00"] {
        refused(path, 400);
    }
    refused("inclusion?seq=99999999999999999999999", 400);
    for path in ["head", "checkpoints", "inclusion?seq=1", "consistency?from=1", "export"] {
        let path = format!("/admin/audit-logs/tree/{path}");
        org.get(&path).send().expect(401);
        org.get(&path).api_key(&org.api_key(&["admin:agents"])).send().expect(403);
        org.get(&path).api_key(&org.api_key(&["admin:audit"])).send().expect(200);
        org.get(&path).api_key(server.globex().key()).send().refused_somehow();
    }
    assert_eq!(
        org.admin("GET", "/audit-logs/tree/export?after=9999999999")
            .send()
            .expect(200)
            .text()
            .lines()
            .count(),
        2
    );
}

fn keys_of_heads_are_no_keys_of_tokens(server: &Server) {
    let org = server.acme();
    let keys = org.get("/.well-known/audit-jwks.json").send().ok();
    let names = |keys: &Value| -> Vec<String> {
        list(&keys["keys"]).iter().map(|key| text(&key["kid"]).to_owned()).collect()
    };
    let tokens = names(&org.get("/.well-known/jwks.json").send().ok());
    assert!(!names(&keys).is_empty() && names(&keys).iter().all(|name| !tokens.contains(name)));
    assert!(list(&keys["keys"]).iter().all(|key| key["alg"] == json!("EdDSA") && key.get("d").is_none()));
    // A head is signed, and still nothing that lets anybody in.
    let head = get(&org, "head");
    org.get("/agents/me").bearer(text(&head["head"])).send().expect(401);
}
