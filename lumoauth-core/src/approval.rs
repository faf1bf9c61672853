//! What an agent asks a human to allow, and what the human says.
//!
//! An approval is decided once, before it expires, or never. It says exactly what is asked for; nothing of it changes
//! after it was opened but the decision.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    clock::Timestamp,
    id::{AgentId, ClientId, Number, ParseIdError, UserId},
    jit::ActionHash,
    secret::{Secret, SecretHash},
};

/// How long an approval is kept after it has expired, so that what became of it can be asked.
pub const APPROVAL_GRACE: Duration = Duration::from_secs(24 * 3600);

/// How long what was agreed to may be done.
pub const APPROVED_LIFE: Duration = Duration::from_secs(300);

/// A request to a human, and the answer once there is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Approval {
    /// What the agent asks about it with.
    pub token: ApprovalToken,
    /// Who asks.
    pub agent: AgentId,
    /// The OAuth client id of the agent.
    pub client_id: ClientId,
    /// The agent's own name for what it is doing; at most [`Approval::MAX_TASK_ID`] characters.
    pub task_id: String,
    /// What it wants to do, in words for people; at most [`Approval::MAX_REASON`] characters.
    pub reason: String,
    /// How bad it would be if it went wrong.
    pub impact: Impact,
    /// Who is asked; without one, whoever manages approvals.
    pub on_behalf_of: Option<UserId>,
    /// What else the human is shown.
    pub meta: Map<String, Value>,
    /// The key of the agent's budget reservation that waits for it, if one does.
    pub reservation: Option<String>,
    /// Names all of what was asked, as it was when it was opened by the server; see [`Approval::is_as_asked`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_hash: Option<ActionHash>,
    /// When it was opened.
    pub created_at: Timestamp,
    /// From this instant on nobody can decide it.
    pub expires_at: Timestamp,
    /// What the human said, or that the agent took it back.
    pub decision: Option<Decision>,
    /// When somebody used it up who takes it for one action only.
    #[serde(default)]
    pub consumed_at: Option<Timestamp>,
    /// Of whom it rested on when it was opened.
    #[serde(default)]
    pub epochs: Epochs,
}

/// The epochs of whom an approval rests on. One that was raised since, by a deactivation or a block, ends it for good, as it
/// ends their tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::exhaustive_structs,
    reason = "whoever answers for a request while nobody decided: an organization and an agent"
)]
pub struct Epochs {
    /// Of the organization.
    pub organization: u32,
    /// Of the agent that asks.
    pub agent: u32,
}

/// What a human said; or that the agent took its request back before anybody did, which is a no of nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a yes or no, of whom and when, is all there is to it")]
pub struct Decision {
    /// Whether they agreed.
    pub approved: bool,
    /// Who. Nobody if the agent took it back.
    pub by: Option<UserId>,
    /// The integer id of the same person.
    pub number: Option<Number>,
    /// The epoch of the same person then: a block since ends what they agreed to.
    #[serde(default)]
    pub epoch: u32,
    /// The epoch of whom it is for, if it is for somebody else than whoever agreed, with the same meaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_of_whom: Option<u32>,
    /// When.
    pub at: Timestamp,
    /// What they want the agent to know; at most [`Approval::MAX_REASON`] characters.
    pub note: Option<String>,
}

/// How bad it would be if it went wrong, as the agent says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "the four levels of the API")]
pub enum Impact {
    /// Hardly.
    Low,
    /// Somewhat; what clients mean that say nothing.
    #[default]
    Medium,
    /// Badly.
    High,
    /// It must not.
    Critical,
}

impl Impact {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The impact with this wire name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Low, Self::Medium, Self::High, Self::Critical].into_iter().find(|one| one.as_str() == name)
    }
}

/// Where an approval stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every state must be handled where something waits for it")]
pub enum ApprovalStatus {
    /// Nobody said anything yet, and somebody still can.
    Pending,
    /// A human agreed, for good.
    Approved,
    /// A human said no, or the agent took it back, for good.
    Denied,
    /// Nobody said anything in time.
    Expired,
}

