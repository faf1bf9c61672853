//! Roles of AWS that prove themselves by a signed request: this server forwards it, and AWS says whose it is.

use lumoauth_tests::{
    Agent, AwsCaller, Backend, Options, Org, Response, Server, Sts, Token, altered, at_once, on_each_backend,
    signature_in, sts_token, text, unique, unix_now,
};
use serde_json::{Value, json};

on_each_backend!(
    role_gets_its_token_by_a_signed_request,
    request_for_another_server_is_refused,
    only_the_hosts_of_aws_are_asked,
    aws_decides_whether_the_signature_is_good,
    caller_must_be_the_role_of_the_account,
    request_works_once,
    request_is_good_for_a_quarter_of_an_hour,
    request_may_ask_for_the_identity_only,
    request_names_an_agent_that_trusts_a_role,
    role_of_one_region_signs_there,
    refusals_say_nothing_and_are_recorded,
);

const SIGNED_REQUEST: &str = "urn:lumoauth:token-type:aws-sts-request";
const HOST: &str = "sts.eu-west-1.amazonaws.com";
const ACCOUNT: &str = "123456789012";

/// An agent that trusts a role, and a session of that role.
struct Role<'a> {
    org: Org<'a>,
    name: String,
    agent: Agent<'a>,
    session: AwsCaller,
}

impl<'a> Role<'a> {
    fn new(server: &'a Server) -> Self {
        Self::in_org(server.acme(), unique("role"))
    }

    fn in_org(org: Org<'a>, name: String) -> Self {
        let agent = trusting(&org, json!({ "roleArn": format!("arn:aws:iam::{ACCOUNT}:role/team/{name}") }));
        let session = issue(&format!("arn:aws:sts::{ACCOUNT}:assumed-role/{name}/i-0abc"));
        Self { org, name, agent, session }
    }

    /// A good request.
    fn request(&self) -> Value {
        self.signed_by(&self.session)
    }

    fn signed_by(&self, session: &AwsCaller) -> Value {
        session.sign(HOST, &self.org.issuer(), just_now())
    }

    /// A good request to another host of AWS: another signature.
    fn elsewhere_by(&self, session: &AwsCaller) -> Value {
        session.sign("sts.amazonaws.com", &self.org.issuer(), just_now())
    }

    fn another_session(&self) -> AwsCaller {
        issue(&format!("arn:aws:sts::{ACCOUNT}:assumed-role/{}/{}", self.name, unique("i")))
    }

    fn present(&self, request: &Value) -> Response {
        present(&self.agent, request)
    }

    #[track_caller]
    fn refused(&self, request: &Value) {
        self.present(request).refused(401, "workload_identity_failed");
    }

    /// Refused, and AWS never heard of it.
    #[track_caller]
    fn not_sent(&self, request: &Value) {
        let asked = self.asked();
        self.refused(request);
        assert_eq!(self.asked(), asked, "it was sent: {request}");
    }

    fn asked(&self) -> u64 {
        Sts::trusted().asked(&self.session)
    }
}

fn issue(arn: &str) -> AwsCaller {
    Sts::trusted().issue(arn)
}

fn just_now() -> i64 {
    unix_now() + 60
}

fn trusting<'a>(org: &Org<'a>, mut trust: Value) -> Agent<'a> {
    trust["provider"] = "aws".into();
    org.create_agent(json!({
        "identityType": "workload_identity", "capabilities": ["read:a", "read:b"], "workloadIdentity": trust,
    }))
}

fn present(agent: &Agent<'_>, request: &Value) -> Response {
    send(&agent.org, &sts_token(request), &[("agent_id", &agent.agent_id)])
}

fn send(org: &Org<'_>, token: &str, more: &[(&str, &str)]) -> Response {
    org.exchange(token, SIGNED_REQUEST, more)
}

fn role_gets_its_token_by_a_signed_request(server: &Server) {
    let role = Role::new(server);
    let body = role.present(&role.request()).ok();
    assert_eq!(role.asked(), 1);
    assert_eq!(body["scope"], "read:a read:b");
    let token = text(&body["access_token"]);
    let claims = Token::parse(token).claims;
    assert_eq!(claims["agent_id"], role.agent.agent_id.as_str());
    assert_eq!(claims["amr"], json!(["workload"]));
    assert!(text(&claims["workload_identity"]).starts_with("aws:"), "{claims}");
    assert_eq!(role.agent.userinfo(token).ok()["agent_id"], role.agent.agent_id.as_str());
    // By the client id as well, for less, and by the global host.
    let global = role.session.sign("sts.amazonaws.com", &role.org.issuer(), just_now());
    let more = [("client_id", role.agent.client_id.as_str()), ("scope", "read:b")];
    assert_eq!(send(&role.org, &sts_token(&global), &more).ok()["scope"], "read:b");
    let rows = role.org.audit(&format!("action=agent.authenticated&actor={}", role.agent.agent_id));
    assert!(rows.iter().any(|row| row["authMethod"] == "workload_identity"), "{rows:?}");
}

