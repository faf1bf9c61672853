//! The page where people see what agents ask them, and decide it. It works on a phone and without scripts.
//!
//! 1. Looking decides nothing: only the form does, and only with the token of the session that it was shown in.
//! 2. A form carries the hash of what was shown. What was decided is that, or nothing.
//! 3. Everything is shown, however long, and nothing that an agent wrote is anything but text. What cannot be seen, or turns
//!    the text around it, is shown as a replacement character.

use std::{fmt::Write, num::NonZero};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use lumoauth_core::{
    approval::{Approval, Impact},
    audit::{Actor, ActorKind},
    clock::Timestamp,
    id::UserId,
    jit::{ActionHash, JitRequest, RiskLevel},
    organization::Organization,
    server::{ApiError, ApprovalDecisionRequest, Caller, JitApproval, JitDenial, RequestFacts, Reviewer},
    store::Page,
    user::User,
    wire::Params,
};
use lumoauth_tower::pages::{escaped, page};
use serde_json::Value;

use super::{
    Accounts,
    door::{Visit, is_form, see_other, whole},
    page::notice,
};

/// How many of each sort are on a page; what ends first is at the top.
const SHOWN: u32 = 25;

/// The number of the first page.
const FIRST: NonZero<u32> = NonZero::<u32>::MIN;

/// Who is there: the person, and what their forms must send along.
struct There {
    reviewer: Reviewer,
    csrf: String,
}

impl Accounts {
    /// GET: what waits for the person.
    pub(super) async fn show_waiting(
        &self,
        organization: &Organization,
        visit: &Visit,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let here = self.site.url(&organization.id, "approvals");
        let Some(there) = self.there(organization, visit, "GET").await? else {
            let back: String = url::form_urlencoded::byte_serialize(here.as_bytes()).collect();
            let login = self.site.url(&organization.id, "login");
            return Ok(see_other(&format!("{login}?return_to={back}")));
        };
        let query = visit.uri.query().unwrap_or_default();
        let done = match query {
            "done=approved" => Some("Approved."),
            "done=denied" => Some("Denied."),
            _ => None,
        };
        let page = query.strip_prefix("page=").and_then(|page| page.parse().ok()).unwrap_or(FIRST);
        self.waiting(organization, &there, page, StatusCode::OK, done).await
    }

    /// POST: the person decides one of them.
    pub(super) async fn decide_waiting(
        &self,
        organization: &Organization,
        visit: &Visit,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let refused = |status, text| Ok(whole(notice(status, "This did not work", text)));
        if self.site.is_from_elsewhere(&visit.uri, &visit.headers) {
            return refused(StatusCode::FORBIDDEN, "Pages of other sites decide nothing.");
        }
        let Some(there) = self.there(organization, visit, "POST").await? else {
            return refused(StatusCode::FORBIDDEN, "Nobody is signed in. Sign in and decide again.");
        };
        let params = is_form(&visit.headers).then(|| Params::from_form(&visit.body).ok()).flatten();
        let Some(params) = params else {
            return refused(StatusCode::BAD_REQUEST, "The form cannot be read.");
        };
        let of = |name| params.get(name).unwrap_or_default();
        if !self.cookies.accepts_decision(&organization.id, &visit.headers, of("csrf_token")) {
            let text = "This page was open for too long. Please look again and decide then.";
            return refused(StatusCode::FORBIDDEN, text);
        }
        let approve = match of("decision") {
            "approve" => true,
            "deny" => false,
            _ => return refused(StatusCode::BAD_REQUEST, "The form says neither yes nor no."),
        };
        // What was shown must be named, here: the routes of programs do without.
        if of("action_hash").is_empty() {
            return refused(StatusCode::BAD_REQUEST, "The form does not say what was shown.");
        }
        let caller = Caller::new(actor(there.reviewer.user()), visit.origin.clone());
        let decided = match of("kind") {
            "approval" => self.decide_approval(&there, &params, approve, &caller).await,
            "permission" => self.decide_permission(&there, &params, approve, &caller).await,
            _ => return refused(StatusCode::BAD_REQUEST, "The form does not say what it is about."),
        };
        match decided {
            Ok(()) => {
                let done = if approve { "approved" } else { "denied" };
                Ok(see_other(&format!("{}?done={done}", self.site.url(&organization.id, "approvals"))))
            }
            Err(error) if error.is_outage() => Err(error),
            Err(error) => {
                let wire = error.to_wire();
                // Whoever says it twice has said it once.
                let rest = if wire.status == StatusCode::CONFLICT { "" } else { " Nothing was decided." };
                let text = format!("{}{rest}", wire.description);
                self.waiting(organization, &there, FIRST, wire.status, Some(&text)).await
            }
        }
    }