impl ApprovalStatus {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
        }
    }
}

impl Approval {
    /// The longest task id, in characters.
    pub const MAX_TASK_ID: usize = 128;
    /// The longest reason or note, in characters.
    pub const MAX_REASON: usize = 480;
    /// The longest `meta`, in bytes of JSON.
    pub const MAX_META: usize = 8192;
    /// How many of one agent may wait for one person, or for nobody in particular, at a time: no agent fills the list in
    /// which people see what others ask.
    pub const MAX_PENDING: u32 = 100;

    /// Whether [`Approval::MAX_PENDING`] bounds it, and counts it. What waits for a reservation is bounded by who pays for it: a
    /// service reserves for many callers, and none of them takes this from the others.
    pub fn is_bounded(&self) -> bool {
        self.reservation.is_none()
    }

    /// A request of this agent, of impact `medium`, that says nothing yet.
    pub fn new(agent: AgentId, client_id: ClientId, now: Timestamp, expires_at: Timestamp) -> Self {
        Self {
            token: ApprovalToken::generate(),
            agent,
            client_id,
            task_id: String::new(),
            reason: String::new(),
            impact: Impact::default(),
            on_behalf_of: None,
            meta: Map::new(),
            reservation: None,
            action_hash: None,
            created_at: now,
            expires_at,
            decision: None,
            consumed_at: None,
            epochs: Epochs::default(),
        }
    }

    /// Where it stands at `now`. What was decided stays decided after its end.
    pub fn status(&self, now: Timestamp) -> ApprovalStatus {
        match &self.decision {
            Some(decision) if decision.approved => ApprovalStatus::Approved,
            Some(_) => ApprovalStatus::Denied,
            None if now < self.expires_at => ApprovalStatus::Pending,
            None => ApprovalStatus::Expired,
        }
    }

    /// The same, decided.
    #[must_use]
    pub fn with_decision(&self, decision: Decision) -> Self {
        Self { decision: Some(decision), ..self.clone() }
    }

    /// The same, used up.
    #[must_use]
    pub fn with_consumption(&self, at: Timestamp) -> Self {
        Self { consumed_at: Some(at), ..self.clone() }
    }

    /// Until when what was agreed to may be done; nothing if nobody agreed.
    pub fn usable_until(&self) -> Option<Timestamp> {
        let decision = self.decision.as_ref().filter(|decision| decision.approved)?;
        Some(decision.at.plus(APPROVED_LIFE))
    }

    /// Whether what was asked for may be done at `now`: somebody agreed, not too long ago, and nobody used it up.
    pub fn is_usable(&self, now: Timestamp) -> bool {
        self.consumed_at.is_none() && self.usable_until().is_some_and(|until| now < until)
    }

    /// What exactly the human was asked: who asks, for whom, and everything that they were shown. Its
    /// [hash](crate::jit::ActionHash) names the action that was agreed to, and nothing else.
    pub fn action(&self) -> Value {
        json!({
            "agent_id": self.agent.to_string(),
            "on_behalf_of": self.on_behalf_of.map(|user| user.to_string()),
            "task_id": self.task_id,
            "reason": self.reason,
            "impact": self.impact.as_str(),
            "meta": self.meta,
        })
    }

    /// Whether it still says what was asked. What somebody changed in the store since is agreed to and used no more. One
    /// without a hash, of a host that opened it itself, is taken as it is.
    pub fn is_as_asked(&self) -> bool {
        self.action_hash.as_ref().is_none_or(|hash| *hash == ActionHash::of(&self.action()))
    }

    /// From when on it may be forgotten.
    pub fn keep_until(&self) -> Timestamp {
        self.expires_at.plus(APPROVAL_GRACE)
    }
}

