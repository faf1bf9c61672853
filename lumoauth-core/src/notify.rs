//! The port for telling people that something waits for them.
//!
//! It is a courtesy: what waits stands in the store, and whoever looks there sees it, told or not. So notices are kept in memory
//! until maintenance delivers them, and one that is lost changes nothing.

use std::{error::Error, fmt, sync::Arc};

use async_trait::async_trait;

use crate::{
    clock::Timestamp,
    id::{OrgId, UserId},
};

/// What a person is told. It names who asks and what about in one line each, and has nothing in it with which anything could be
/// asked or decided.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Notice {
    /// The organization.
    pub org: OrgId,
    /// Its display name.
    pub organization: Arc<str>,
    /// Who is told.
    pub user: UserId,
    /// Their e-mail address.
    pub email: Arc<str>,
    /// What about.
    pub about: Subject,
    /// The display name of the agent that asks.
    pub agent: Arc<str>,
    /// What it wants, as the agent says.
    pub summary: String,
    /// Names the approval or the request in the log.
    pub reference: String,
    /// Until when it waits, if anything does.
    pub expires_at: Option<Timestamp>,
    /// Where the person sees and decides it, after signing in.
    pub page: Option<String>,
}

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every sort must be worded by whoever writes to people")]
pub enum Subject {
    /// An approval waits.
    Approval,
    /// A request of a task waits.
    Permission,
    /// An agent asked, and the request could not reach the person. Nothing waits.
    Unreached,
}

impl Subject {
    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approval => "approval.requested",
            Self::Permission => "jit.requested",
            Self::Unreached => "approval.unreached",
        }
    }
}

impl Notice {
    /// A subject line.
    pub fn title(&self) -> String {
        match self.about {
            Subject::Approval => format!("{} asks for your approval", linkless(&self.agent)),
            Subject::Permission => format!("{} asks for a permission", linkless(&self.agent)),
            Subject::Unreached => format!("{} tried to reach you", linkless(&self.agent)),
        }
    }

    /// Plain text for people.
    pub fn text(&self) -> String {
        let (agent, organization) = (linkless(&self.agent), one_line(&self.organization));
        match self.about {
            Subject::Approval | Subject::Permission => {
                let page = match &self.page {
                    Some(page) => format!("Sign in to see all of it and to decide:\n{page}"),
                    None => "Sign in to see all of it and to decide.".to_owned(),
                };
                let until = self.expires_at.map_or_else(String::new, |at| format!("It waits until {at}. "));
                format!(
                    "The agent \"{agent}\" of {organization} asks:\n\n    {}\n\n\
                     {until}If nobody decides, the answer is no.\n\n{page}\n",
                    brief(&self.summary)
                )
            }
            Subject::Unreached => format!(
                "The agent \"{agent}\" of {organization} wanted to ask for your approval, and could not: your account has \
                 no approver channel.\nNothing was approved, and nothing waits for you. An administrator can switch the \
                 channel on.\n"
            ),
        }
    }
}

/// Text of others for one line of a message: it can begin no header and no other line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || crate::approval::is_deceptive(c) { ' ' } else { c }).collect()
}

/// Text of agents for a message that people trust, as one line without links: programs make them of bare host names too, so
/// each dot before a letter is one in brackets.
fn linkless(text: &str) -> String {
    let line = one_line(text).replace("://", " ");
    let mut shown = String::with_capacity(line.len());
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '.' | '\u{3002}' | '\u{ff0e}' | '\u{ff61}'
                if letters.peek().is_some_and(|next| next.is_alphabetic()) =>
            {
                shown.push_str("[.]");
            }
            '@' => shown.push_str("[at]"),
            _ => shown.push(letter),
        }
    }
    shown
}

/// The beginning of what an agent wants, for a message that people trust: no more than a line, and no link beside ours.
fn brief(text: &str) -> String {
    const LONGEST: usize = 80;
    let text = text.trim();
    let line = linkless(text.lines().next().unwrap_or_default());
    let mut brief: String = line.chars().take(LONGEST).collect();
    if brief.len() < line.len() || text.lines().nth(1).is_some() {
        brief.push_str(" ...");
    }
    brief
}

/// A notice could not be delivered now.
#[derive(Debug, thiserror::Error)]
#[error("a notice cannot be delivered")]
pub struct NotifyError(#[source] Box<dyn Error + Send + Sync>);

impl NotifyError {
    /// With its cause, for the log.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// A way to tell people that something waits for them. It is called by maintenance, never while a request waits, so how long
/// it takes says nothing about who exists; but after ten seconds it is dropped.
#[async_trait]
pub trait Notifier: fmt::Debug + Send + Sync + 'static {
    /// Tells the person, once. Several are told at a time.
    ///
    /// # Errors
    /// [`NotifyError`] if that is not possible now, or not by this channel. It is not tried again.
    async fn notify(&self, notice: &Notice) -> Result<(), NotifyError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(agent: &str, summary: &str) -> Notice {
        Notice {
            org: OrgId::parse("acme").unwrap(),
            organization: "Acme".into(),
            user: UserId::generate(),
            email: "alice@acme.test".into(),
            about: Subject::Approval,
            agent: agent.into(),
            summary: summary.to_owned(),
            reference: String::new(),
            expires_at: Some(Timestamp::from_unix_seconds(1_790_000_000)),
            page: Some("https://auth.test/approvals".to_owned()),
        }
    }

    #[test]
    fn text_of_others_begins_no_line_and_no_header() {
        for about in [Subject::Approval, Subject::Permission, Subject::Unreached] {
            let hostile = "Bot\r\nBcc: x@evil.test\u{2028}\u{202e}\n";
            let notice = Notice { about, organization: hostile.into(), ..notice(hostile, hostile) };
            assert!(notice.title().contains("Bcc:"), "it is text: {}", notice.title());
            assert!(!notice.title().contains(['\r', '\n', '\u{2028}', '\u{202e}']), "{}", notice.title());
            let text = notice.text();
            assert!(text.lines().all(|line| !line.trim().starts_with("Bcc")), "{text}");
        }
    }

    #[test]
    fn a_message_shows_a_line_and_no_link_of_others() {
        let text = notice("Bot", "Pay at https://evil.test/login\nnow").text();
        assert!(text.contains("    Pay at https evil[.]test/login ...\n") && !text.contains("now"), "{text}");
        assert_eq!(text.matches("://").count(), 1, "{text}");
        let long = notice("Bot", &"\u{e9}".repeat(480)).text();
        assert!(long.contains(&format!("    {} ...\n", "\u{e9}".repeat(80))), "{long}");
        for about in [Subject::Approval, Subject::Permission, Subject::Unreached] {
            let hostile = "Acme: www.evil.test https://evil.test/a a@evil.test";
            let notice = Notice { about, page: None, ..notice(hostile, hostile) };
            for text in [notice.title(), notice.text()] {
                assert!(!["evil.test", "www.", "://", "@"].iter().any(|part| text.contains(part)), "{text}");
            }
        }
        assert!(notice("Bot", "4500.00 for No. 7").text().contains("    4500.00 for No. 7\n"));
        assert!(notice("Bot", "Pay invoice 88").text().contains("    Pay invoice 88\n"));
    }
}
