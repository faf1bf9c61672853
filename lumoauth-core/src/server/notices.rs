//! Telling people that something waits for them.
//!
//! What is told is kept in memory and delivered by maintenance. A person is told by the webhook that is registered for them, and
//! by mail where the host sends it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::json;

use super::{ApiError, AuthorizationServer};
use crate::{
    agent::Agent,
    approval::Approval,
    clock::Timestamp,
    id::OrgId,
    jit::JitRequest,
    notify::{Delivery, Notice, Notifier, Subject},
    organization::Organization,
    store::{RateLimit, UserKey},
    user::User,
};

/// What is to be told.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<VecDeque<Notice>>);

/// How much is kept. Beyond that the oldest is forgotten: what waits is in the store.
const MOST: usize = 1000;

/// How often one person is told within an hour, whatever agents ask.
const PER_PERSON: RateLimit = RateLimit { max: 20, window: Duration::from_secs(3600) };

impl Notices {
    fn push(&self, notice: Notice) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= MOST {
            tracing::warn!("too many notices wait; the oldest is forgotten");
            queue.pop_front();
        }
        queue.push_back(notice);
    }

    fn pop(&self) -> Option<Notice> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl AuthorizationServer {
    /// Tells whoever is asked of an approval that was just opened.
    pub(super) async fn announce_approval(
        &self,
        org: &OrgId,
        user: &Arc<User>,
        agent: &Agent,
        approval: &Approval,
    ) -> Result<(), ApiError> {
        let summary = approval.reason.clone();
        let reference = approval.token.fingerprint();
        let waiting = Waiting { about: Subject::Approval, summary, reference, ends: approval.expires_at };
        self.announce(org, &user.id.to_string(), Some(user), agent, waiting).await
    }

    /// Tells whom a task is for of a request that waits.
    pub(super) async fn announce_request(
        &self,
        organization: &Organization,
        agent: &Agent,
        request: &JitRequest,
    ) -> Result<(), ApiError> {
        let Some(user) = request.on_behalf_of else { return Ok(()) };
        let org = &organization.id;
        let found = self.stores().users.find(org, UserKey::Id(user)).await?;
        let found = found.filter(|user| user.is_active() && user.has_approver_channel());
        let detail = &request.detail;
        let summary = format!("{} on {}", detail.actions().join(", "), detail.kind());
        let reference = request.id.to_string();
        let waiting = Waiting { about: Subject::Permission, summary, reference, ends: request.expires_at };
        self.announce(org, &user.to_string(), found.as_ref(), agent, waiting).await
    }

    /// Whether people without a channel are told by mail that an agent could not reach them; if so, `user` is. Nothing that is
    /// done here, and no time that it takes, tells whether there is one.
    pub(super) async fn falls_back(
        &self,
        org: &OrgId,
        who: &str,
        user: Option<&Arc<User>>,
        agent: &Agent,
    ) -> Result<bool, ApiError> {
        if self.inner.mail.is_none() {
            return Ok(false);
        }
        let (summary, reference) = (String::new(), String::new());
        let waiting = Waiting { about: Subject::Unreached, summary, reference, ends: self.now() };
        self.announce(org, &who.to_lowercase(), user, agent, waiting).await?;
        Ok(true)
    }

    async fn announce(
        &self,
        org: &OrgId,
        who: &str,
        user: Option<&Arc<User>>,
        agent: &Agent,
        waiting: Waiting,
    ) -> Result<(), ApiError> {
        let mut source = format!("notice {who}");
        source.truncate(source.floor_char_boundary(200));
        let (admission, _) = self.rate_limit(org, &source, PER_PERSON).await?;
        let organization = self.organization(org).await?;
        let page = self.inner.approver_page.as_ref();
        let page = page.map(|path| format!("{}{}", self.public_url(), path.replace("{org}", org.as_str())));
        if let Some(user) = user.filter(|_| admission.admitted) {
            self.inner.notices.push(Notice {
                org: org.clone(),
                organization: organization.name.as_str().into(),
                user: Arc::clone(user),
                about: waiting.about,
                agent: agent.name.clone(),
                summary: waiting.summary,
                reference: waiting.reference,
                expires_at: waiting.ends,
                page,
            });
        }
        Ok(())
    }

    /// Delivers what is to be told, as far as it can be.
    pub(super) async fn deliver_notices(&self) {
        while let Some(notice) = self.inner.notices.pop() {
            if let Some(url) = &notice.user.approver_webhook
                && notice.about != Subject::Unreached
            {
                let body = json!({
                    "type": notice.about.as_str(),
                    "organization": notice.org.as_str(),
                    "user_id": notice.user.id.to_string(),
                    "agent_name": &*notice.agent,
                    "summary": notice.summary,
                    "reference": notice.reference,
                    "expires_at": notice.expires_at.to_string(),
                    "page": notice.page,
                });
                if let Err(error) = self.post_signed(&notice.org, url, &body).await {
                    tracing::warn!(%error, user = %notice.user.id, "an approver webhook does not answer");
                }
            }
            if let Some(mail) = &self.inner.mail {
                match mail.notify(&notice).await {
                    Ok(Delivery::Delivered | Delivery::NoDevice) => {}
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, user = %notice.user.id, "no mail about what waits");
                    }
                }
            }
        }
    }
}

struct Waiting {
    about: Subject,
    summary: String,
    reference: String,
    ends: Timestamp,
}

/// The channel that people are told by who have no other.
pub(super) type Mail = Option<Arc<dyn Notifier>>;