    async fn decide_approval(
        &self,
        there: &There,
        params: &Params,
        approve: bool,
        caller: &Caller,
    ) -> Result<(), ApiError> {
        let of = |name| params.get(name).unwrap_or_default();
        let approval = self.server.approval(&there.reviewer, of("id")).await?;
        check_second_look(approve && approval.impact == Impact::Critical, params)?;
        let mut request = ApprovalDecisionRequest::default();
        request.note = params.get("message").map(ToOwned::to_owned);
        request.action_hash = Some(of("action_hash").to_owned());
        self.server.decide_approval(&there.reviewer, of("id"), approve, &request, caller).await.map(drop)
    }

    async fn decide_permission(
        &self,
        there: &There,
        params: &Params,
        approve: bool,
        caller: &Caller,
    ) -> Result<(), ApiError> {
        let of = |name| params.get(name).unwrap_or_default();
        let asked = self.server.asked_permission(&there.reviewer, of("id")).await?;
        check_second_look(approve && asked.risk == RiskLevel::Critical, params)?;
        let message = params.get("message").map(ToOwned::to_owned);
        if approve {
            let mut approval = JitApproval::default();
            approval.agent_message = message;
            approval.action_hash = Some(of("action_hash").to_owned());
            self.server.approve_permission(&there.reviewer, of("id"), &approval, caller).await.map(drop)
        } else {
            let mut denial = JitDenial::default();
            denial.agent_message = message;
            denial.action_hash = Some(of("action_hash").to_owned());
            self.server.deny_permission(&there.reviewer, of("id"), &denial, caller).await.map(drop)
        }
    }

    async fn there(
        &self,
        organization: &Organization,
        visit: &Visit,
        method: &str,
    ) -> Result<Option<There>, ApiError> {
        let found = self.session(organization, &visit.headers, self.server.now()).await?;
        let Some((_, cookie, user)) = found else { return Ok(None) };
        let facts = RequestFacts { method, path: visit.uri.path() };
        Ok(Some(There {
            csrf: self.cookies.decision_token(&organization.id, &cookie),
            reviewer: self.server.reviewer_in_session(&organization.id, &user, facts, &visit.origin).await?,
        }))
    }

    async fn waiting(
        &self,
        organization: &Organization,
        there: &There,
        number: NonZero<u32>,
        status: StatusCode,
        said: Option<&str>,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let (reviewer, now) = (&there.reviewer, self.server.now());
        let offset = u64::from(number.get() - 1) * u64::from(SHOWN);
        let shown = Page { offset, limit: SHOWN };
        let approvals = self.server.pending_approvals(reviewer, shown).await?;
        let permissions = self.server.pending_permissions(reviewer, shown).await?;
        let total = approvals.total + permissions.total;
        let action = self.site.url(&organization.id, "approvals/decide");
        let mut main = String::with_capacity(8192);
        main.push_str("<h1>What agents ask you</h1>");
        if let Some(said) = said {
            let (class, role) =
                if status.is_success() { ("", "status") } else { (" class=\"alarm\"", "alert") };
            let _ = write!(main, "<p{class} role=\"{role}\">{}</p>", escaped(said));
        }
        if total == 0 {
            main.push_str("<p>Nothing waits for you.</p>");
        }
        for approval in &approvals.items {
            let agent = self.server.agent_name(&organization.id, approval.agent).await?;
            let form = Form {
                action: &action,
                csrf: &there.csrf,
                kind: "approval",
                id: approval.token.as_str(),
                hash: &ActionHash::of(&approval.action()),
                careful: approval.impact == Impact::Critical,
            };
            show_approval(&mut main, approval, agent.as_deref(), reviewer.user().id, now);
            form.show(&mut main);
        }
        for asked in &permissions.items {
            let agent = self.server.agent_name(&organization.id, asked.agent).await?;
            let form = Form {
                action: &action,
                csrf: &there.csrf,
                kind: "permission",
                id: asked.id.as_str(),
                hash: &asked.action_hash,
                careful: asked.risk == RiskLevel::Critical,
            };
            show_permission(&mut main, asked, agent.as_deref(), reviewer.user().id, now);
            form.show(&mut main);
        }
        let end = offset + u64::from(SHOWN);
        let more = approvals.total.saturating_sub(end) + permissions.total.saturating_sub(end);
        let here = escaped(&self.site.url(&organization.id, "approvals"));
        if let (1.., Some(next)) = (more, number.checked_add(1)) {
            let _ = write!(
                main,
                "<p>{more} more wait, and end later. <a href=\"{here}?page={next}\">Next page</a></p>"
            );
        }
        if number > FIRST {
            let _ = write!(main, "<p><a href=\"{here}\">First page</a></p>");
        }
        let _ = write!(
            main,
            "<dl><dt>You are signed in as</dt><dd><bdi>{}</bdi></dd><dt>Organization</dt><dd><bdi>{}</bdi></dd></dl>",
            escaped(&reviewer.user().email),
            escaped(&organization.name),
        );
        Ok(whole(page(status, "What agents ask you", &main, None)))
    }
}