/// What an agent asks about an approval with: `apr_` and 256 random bits in base64url.
///
/// Approvers see it as well, so it is kept as it is. It must not be in a log, so its `Debug` is redacted and it has no
/// `Display`; [`ApprovalToken::fingerprint`] names it there.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Arc<str>", into = "Arc<str>")]
pub struct ApprovalToken(Arc<str>);

impl ApprovalToken {
    const PREFIX: &'static str = "apr_";

    /// A new one.
    pub fn generate() -> Self {
        Self(Secret::generate(Self::PREFIX).expose().into())
    }

    /// Parses the text form.
    ///
    /// # Errors
    /// [`ParseIdError`] if the text is not one.
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        let of_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let random = text.strip_prefix(Self::PREFIX);
        match random.is_some_and(|random| random.len() == 43 && random.bytes().all(of_base64url)) {
            true => Ok(Self(text.into())),
            false => Err(ParseIdError { kind: "approval token" }),
        }
    }

    /// The text form. Never log it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Sixteen hexadecimal digits that name it in logs, and with which nothing can be asked.
    pub fn fingerprint(&self) -> String {
        let hash = SecretHash::of(&self.0);
        hash.as_bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<Arc<str>> for ApprovalToken {
    type Error = ParseIdError;

    fn try_from(text: Arc<str>) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<ApprovalToken> for Arc<str> {
    fn from(token: ApprovalToken) -> Self {
        token.0
    }
}

impl fmt::Debug for ApprovalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApprovalToken([redacted])")
    }
}

