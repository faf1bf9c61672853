//! Whoever tries another organization is in the log of both (security AU-04), and gets nothing.

use lumoauth_tests::{ACCESS_TOKEN, DpopKey, EXCHANGE, Org, Request, Server, on_each_backend, text, unique};
use serde_json::{Value, json};

on_each_backend!(
    credential_at_a_door_of_another_organization_is_in_both_logs,
    token_of_another_organization_in_an_exchange_is_in_both_logs,
    what_proves_nobody_is_in_no_other_log,
);

/// The failures that a request with this name left in the log of `org`.
fn failures(org: &Org<'_>, mark: &str) -> Vec<Value> {
    let mut rows = org.audit("status=failure");
    rows.retain(|row| row["userAgent"] == mark);
    rows
}

/// Both organizations have one entry that says who tried which.
fn assert_in_both(what: &str, mark: &str, actor: &str, visited: &Org<'_>, home: &Org<'_>) {
    for org in [visited, home] {
        let rows: Vec<_> = failures(org, mark)
            .into_iter()
            .filter(|row| row["message"] == "tried another organization")
            .collect();
        let [row] = rows.as_slice() else { panic!("{what}, in the log of {}: {rows:?}", org.slug()) };
        assert_eq!((&row["targetType"], &row["targetId"]), (&json!("organization"), &json!(visited.slug())));
        assert_eq!((&row["actorId"], &row["ipAddress"]), (&json!(actor), &json!("127.0.0.1")), "{what}");
        let row = org.admin("GET", &format!("/audit-logs/{}", row["id"])).send().ok();
        assert!(row.to_string().contains(&format!(r#""home":"{}""#, home.slug())), "{row}");
    }
}

fn credential_at_a_door_of_another_organization_is_in_both_logs(server: &Server) {
    let (home, visited) = (server.acme(), server.globex());
    let agent = home.create_agent(json!({ "identityType": "api_key", "capabilities": ["read:a"] }));
    let person = home.person_with(json!({ "isAdmin": true }));
    let (own, in_person) = (home.agent(&["read:a"]), person.in_person("openid jit:approve"));
    let key = home.admin("GET", "/api-keys").send().ok();
    assert!(key["data"].is_array(), "{key}");
    let token = own.token();
    let doors = || {
        let get = |path: &str| visited.get(path);
        let post =
            |path: &str| visited.post(path).json(json!({ "action": "read:a", "permission": "read:a" }));
        [
            ("me", get("/agents/me")),
            ("userinfo", get("/oauth/userinfo")),
            ("ask", post("/agents/ask")),
            ("check", post("/authz/check")),
            ("task", post("/jit/task")),
            ("permissions", get("/jit/pending")),
            ("approvals", get("/approvals/pending")),
            ("relations", post("/zanzibar/check")),
            ("roles", visited.request("GET", "/admin/roles")),
            ("agents", visited.request("GET", "/admin/agents")),
            ("log", visited.request("GET", "/admin/audit-logs/tree/export")),
        ]
    };
    type Holder<'a> = (&'a str, Box<dyn Fn(Request) -> Request + 'a>, String);
    let holders: Vec<Holder<'_>> = vec![
        ("agent key", Box::new(|it: Request| it.bearer(&agent.api_key)), agent.agent_id.clone()),
        ("agent", Box::new(|it: Request| it.bearer(&token)), own.agent_id.clone()),
        ("person", Box::new(|it: Request| it.bearer(&in_person)), person.id.clone()),
    ];
    for (who, with, actor) in &holders {
        for (door, request) in doors() {
            let mark = unique("mark");
            let answer = with(request).header("User-Agent", &mark).send();
            // Not 401: they are known, and that is why it is in both logs.
            assert_eq!(answer.status, 403, "{who} at {door}: {answer}");
            answer.refused_somehow();
            assert_in_both(&format!("{who} at {door}"), &mark, actor, &visited, &home);
        }
    }
    // The administrator's key, at the doors of administrators.
    let mark = unique("mark");
    let request = visited.request("GET", "/admin/audit-logs").api_key(home.key());
    request.header("User-Agent", &mark).send().refused(403, "forbidden");
    let rows = failures(&home, &mark);
    assert_in_both("key", &mark, text(&rows[0]["actorId"]), &visited, &home);
}

fn token_of_another_organization_in_an_exchange_is_in_both_logs(server: &Server) {
    let (home, visited) = (server.acme(), server.globex());
    let (stranger, local) = (home.delegate(&["read:a"]), visited.agent(&["read:a"]));
    let (theirs, ours) = (stranger.token(), local.token());
    let mcp = visited.mcp_server(json!({}));
    let resource = text(&mcp["resource_uri"]);
    for (what, subject, actor, code) in [
        ("subject", &theirs, None, "invalid_grant"),
        ("actor", &ours, Some(&theirs), "invalid_grant"),
        ("subject of ours", &theirs, Some(&ours), "invalid_grant"),
        // One token is one attempt.
        ("both at once", &theirs, Some(&theirs), "invalid_request"),
    ] {
        let mut form = vec![
            ("grant_type", EXCHANGE),
            ("subject_token", subject),
            ("subject_token_type", ACCESS_TOKEN),
            ("resource", resource),
        ];
        if let Some(actor) = actor {
            form.extend([("actor_token", actor.as_str()), ("actor_token_type", ACCESS_TOKEN)]);
        }
        let mark = unique("mark");
        let request = visited.post("/oauth/token").form(&form).header("User-Agent", &mark);
        request.send().refused(400, code);
        assert_in_both(what, &mark, &stranger.agent_id, &visited, &home);
        // The refusal itself is for the organization that refused.
        assert_eq!(failures(&visited, &mark).len(), 2, "{what}");
        assert_eq!(failures(&home, &mark).len(), 1, "{what}");
    }
}

fn what_proves_nobody_is_in_no_other_log(server: &Server) {
    let (home, visited) = (server.acme(), server.globex());
    let agent = home.agent(&["read:a"]);
    let token = agent.token();
    let (signed, signature) = token.rsplit_once('.').expect("a JWS");
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    let revoked = agent.token();
    home.post("/oauth/revoke").basic(&agent.client_id, &agent.secret).form(&[("token", &revoked)]).send();
    // What is bound to a key is nobody's word without it.
    let (key, url) = (DpopKey::generate(), format!("{}/oauth/token", home.issuer()));
    let bound =
        agent.token_request(&agent.secret, &[]).header("DPoP", &key.proof("POST", &url, None)).send().ok();
    let bound = text(&bound["access_token"]).to_owned();
    for bad in [forged.as_str(), &revoked, &bound, "nonsense"] {
        let mark = unique("mark");
        visited.get("/agents/me").bearer(bad).header("User-Agent", &mark).send().expect(401);
        let form = [("grant_type", EXCHANGE), ("subject_token", bad), ("subject_token_type", ACCESS_TOKEN)];
        let answer = visited.post("/oauth/token").form(&form).header("User-Agent", &mark).send();
        assert_eq!(answer.status, 400, "{answer}");
        assert!(failures(&home, &mark).is_empty(), "{bad}");
        assert!(failures(&visited, &mark).iter().all(|row| row["message"] != "tried another organization"));
    }
}