/// What is very bad if it goes wrong is agreed to by somebody who said so twice.
fn check_second_look(needed: bool, params: &Params) -> Result<(), ApiError> {
    if needed && params.get("second_look") != Some("yes") {
        return Err(ApiError::InvalidRequest("Look twice at this one, and tick that you did.".to_owned()));
    }
    Ok(())
}

fn actor(user: &User) -> Actor {
    let actor = Actor::new(ActorKind::User, user.id.to_string());
    match &user.name {
        Some(name) => actor.named(name.as_str()),
        None => actor,
    }
}

fn show_approval(
    main: &mut String,
    approval: &Approval,
    agent: Option<&str>,
    reader: UserId,
    now: Timestamp,
) {
    let who = Who { agent, id: approval.agent.to_string(), whom: whom(approval.on_behalf_of, reader) };
    who.heading(main, approval.impact.as_str(), "asks for your approval");
    let _ = write!(main, "<dl><dt>What it wants to do</dt><dd>{}</dd>", lines(&approval.reason));
    let _ = write!(main, "<dt>Its name for it</dt><dd><bdi>{}</bdi></dd>", escaped(&approval.task_id));
    if !approval.meta.is_empty() {
        details(main, "In detail", &Value::Object(approval.meta.clone()));
    }
    who.rest(main, "Impact, as the agent says", approval.impact.as_str(), approval.expires_at, now);
}

fn show_permission(
    main: &mut String,
    asked: &JitRequest,
    agent: Option<&str>,
    reader: UserId,
    now: Timestamp,
) {
    let who = Who { agent, id: asked.agent.to_string(), whom: whom(asked.on_behalf_of, reader) };
    who.heading(main, asked.risk.as_str(), "asks for a permission");
    main.push_str("<dl>");
    if let Some(text) = &asked.justification {
        let _ = write!(main, "<dt>Why, as the agent says</dt><dd>{}</dd>", lines(text));
    }
    details(main, "Exactly this", &asked.detail.to_json());
    let minutes = asked.ttl.div_ceil(60);
    let _ = write!(main, "<dt>For how long</dt><dd>{minutes} min</dd>");
    let _ = write!(main, "<dt>In the task</dt><dd><code>{}</code></dd>", escaped(asked.task.as_str()));
    who.rest(main, "Risk", asked.risk.as_str(), asked.expires_at, now);
}

/// Who asks.
struct Who<'a> {
    agent: Option<&'a str>,
    id: String,
    whom: String,
}

/// For whom it is asked, as `reader` sees it.
fn whom(user: Option<UserId>, reader: UserId) -> String {
    match user {
        None => "the agent itself".to_owned(),
        Some(user) if user == reader => "you".to_owned(),
        Some(user) => format!("the person <code>{}</code>", escaped(&user.to_string())),
    }
}