/// What turns the direction of text, breaks lines, or is not seen. Joiners and selectors are not among it: scripts and emoji
/// need them.
pub(crate) const fn is_deceptive(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{17b4}'
            | '\u{17b5}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// Whether nothing of `text` is seen: it is empty, or all of it is space, or what only changes the look of something beside
/// it.
pub(crate) fn shows_nothing(text: &str) -> bool {
    let joins = |c| {
        matches!(
            c,
            '\u{180b}'..='\u{180f}'
                | '\u{200c}'
                | '\u{200d}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{e0100}'..='\u{e01ef}'
        )
    };
    text.chars().all(|c| c.is_whitespace() || c.is_control() || joins(c) || is_deceptive(c))
}

/// Whether `text` looks like what it is: nothing in it moves, hides or breaks anything. Where it may have several lines, they
/// may break where it says.
pub(crate) fn is_plain(text: &str, lines: Lines) -> bool {
    let breaks = |c: char| lines == Lines::Several && matches!(c, '\n' | '\r' | '\t');
    !text.chars().any(|c| (c.is_control() && !breaks(c)) || is_deceptive(c))
}

/// Whether every text in `value` is plain, names of members included.
pub(crate) fn is_plain_json(value: &Value) -> bool {
    match value {
        Value::String(text) => is_plain(text, Lines::One),
        Value::Array(items) => items.iter().all(is_plain_json),
        Value::Object(members) => {
            members.iter().all(|(name, value)| is_plain(name, Lines::One) && is_plain_json(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

/// How many lines text for people may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    One,
    Several,
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> Timestamp = Timestamp::from_unix_seconds;

    fn approval() -> Approval {
        Approval::new(AgentId::generate(), ClientId::generate_for_agent(), AT(100), AT(400))
    }

    fn decision(approved: bool) -> Decision {
        let (by, number) = (Some(UserId::generate()), Some(Number::generate()));
        Decision { approved, by, number, epoch: 0, epoch_of_whom: None, at: AT(200), note: None }
    }

    #[test]
    fn it_expires_unless_it_was_decided() {
        let open = approval();
        assert_eq!(open.status(AT(100)), ApprovalStatus::Pending);
        assert_eq!(open.status(Timestamp::from_unix_millis(399_999)), ApprovalStatus::Pending);
        assert_eq!(open.status(AT(400)), ApprovalStatus::Expired);
        for (approved, status) in [(true, ApprovalStatus::Approved), (false, ApprovalStatus::Denied)] {
            let decided = open.with_decision(decision(approved));
            assert_eq!((decided.status(AT(300)), decided.status(AT(10_000))), (status, status));
        }
    }

    #[test]
    fn what_was_agreed_to_may_be_done_for_five_minutes_and_once() {
        let ms = Timestamp::from_unix_millis;
        let approved = approval().with_decision(decision(true));
        assert_eq!(approved.usable_until(), Some(AT(500)));
        assert!(approved.is_usable(AT(200)) && approved.is_usable(ms(499_999)));
        for not in [approved.with_consumption(AT(300)), approval(), approval().with_decision(decision(false))]
        {
            assert!(!not.is_usable(AT(300)));
        }
        assert!(!approved.is_usable(AT(500)) && !approved.is_usable(AT(10_000)));
        assert_eq!(approved.status(AT(10_000)), ApprovalStatus::Approved);
    }

    #[test]
    fn a_token_is_not_printed_and_has_one_form() {
        let approval = approval();
        let text = approval.token.as_str();
        assert!(text.starts_with("apr_") && text.len() == 47);
        assert!(!format!("{approval:?}").contains(&text[4..]));
        assert!(!text.contains(&approval.token.fingerprint()));
        assert_eq!(ApprovalToken::parse(text), Ok(approval.token.clone()));
        for other in ["", "apr_", "apr_a", &text[1..], &format!("{text}a"), &text.replace("apr_", "apr=")] {
            assert!(ApprovalToken::parse(other).is_err(), "{other}");
        }
        assert!(ApprovalToken::parse(&format!("apr_{}", "/".repeat(43))).is_err());
    }

    #[test]
    fn what_shows_nothing_is_nothing() {
        for text in [
            "",
            " ",
            "\t\n\u{0}",
            "\u{200b}",
            "\u{200d}\u{200c}",
            "\u{a0}\u{3000}",
            "\u{feff}",
            "\u{fe0f}",
            "\u{e0100}",
            "\u{202e}\u{2066}",
            "\u{2800}",
            "\u{3164}",
            "\u{180e}",
            "\u{180b}",
            "\u{e0061}",
            "\u{1d173}",
        ] {
            assert!(shows_nothing(text), "{text:?}");
        }
        for text in ["a", ".", "\u{200d}a", "\u{2764}\u{fe0f}", "\u{645}\u{200c}\u{6cc}"] {
            assert!(!shows_nothing(text) && is_plain(text, Lines::One), "{text:?}");
        }
    }

    #[test]
    fn what_looks_like_something_else_is_not_plain() {
        for text in ["a\u{0}", "a\u{202e}b", "a\u{2067}b", "a\u{200b}b", "a\u{85}b", "a\u{feff}b", "\u{7f}"] {
            assert!(!is_plain(text, Lines::One) && !is_plain(text, Lines::Several), "{text:?}");
            for value in [json!(text), json!([[text]]), json!({ "a": text }), json!({ text: 1 })] {
                assert!(!is_plain_json(&value), "{value}");
            }
        }
        assert!(is_plain("a\n\tb", Lines::Several) && !is_plain("a\nb", Lines::One));
        assert!(is_plain_json(&json!({ "a": ["b c", 1, null] })));
        assert!(!is_plain_json(&json!({ "a\nb": 1 })) && !is_plain_json(&json!(["b\nc"])));
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let mut full = approval().with_decision(decision(false));
        full.meta.insert("amount".to_owned(), "12.50".into());
        let text = serde_json::to_string(&full).unwrap();
        assert_eq!(serde_json::from_str::<Approval>(&text).unwrap(), full);
    }

    #[test]
    fn impacts_have_their_wire_names() {
        for name in ["low", "medium", "high", "critical"] {
            assert_eq!(Impact::named(name).map(Impact::as_str), Some(name));
            assert_eq!(serde_json::to_value(Impact::named(name)).unwrap(), name);
        }
        assert_eq!(Impact::named("extreme"), None);
    }
}
