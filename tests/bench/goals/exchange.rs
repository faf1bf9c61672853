//! G4: what a token exchange costs against its signature and the signature checks that it needs.

use std::collections::BTreeMap;

use lumoauth_tests::{CALLBACK, Connection, Request, Stopwatch, percent_encode, text};
use serde_json::{Value, json};

use crate::{
    Options, StoreKind,
    goals::alternate,
    load,
    place::Place,
    report::{Limit, Report, Spread, micros, say},
    target::{Target, token_path},
};

/// How many pairs of tokens an exchange is asked with in turn, so that a server has forgotten a pair when it comes again.
const UNSEEN: usize = 25_000;

/// An agent begins to act for a person: its own token and that of the person are exchanged for one that names both. With
/// tokens that the server has not seen, both signatures are checked; with tokens that it has, none.
pub(crate) fn exchange(options: &Options, report: &mut Report) {
    say("G4: token exchange on the memory store, an agent for a person");
    for (what, pairs, checks) in [("seen before", 1, 0), ("not seen", UNSEEN, 2)] {
        let place = Place::new(StoreKind::Memory);
        let (mut real, body) = exchanging(options, &place, pairs);
        real.name = format!("lumoauth-server, memory, tokens {what}");
        let bare = Target::bare_exchange(real.address, &real.requests[0], &body, checks);
        // A round that begins with what the last one ended with would see tokens again.
        let whole_rounds = Options { requests: options.requests.max(pairs), ..options.clone() };
        let samples = alternate(&whole_rounds, &[&bare, &real]);
        let ratios =
            samples[1].iter().zip(&samples[0]).map(|(real, bare)| micros(real.cpu) / micros(bare.cpu));
        let what = format!("tokens {what}: CPU per exchange / bare axum with {checks} checks");
        report.add("G4", what, Spread::of(ratios), Limit::AtMost(1.2));
    }
}

/// The reference server with exchanges to be asked of it, and the form of one of them.
fn exchanging(options: &Options, place: &Place, pairs: usize) -> (Target, String) {
    let (mut target, variables) = Target::reference_with_variables(options, place);
    let org = Org { authority: target.address.to_string(), variables: &variables };
    let agent = org.agent();
    let alices = org.alices_token(&agent);
    let watch = Stopwatch::start();
    let mut connection = Connection::open(&org.authority).expect("the server accepts");
    let mut token = |request: &Request| {
        let answer = connection.send(request).expect("the server answers").ok();
        text(&answer["access_token"]).to_owned()
    };
    // A token of a person that differs from all others.
    let narrowed = org.token_request(&agent).form(&[
        ("grant_type", GRANT),
        ("subject_token", &alices),
        ("subject_token_type", ACCESS_TOKEN),
        ("scope", "read:documents"),
    ]);
    let own = org.token_request(&agent).form(&[("grant_type", "client_credentials")]);
    let bodies: Vec<String> = (0..pairs).map(|_| form(&token(&narrowed), &token(&own))).collect();
    let path = token_path(org.variable("LUMOAUTH_ORG_ID"));
    target.requests = bodies.iter().map(|body| load::form(target.address, &path, body)).collect();
    say(&format!("  {pairs} pairs of tokens made in {:.1} s", watch.elapsed().as_secs_f64()));
    (target, bodies[0].clone())
}

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// `actor` begins to act for whoever `subject` is of.
fn form(subject: &str, actor: &str) -> String {
    format!(
        "grant_type={GRANT}&subject_token={subject}&subject_token_type={ACCESS_TOKEN}\
         &actor_token={actor}&actor_token_type={ACCESS_TOKEN}"
    )
}

/// The organization with alice in it.
struct Org<'a> {
    authority: String,
    variables: &'a BTreeMap<String, String>,
}

/// A client id and its secret.
type Agent = (String, String);

impl Org<'_> {
    fn variable(&self, name: &str) -> &str {
        self.variables.get(name).unwrap_or_else(|| panic!("no {name}"))
    }

    fn request(&self, method: &str, path: &str) -> Request {
        let org = self.variable("LUMOAUTH_ORG_ID");
        Request::new(&self.authority, method, &format!("/orgs/{org}/api/v1{path}"))
    }

    fn token_request(&self, (id, secret): &Agent) -> Request {
        self.request("POST", "/oauth/token").basic(id, secret)
    }

    /// A new agent without a budget that may act for people.
    fn agent(&self) -> Agent {
        let members = json!({
            "name": "Exchange Load Test",
            "capabilities": ["delegate:on_behalf", "read:documents"],
            "redirectUris": [CALLBACK],
        });
        let request = self.request("POST", "/admin/agents").api_key(self.variable("LUMOAUTH_API_KEY"));
        let made = request.json(members).send().expect(201).json();
        let part = |name: &str| text(&made["data"][name]).to_owned();
        (part("clientId"), part("clientSecret"))
    }

    /// Alice signs in and says yes to `agent`, which redeems the code.
    fn alices_token(&self, agent: &Agent) -> String {
        let person =
            json!({ "email": self.variable("USER_EMAIL"), "password": self.variable("USER_PASSWORD") });
        let signed_in = self.request("POST", "/oauth/login/json").json(person).send();
        signed_in.ok();
        let cookies = signed_in.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
        let cookie = cookies.filter_map(|(_, value)| value.split(';').next()).collect::<Vec<_>>().join("; ");
        let as_alice = |request: Request| -> Value {
            request.header("Accept", "application/json").header("Cookie", &cookie).send().ok()
        };
        let query = [
            ("response_type", "code"),
            ("client_id", &agent.0),
            ("redirect_uri", CALLBACK),
            ("scope", "read:documents"),
            ("state", "s"),
            ("prompt", "consent"),
        ]
        .map(|(name, value)| format!("{name}={}", percent_encode(value)))
        .join("&");
        let challenge = as_alice(self.request("GET", &format!("/oauth/authorize?{query}")));
        let code = as_alice(self.request("POST", "/oauth/authorize").form(&[
            ("challenge_id", text(&challenge["challenge_id"])),
            ("csrf_token", text(&challenge["csrf_token"])),
            ("decision", "approve"),
        ]));
        let redeem = self.token_request(agent).form(&[
            ("grant_type", "authorization_code"),
            ("code", text(&code["code"])),
            ("redirect_uri", CALLBACK),
        ]);
        text(&redeem.send().ok()["access_token"]).to_owned()
    }
}