fn request_for_another_server_is_refused(server: &Server) {
    let role = Role::new(server);
    // Whoever got a request that was made for another server cannot use it here...
    for other in [server.globex().issuer(), "https://vault.example".to_owned(), server.url()] {
        role.not_sent(&role.session.sign(HOST, &other, just_now()));
    }
    // ...nor one that was made for this server elsewhere, though the same role is trusted there.
    let there = Role::in_org(server.globex(), role.name.clone());
    let request = role.request();
    let asked = role.asked();
    present(&there.agent, &request).refused(401, "workload_identity_failed");
    assert_eq!(role.asked(), asked);
    // The header belongs to the signature: another name in it, and AWS refuses.
    let elsewhere = role.session.sign(HOST, "https://vault.example", just_now());
    let renamed = altered(&elsewhere, "/headers/x-lumoauth-server-id", Some(&role.org.issuer()));
    role.refused(&renamed);
    assert_eq!(role.asked(), asked + 1, "AWS was asked");
    // Without it, or with one that is not signed, nothing is sent.
    role.not_sent(&altered(&request, "/headers/x-lumoauth-server-id", None));
    let authorization = text(&request["headers"]["authorization"]).replace(";x-lumoauth-server-id", "");
    role.not_sent(&altered(&request, "/headers/authorization", Some(&authorization)));
    role.present(&request).ok();
}

fn only_the_hosts_of_aws_are_asked(server: &Server) {
    let role = Role::new(server);
    let own = Sts::trusted().authority();
    for host in [
        // What answers there is the service itself, and this server may reach and trusts it.
        own.as_str(),
        "localhost",
        "127.0.0.1",
        "sts.eu-west-1.amazonaws.com.evil.test",
        "sts.eu-west-1.amazonaws.com:443",
        "sts.eu-west-1.amazonaws.com.",
        "STS.eu-west-1.amazonaws.com",
        "user@sts.eu-west-1.amazonaws.com",
        "iam.amazonaws.com",
        "evil.test",
    ] {
        role.not_sent(&role.session.sign(host, &role.org.issuer(), just_now()));
        // The same under the name of a good host.
        role.not_sent(&altered(&role.request(), "/url", Some(&format!("https://{host}/"))));
    }
    for url in [
        "http://sts.eu-west-1.amazonaws.com/",
        "https://sts.eu-west-1.amazonaws.com",
        "https://sts.eu-west-1.amazonaws.com//",
        "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity",
        "https://sts.eu-west-1.amazonaws.com/#x",
        "https://sts.eu-central-1.amazonaws.com/",
    ] {
        role.not_sent(&altered(&role.request(), "/url", Some(url)));
    }
    role.present(&role.elsewhere_by(&role.another_session())).ok();
}

