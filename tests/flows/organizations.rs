//! Two organizations on one server never meet (architecture decision 1), and a durable store keeps everything.

use std::os::unix::fs::PermissionsExt;

use lumoauth_tests::{Backend, Options, Server, on_each_backend, text, unique};
use serde_json::json;

on_each_backend!(
    equal_names_in_two_organizations_stay_apart,
    no_id_of_one_organization_exists_in_the_other,
    client_ids_do_not_reach_across,
    budgets_do_not_reach_across,
);

fn equal_names_in_two_organizations_stay_apart(server: &Server) {
    let slug = unique("same");
    let ours = server.acme().create_agent(json!({ "slug": slug, "capabilities": ["read:ours"] }));
    let theirs = server.globex().create_agent(json!({ "slug": slug, "capabilities": ["read:theirs"] }));
    let (a, b) = (ours.token(), theirs.token());
    assert_eq!(ours.userinfo(&a).ok()["organization"], "acme-corp");
    assert_eq!(theirs.userinfo(&b).ok()["organization"], server.globex().slug());
    for response in [ours.userinfo(&b), theirs.userinfo(&a)] {
        assert!(matches!(response.status, 401 | 403), "{response}");
    }
}

fn no_id_of_one_organization_exists_in_the_other(server: &Server) {
    let theirs = server.globex().agent(&["read:a"]);
    let mcp = server.globex().mcp_server(json!({}));
    let acme = server.acme();
    for id in [&theirs.agent_id, &theirs.id, &theirs.slug] {
        for (method, path) in [
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/deactivate"),
            ("POST", "/revoke"),
            ("POST", "/rotate-credentials"),
            ("POST", "/token"),
            ("GET", "/budget"),
            ("POST", "/budget/reset"),
        ] {
            let response = acme.admin(method, &format!("/agents/{id}{path}")).send();
            // 404, not 403: whether it exists elsewhere is nobody's business here.
            assert_eq!(response.status, 404, "{method} {id}{path}: {response}");
        }
    }
    for method in ["GET", "DELETE"] {
        let path = format!("/mcp/servers/{}", text(&mcp["server_id"]));
        assert_eq!(acme.admin(method, &path).send().status, 404);
    }
    theirs.token();
}

fn client_ids_do_not_reach_across(server: &Server) {
    let id = unique("cli");
    let ours = server.acme().create_agent(json!({ "clientId": id, "capabilities": ["read:a"] }));
    let response =
        server.globex().admin("POST", "/agents").json(json!({ "name": unique("x"), "clientId": id })).send();
    assert!(matches!(response.status, 201 | 409), "{response}");
    assert_eq!(ours.userinfo(&ours.token()).ok()["organization"], "acme-corp");
}

fn budgets_do_not_reach_across(server: &Server) {
    lumoauth_tests::avoid_hour_edge();
    let slug = unique("same");
    let make =
        json!({ "slug": slug, "capabilities": ["read:a"], "budgetPolicy": { "max_api_calls_per_hour": 1 } });
    let (ours, theirs) = (server.acme().create_agent(make.clone()), server.globex().create_agent(make));
    let (a, b) = (ours.token(), theirs.token());
    ours.ask(&a, "read:a").ok();
    theirs.ask(&b, "read:a").ok();
    ours.ask(&a, "read:a").refused(429, "budget_exceeded");
}

#[test]
fn restart_on_the_embedded_store_keeps_credentials_tokens_and_uses() {
    assert_a_restart_keeps_everything(Backend::Embedded);
}

#[test]
fn restart_on_postgres_keeps_credentials_tokens_and_uses() {
    assert_a_restart_keeps_everything(Backend::Postgres);
}

#[test]
fn restart_on_postgres_with_redis_keeps_credentials_tokens_and_uses() {
    assert_a_restart_keeps_everything(Backend::PostgresRedis);
}

fn assert_a_restart_keeps_everything(backend: Backend) {
    let dir = std::env::temp_dir().join(unique("lumoauth-restart"));
    let options = Options::new(backend).dir(&dir);
    let first = Server::start(&options);
    let policy = json!({ "max_tokens_per_day": 1000 });
    let agent = first.acme().create_agent(json!({ "capabilities": ["read:a"], "budgetPolicy": policy }));
    let token = agent.token();
    first.acme().post("/agents/me/usage").bearer(&token).json(json!({ "tokens": 7 })).send().ok();
    let (before, address) = (first.variables().clone(), first.authority().to_owned());
    let (id, secret, agent_id) = (agent.client_id.clone(), agent.secret.clone(), agent.agent_id.clone());
    assert_eq!(first.terminate(), Some(0), "SIGTERM drains and exits 0");

    let second = Server::start(&options.listen(&address));

    assert_eq!(second.variables(), &before, "the same credentials stay valid");
    let org = second.acme();
    let form = [("grant_type", "client_credentials"), ("client_id", &*id), ("client_secret", &*secret)];
    org.post("/oauth/token").form(&form).send().ok();
    let info = org.get("/oauth/userinfo").bearer(&token).send().ok();
    assert_eq!(
        (&info["agent_id"], &info["budget_policy"]["tokens_used_today"]),
        (&json!(agent_id), &json!(7))
    );
    assert_eq!(org.audit(&format!("targetId={agent_id}&action=agent.created")).len(), 1);
    drop(second);
    std::fs::remove_dir_all(&dir).expect("the directory can go");
}

#[test]
fn dev_keeps_its_secrets_in_files_only_the_owner_can_read() {
    for backend in Backend::DURABLE {
        let server = Server::start(&Options::new(backend));
        let secrets =
            ["LUMOAUTH_API_KEY", "AGENT_CLIENT_SECRET"].map(|name| server.variable(name).to_owned());
        let (mut folders, mut private) = (vec![server.dir().to_owned()], 0);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a directory") {
                let path = entry.expect("an entry").path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                // The log is the harness's own file, and dev prints its exports there.
                if name == "server.log" {
                    continue;
                }
                let bytes = std::fs::read(&path).expect("a file");
                let holds =
                    |secret: &String| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                if secrets.iter().any(holds) {
                    let mode = path.metadata().expect("metadata").permissions().mode() & 0o077;
                    assert_eq!(mode, 0, "{name} of {backend:?}");
                    assert_ne!(name, "data", "the store holds hashes only");
                    private += 1;
                }
            }
        }
        assert!(private > 0, "{backend:?} keeps its credentials somewhere");
    }
}
