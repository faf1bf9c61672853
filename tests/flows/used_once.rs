//! What may be used once is used once on all replicas together: assertions of clients, signed requests of AWS, and
//! proofs of keys.

use std::{fs, iter, thread, time::Duration};

use lumoauth_tests::{
    Agent, AttackerKey, Backend, DpopKey, KeySite, Org, Response, ServeOptions, Server, Sts, sts_token, text,
    unique, unix_now,
};
use serde_json::json;

/// How often two replicas get the same thing at the same time.
const ROUNDS: usize = 20;

/// Two replicas, of which each is sent the same by four clients at once.
struct Replicas([Server; 2]);

impl Replicas {
    /// How many of them accepted it.
    #[track_caller]
    fn accepted(&self, send: impl Fn(&Server) -> Response + Sync) -> usize {
        thread::scope(|scope| {
            let send = &send;
            let servers = self.0.iter().flat_map(|server| iter::repeat_n(server, 4));
            let calls: Vec<_> = servers.map(|server| scope.spawn(move || send(server))).collect();
            let answers = calls.into_iter().map(|call| call.join().expect("an answer"));
            // Each of the others is refused for what it is, and none fails.
            answers.filter(|answer| answer.status == 200 || !answer.refused_somehow().is_object()).count()
        })
    }
}

#[test]
fn assertions_signed_requests_and_proofs_are_used_once_on_all_replicas() {
    for backend in Backend::SHARED {
        let first = ServeOptions::new().on(backend).line("rate_limits = false").knowing_our_sites();
        let options = [first.replica(), first];
        options[1].migrate();
        let replicas = Replicas([&options[1], &options[0]].map(Server::serve));
        let [a, b] = &replicas.0;
        // A memory in Redis must be older than what whole seconds lose.
        b.wait_until_up_for(Duration::from_millis(1500));
        assertions(&a.acme(), &replicas);
        signed_requests(&a.acme(), &replicas);
        proofs(&a.acme(), &replicas);
        for server in replicas.0 {
            assert!(!server.log().contains("panicked"), "{}", server.log());
            assert_eq!(server.terminate(), Some(0));
        }
        for options in options {
            fs::remove_dir_all(options.dir()).expect("the directory can go");
        }
    }
}

fn assertions(org: &Org<'_>, replicas: &Replicas) {
    let (page, key) = (KeySite::trusted().page(), AttackerKey::generate());
    page.publish(&[("k1", &key)]);
    let agent = org.create_agent(json!({ "capabilities": ["read:a"], "jwksUri": page.uri() }));
    for round in 0..ROUNDS {
        let claims = json!({
            "iss": agent.client_id, "sub": agent.client_id, "aud": org.issuer(), "jti": unique("jti"),
            "exp": unix_now() + 300,
        });
        let assertion = key.sign(&json!({ "alg": "ES256", "kid": "k1" }), &claims);
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &*assertion),
        ];
        let once = replicas.accepted(|server| at(&agent, server).post("/oauth/token").form(&fields).send());
        assert_eq!(once, 1, "round {round}");
    }
}

fn signed_requests(org: &Org<'_>, replicas: &Replicas) {
    let name = unique("role");
    let trust = json!({ "provider": "aws", "roleArn": format!("arn:aws:iam::123456789012:role/{name}") });
    let agent = org.create_agent(json!({
        "identityType": "workload_identity", "capabilities": ["read:a"], "workloadIdentity": trust,
    }));
    for round in 0..ROUNDS {
        let session = Sts::trusted().issue(&format!("arn:aws:sts::123456789012:assumed-role/{name}/i"));
        let request = session.sign("sts.amazonaws.com", &org.issuer(), unix_now() + 60);
        let token = sts_token(&request);
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", &*token),
            ("subject_token_type", "urn:lumoauth:token-type:aws-sts-request"),
            ("agent_id", &*agent.agent_id),
        ];
        let once = replicas.accepted(|server| at(&agent, server).post("/oauth/token").form(&fields).send());
        assert_eq!((once, Sts::trusted().asked(&session)), (1, 1), "round {round}");
    }
}

fn proofs(org: &Org<'_>, replicas: &Replicas) {
    let (agent, key) = (org.agent(&["read:a"]), DpopKey::for_server(&replicas.0[1]));
    for round in 0..ROUNDS {
        let proof = key.proof("POST", &format!("{}/oauth/token", org.issuer()), None);
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", &*agent.client_id),
            ("client_secret", &*agent.secret),
        ];
        let once = replicas.accepted(|server| {
            at(&agent, server).post("/oauth/token").header("DPoP", &proof).form(&fields).send()
        });
        assert_eq!(once, 1, "round {round}");
    }
    let proof = key.proof("POST", &format!("{}/oauth/token", org.issuer()), None);
    let answer = agent.token_request(&agent.secret, &[]).header("DPoP", &proof).send().ok();
    let (token, url) = (text(&answer["access_token"]), format!("{}/oauth/userinfo", org.issuer()));
    for round in 0..ROUNDS {
        let proof = key.proof("GET", &url, Some(token));
        let once =
            replicas.accepted(|server| at(&agent, server).get("/oauth/userinfo").dpop(token, &proof).send());
        assert_eq!(once, 1, "round {round}");
    }
}

/// The agent's organization at another replica.
fn at<'a>(agent: &Agent<'_>, server: &'a Server) -> Org<'a> {
    agent.at(server).org
}