fn aws_decides_whether_the_signature_is_good(server: &Server) {
    let role = Role::new(server);
    // Each with credentials of its own, so that none is a replay of another.
    let attempts: [fn(&Role<'_>, &AwsCaller) -> Value; 6] = [
        |role, session| role.signed_by(&session.guessing()),
        |role, session| role.signed_by(&session.without_session()),
        |role, session| {
            let request = role.signed_by(session);
            let signature = signature_in(&request);
            let turned: String = signature.chars().rev().collect();
            let forged = text(&request["headers"]["authorization"]).replace(signature, &turned);
            altered(&request, "/headers/authorization", Some(&forged))
        },
        // What was signed is as it was, also where another text would do.
        |role, session| {
            let body = "Version=2011-06-15&Action=GetCallerIdentity";
            altered(&role.signed_by(session), "/body", Some(body))
        },
        |role, session| {
            let plain = "application/x-www-form-urlencoded";
            altered(&role.signed_by(session), "/headers/content-type", Some(plain))
        },
        |role, session| altered(&role.signed_by(session), "/headers/x-amz-security-token", Some("x")),
    ];
    for (n, attempt) in attempts.iter().enumerate() {
        let session = role.another_session();
        role.refused(&attempt(&role, &session));
        assert_eq!(Sts::trusted().asked(&session), 1, "AWS was asked about {n}");
        role.present(&role.elsewhere_by(&session)).ok();
    }
}

fn caller_must_be_the_role_of_the_account(server: &Server) {
    let role = Role::new(server);
    let name = &role.name;
    for arn in [
        format!("arn:aws:sts::999999999999:assumed-role/{name}/i-0abc"),
        format!("arn:aws:sts::{ACCOUNT}:assumed-role/{name}x/i-0abc"),
        format!("arn:aws:sts::{ACCOUNT}:assumed-role/x/{name}"),
        format!("arn:aws:sts::{ACCOUNT}:assumed-role/x/{name}/i-0abc"),
        format!("arn:aws:sts::{ACCOUNT}:assumed-role/{}/i-0abc", name.to_uppercase()),
        format!("arn:aws:sts::{ACCOUNT}:federated-user/{name}"),
        format!("arn:aws:iam::{ACCOUNT}:user/{name}"),
        format!("arn:aws:iam::{ACCOUNT}:role/{name}"),
        format!("arn:aws-cn:sts::{ACCOUNT}:assumed-role/{name}/i-0abc"),
        format!("arn:aws:iam::{ACCOUNT}:root"),
    ] {
        let other = issue(&arn);
        role.refused(&other.sign(HOST, &role.org.issuer(), just_now()));
        assert_eq!(Sts::trusted().asked(&other), 1, "{arn}");
    }
    // Any session of the role is it.
    let other = issue(&format!("arn:aws:sts::{ACCOUNT}:assumed-role/{name}/another@session"));
    role.present(&other.sign(HOST, &role.org.issuer(), just_now())).ok();
}

fn request_works_once(server: &Server) {
    let role = Role::new(server);
    let request = role.request();
    role.present(&request).ok();
    role.not_sent(&request);
    // In another order of the members it is the same request.
    let text = format!(
        r#"{{"url":{},"method":"POST","headers":{},"body":{}}}"#,
        request["url"], request["headers"], request["body"]
    );
    let again = send(&role.org, &lumoauth_tests::b64(&text), &[("agent_id", &role.agent.agent_id)]);
    again.refused(401, "workload_identity_failed");
    let upper = text.replace("x-amz-date", "X-Amz-Date");
    send(&role.org, &lumoauth_tests::b64(&upper), &[("agent_id", &role.agent.agent_id)])
        .refused(401, "workload_identity_failed");
    assert_eq!(role.asked(), 1);
    // Of many at once one is sent.
    let request = role.elsewhere_by(&role.session);
    let answers = at_once(16, |_| role.present(&request));
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    for answer in lost {
        answer.refused(401, "workload_identity_failed");
    }
    assert_eq!(won.len(), 1);
    assert_eq!(role.asked(), 2);
}

fn request_is_good_for_a_quarter_of_an_hour(server: &Server) {
    let role = Role::new(server);
    let signed = |at: i64| role.session.sign(HOST, &role.org.issuer(), at);
    for at in [unix_now() - 901, unix_now() - 86_400, unix_now() + 75, unix_now() + 86_400] {
        role.not_sent(&signed(at));
    }
    // A date that was changed afterwards is another request, and not a signed one.
    let old = signed(unix_now() - 3600);
    let fresh = signed(just_now());
    role.refused(&altered(&old, "/headers/x-amz-date", Some(text(&fresh["headers"]["x-amz-date"]))));
    role.present(&fresh).ok();
}

fn request_may_ask_for_the_identity_only(server: &Server) {
    let role = Role::new(server);
    for body in [
        "Action=GetSessionToken&Version=2011-06-15",
        "Action=GetCallerIdentity&Version=2011-06-15&Action=GetSessionToken",
        "action=GetCallerIdentity&Version=2011-06-15",
        "Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Date=1",
        "",
    ] {
        role.not_sent(&altered(&role.request(), "/body", Some(body)));
    }
    role.not_sent(&altered(&role.request(), "/method", Some("GET")));
    for (header, value) in [("x-forwarded-host", "evil.test"), ("accept", "text/xml"), ("Host", HOST)] {
        role.not_sent(&altered(&role.request(), &format!("/headers/{header}"), Some(value)));
    }
    // A list of values, members that nobody knows, and what is no request at all.
    let mut listed = role.request();
    listed["headers"]["host"] = json!([HOST]);
    role.not_sent(&listed);
    role.not_sent(&altered(&role.request(), "/proxy", Some("http://evil.test")));
    let named = [("agent_id", &*role.agent.agent_id)];
    for junk in ["x", "e30", "W10", &"A".repeat(40_000)] {
        send(&role.org, junk, &named).refused(401, "workload_identity_failed");
    }
    send(&role.org, "", &named).refused(400, "invalid_request");
    role.present(&role.elsewhere_by(&role.another_session())).ok();
}

fn request_names_an_agent_that_trusts_a_role(server: &Server) {
    let role = Role::new(server);
    let request = role.request();
    let token = sts_token(&request);
    send(&role.org, &token, &[]).refused(400, "invalid_request");
    let plain = role.org.agent(&["read:a"]);
    let web = trusting(
        &role.org,
        json!({ "roleArn": format!("arn:aws:iam::{ACCOUNT}:role/{}", role.name), "issuer": "https://oidc.test",
                "audience": "lumo" }),
    );
    let nobody = "agt_00000000000000000000000000000000";
    for agent in [plain.agent_id.as_str(), &web.agent_id, nobody, "x"] {
        send(&role.org, &token, &[("agent_id", agent)]).refused(401, "workload_identity_failed");
    }
    let both = [("agent_id", role.agent.agent_id.as_str()), ("client_id", &plain.client_id)];
    send(&role.org, &token, &both).refused(401, "workload_identity_failed");
    assert_eq!(role.asked(), 0);
    role.agent.admin("POST", "/disable").send().ok();
    role.refused(&request);
    role.agent.admin("POST", "/enable").send().ok();
}

fn role_of_one_region_signs_there(server: &Server) {
    let role = Role::new(server);
    let trust = json!({
        "roleArn": format!("arn:aws:iam::{ACCOUNT}:role/{}", role.name), "region": "eu-central-1",
    });
    let agent = trusting(&role.org, trust);
    let signed = |host: &str| role.session.sign(host, &role.org.issuer(), just_now());
    for other in [HOST, "sts.amazonaws.com"] {
        present(&agent, &signed(other)).refused(401, "workload_identity_failed");
    }
    assert_eq!(role.asked(), 0);
    present(&agent, &signed("sts.eu-central-1.amazonaws.com")).ok();
    // Of another partition nobody is asked.
    let chinese =
        trusting(&role.org, json!({ "roleArn": format!("arn:aws-cn:iam::{ACCOUNT}:role/{}", role.name) }));
    present(&chinese, &signed(HOST)).refused(401, "workload_identity_failed");
    assert_eq!(role.asked(), 1);
}

fn refusals_say_nothing_and_are_recorded(server: &Server) {
    let role = Role::new(server);
    let other = issue(&format!("arn:aws:sts::999999999999:assumed-role/{}/i-0abc", role.name));
    let issuer = role.org.issuer();
    let answers = [
        role.present(&other.sign(HOST, &issuer, just_now())),
        role.present(&role.session.guessing().sign(HOST, &issuer, just_now())),
        role.present(&role.session.sign("evil.test", &issuer, just_now())),
        role.present(&role.session.sign(HOST, "https://vault.example", just_now())),
        send(&role.org, &sts_token(&role.request()), &[("agent_id", "agt_00000000000000000000000000000000")]),
    ];
    for answer in &answers {
        answer.refused(401, "workload_identity_failed");
        assert_eq!(answer.text(), answers[0].text());
    }
    let request = role.request();
    role.present(&request).ok();
    let rows = role.org.audit(&format!("action=agent.authenticated&targetId={}", role.agent.agent_id));
    let count = |status: &str| rows.iter().filter(|row| row["status"] == status).count();
    // Which agent a request is about is known once it is read; the other refusals are entries without one.
    assert_eq!((count("failure"), count("success")), (2, 1), "{rows:?}");
    let rows = json!(rows).to_string();
    let log = server.log();
    for secret in [signature_in(&request), text(&request["headers"]["x-amz-security-token"])] {
        assert!(!rows.contains(secret) && !log.contains(secret), "it is in the log");
    }
}

/// Before an organization is there, nothing can have been presented to it: a request that was signed a moment before is taken
/// on every store. What a memory refuses that was lost since, the tests of the stores show.
#[test]
fn request_may_be_older_than_the_server() {
    for backend in Backend::ALL {
        let server = Server::start(&Options::new(backend).knowing_our_sites());
        let role = Role::in_org(server.acme(), unique("role"));
        role.present(&role.session.sign(HOST, &role.org.issuer(), unix_now() - 30)).ok();
    }
}

/// A certificate counts also at an address that the operator gave.
#[test]
fn service_without_a_trusted_certificate_is_not_asked() {
    // The same addresses, and no trust in their certificate.
    let origins = Sts::trusted().origins();
    let options = origins.fold(Options::new(Backend::Embedded), |options, origin| {
        options.argument("--fetch-allow").argument(&origin)
    });
    let server = Server::start(&options);
    let role = Role::in_org(server.acme(), unique("role"));
    role.not_sent(&role.session.sign(HOST, &role.org.issuer(), unix_now()));
}