impl Who<'_> {
    fn heading(&self, main: &mut String, level: &str, what: &str) {
        let name = escaped(self.agent.unwrap_or("An agent that is gone"));
        let _ = write!(main, "<section class=\"{level}\"><h2><bdi>{name}</bdi> {what}</h2>");
    }

    fn rest(&self, main: &mut String, label: &str, level: &str, ends: Timestamp, now: Timestamp) {
        let seconds = ends.since(now).as_secs();
        let _ = write!(
            main,
            "<dt>{label}</dt><dd>{level}</dd><dt>For</dt><dd>{}</dd><dt>Agent</dt><dd><code>{}</code></dd>\
             <dt>Waits for</dt><dd>{} min {} s, until {}</dd></dl>",
            self.whom,
            escaped(&self.id),
            seconds / 60,
            seconds % 60,
            escaped(&ends.to_string()),
        );
    }
}

fn details(main: &mut String, label: &str, value: &Value) {
    // A value that was read as JSON can always be written; and if not, there is nothing to agree to.
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let _ = write!(main, "<dt>{label}</dt><dd><pre>");
    for line in text.lines() {
        let _ = writeln!(main, "{}", escaped(line));
    }
    main.push_str("</pre></dd>");
}

/// Text of several lines. Each is a paragraph of its own direction, so none can reach into another.
fn lines(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + 32);
    for (n, line) in text.lines().enumerate() {
        if n > 0 {
            html.push_str("<br>");
        }
        let _ = write!(html, "<bdi>{}</bdi>", escaped(&line.replace('\t', "    ")));
    }
    html
}

struct Form<'a> {
    action: &'a str,
    csrf: &'a str,
    kind: &'a str,
    id: &'a str,
    hash: &'a ActionHash,
    /// Whether a yes must be said twice.
    careful: bool,
}

impl Form<'_> {
    fn show(&self, main: &mut String) {
        let _ = write!(
            main,
            "<form method=\"post\" action=\"{}\" autocomplete=\"off\">\
             <input type=\"hidden\" name=\"csrf_token\" value=\"{}\">\
             <input type=\"hidden\" name=\"kind\" value=\"{}\">\
             <input type=\"hidden\" name=\"id\" value=\"{}\">\
             <input type=\"hidden\" name=\"action_hash\" value=\"{}\">\
             <label>What the agent is to know (may be empty)\
             <input name=\"message\" maxlength=\"480\"></label>",
            escaped(self.action),
            escaped(self.csrf),
            escaped(self.kind),
            escaped(self.id),
            escaped(self.hash.as_str()),
        );
        if self.careful {
            main.push_str(
                "<label class=\"look\"><input type=\"checkbox\" name=\"second_look\" value=\"yes\" required> \
                 I have read all of it, and it is what I want.</label>",
            );
        }
        main.push_str(
            "<button name=\"decision\" value=\"deny\" formnovalidate>Deny</button>\
             <button class=\"yes\" name=\"decision\" value=\"approve\">Approve</button></form></section>",
        );
    }
}

#[cfg(test)]
mod tests {
    use lumoauth_core::id::{AgentId, ClientId};
    use serde_json::json;

    use super::*;

    #[test]
    fn all_of_it_is_shown_and_none_of_it_is_markup() {
        let hostile = "\"'><script>alert(1)</script>&\u{202e}\u{0}";
        let now = Timestamp::from_unix_seconds(1_790_000_000);
        let ends = Timestamp::from_unix_seconds(1_790_000_061);
        let mut approval = Approval::new(AgentId::generate(), ClientId::generate_for_agent(), now, ends);
        let long = format!("begin\n{}\nend {hostile}", "w".repeat(10_000));
        approval.reason = long.clone();
        approval.task_id = hostile.to_owned();
        approval.meta =
            json!({ hostile: [hostile, { "deep": "x".repeat(9000) }] }).as_object().unwrap().clone();
        let mut main = String::new();
        show_approval(&mut main, &approval, Some(hostile), UserId::generate(), now);
        let hash = ActionHash::of(&approval.action());
        Form { action: "/a", csrf: hostile, kind: "approval", id: hostile, hash: &hash, careful: true }
            .show(&mut main);
        assert!(!main.contains("<script") && !main.contains('\u{202e}') && !main.contains('\0'), "{main}");
        assert!(main.contains(&"w".repeat(10_000)) && main.contains(&"x".repeat(9000)));
        assert!(main.contains("begin</bdi><br>") && main.contains("1 min 1 s"));
        assert!(main.matches("&lt;script&gt;").count() >= 6, "{main}");
        assert!(main.contains(hash.as_str()));
    }
}
