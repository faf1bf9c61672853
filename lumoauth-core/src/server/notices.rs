//! Telling people that something waits for them.
//!
//! What is told is kept in memory and delivered by maintenance. A person is told by the webhook that is registered for them,
//! and by mail where the host sends it. It is a courtesy: it makes nobody wait, and its failure is nobody's but the log's.

use std::{
    collections::{HashMap, VecDeque},
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_timer::Delay;
use futures_util::future::{Either, join_all, select};
use serde_json::json;

use super::{ApiError, AuthorizationServer};
use crate::{
    agent::Agent,
    approval::Approval,
    clock::Timestamp,
    id::OrgId,
    jit::JitRequest,
    notify::{Notice, Notifier, Subject},
    organization::Organization,
    store::{RateLimit, UserKey},
    user::User,
};

/// What is to be told.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<Turns>);

/// What waits, by organization, and whose turn it is.
#[derive(Debug, Default)]
struct Turns {
    of: HashMap<OrgId, VecDeque<Told>>,
    /// Each organization for which something waits, once.
    order: VecDeque<OrgId>,
    waiting: usize,
}

impl Turns {
    fn push(&mut self, told: Told) {
        let org = told.notice.org.clone();
        let of = self.of.entry(org.clone()).or_default();
        if of.is_empty() {
            self.order.push_back(org);
        }
        of.push_back(told);
        self.waiting += 1;
    }

    /// The oldest of an organization; if there is more, its turn comes again after all others'.
    fn pop(&mut self, org: OrgId) -> Option<Told> {
        let of = self.of.get_mut(&org)?;
        let told = of.pop_front()?;
        self.waiting -= 1;
        if of.is_empty() {
            self.of.remove(&org);
        } else {
            self.order.push_back(org);
        }
        Some(told)
    }
}

/// A notice, and where else it goes than by mail.
#[derive(Debug)]
struct Told {
    notice: Notice,
    webhook: Option<String>,
}

/// How much is kept. Beyond that the oldest of the organization that has most is forgotten: what waits is in the store.
const MOST: usize = 1000;

/// How many are delivered at a time.
const AT_ONCE: usize = 32;

/// How many of those may be of one organization, whose receivers may be slow.
const AT_ONCE_OF_ONE: usize = 4;

/// How long one delivery by one channel may take.
const DELIVERY: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(10) };

/// How often one person is told within an hour, whatever agents ask.
const PER_PERSON: RateLimit = RateLimit { max: 20, window: Duration::from_secs(3600) };

/// How often of one agent: it takes nothing from what others tell them, or a part at most.
const PER_AGENT: RateLimit = RateLimit { max: 5, window: Duration::from_secs(3600) };

impl Notices {
    fn push(&self, told: Told) {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.waiting >= MOST {
            tracing::warn!("too many notices wait; the oldest of whoever has most is forgotten");
            let most = turns.of.iter().max_by_key(|(_, waiting)| waiting.len()).map(|(org, _)| org.clone());
            if let Some(most) = most {
                turns.order.retain(|org| *org != most);
                turns.pop(most);
            }
        }
        turns.push(told);
    }

    /// Takes what is delivered next: one of each organization in turn, the oldest first, and not too many of any.
    fn take(&self) -> Vec<Told> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, mut full) = (Vec::new(), Vec::new());
        let mut of = HashMap::<OrgId, usize>::new();
        while taken.len() < AT_ONCE
            && let Some(org) = turns.order.pop_front()
        {
            let count = of.entry(org.clone()).or_default();
            if *count < AT_ONCE_OF_ONE {
                *count += 1;
                taken.extend(turns.pop(org));
            } else {
                full.push(org);
            }
        }
        turns.order.extend(full);
        taken
    }
}

impl AuthorizationServer {
    /// Tells whoever is asked of an approval that was just opened.
    pub(super) async fn announce_approval(
        &self,
        organization: &Organization,
        user: &Arc<User>,
        agent: &Agent,
        approval: &Approval,
    ) {
        let waiting = Waiting {
            about: Subject::Approval,
            summary: approval.reason.clone(),
            reference: approval.token.fingerprint(),
            ends: Some(approval.expires_at),
        };
        let announced = self.announce(organization, &user.id.to_string(), Some(user), agent, waiting).await;
        untold(announced);
    }

    /// Tells whom a task is for of a request that waits.
    pub(super) async fn announce_request(
        &self,
        organization: &Organization,
        agent: &Agent,
        request: &JitRequest,
    ) -> Result<(), ApiError> {
        let Some(user) = request.on_behalf_of else { return Ok(()) };
        let found = self.stores().users.find(&organization.id, UserKey::Id(user)).await?;
        let found = found.filter(|user| user.is_active() && user.has_approver_channel());
        let detail = &request.detail;
        let waiting = Waiting {
            about: Subject::Permission,
            summary: format!("{} on {}", detail.actions().join(", "), detail.kind()),
            reference: request.id.to_string(),
            ends: Some(request.expires_at),
        };
        self.announce(organization, &user.to_string(), found.as_ref(), agent, waiting).await
    }

    /// Whether people without a channel are told by mail that an agent could not reach them; if so, `user` is. Nothing that
    /// is done here, and no time that it takes, tells whether there is one.
    pub(super) async fn falls_back(
        &self,
        org: &OrgId,
        who: &str,
        user: Option<&Arc<User>>,
        agent: &Agent,
    ) -> bool {
        if self.inner.mail.is_none() {
            return false;
        }
        let (summary, reference) = (String::new(), String::new());
        let waiting = Waiting { about: Subject::Unreached, summary, reference, ends: None };
        // A person has many names, and one count.
        let who = user.map_or_else(|| who.to_lowercase(), |user| user.id.to_string());
        let announced = match self.organization(org).await {
            Ok(organization) => self.announce(&organization, &who, user, agent, waiting).await,
            Err(error) => Err(error),
        };
        untold(announced);
        true
    }

    async fn announce(
        &self,
        organization: &Organization,
        who: &str,
        user: Option<&Arc<User>>,
        agent: &Agent,
        waiting: Waiting,
    ) -> Result<(), ApiError> {
        let org = &organization.id;
        // That of the agent first: what it is not told for counts for nobody else.
        let admitted = self.is_within(org, format!("notice {} {who}", agent.id), PER_AGENT).await?
            && self.is_within(org, format!("notice {who}"), PER_PERSON).await?;
        let page = self.inner.approver_page.as_ref();
        let page = page.map(|path| format!("{}{}", self.public_url(), path.replace("{org}", org.as_str())));
        if let Some(user) = user.filter(|_| admitted) {
            let webhook = user.approver_webhook.clone().filter(|_| waiting.about != Subject::Unreached);
            let notice = Notice {
                org: org.clone(),
                organization: organization.name.as_str().into(),
                user: user.id,
                email: user.email.as_str().into(),
                about: waiting.about,
                agent: agent.name.clone(),
                summary: waiting.summary,
                reference: waiting.reference,
                expires_at: waiting.ends,
                page,
            };
            // Whoever looks at the page only has no channel to be told by.
            if webhook.is_some() || self.inner.mail.is_some() {
                self.inner.notices.push(Told { notice, webhook });
            }
        }
        Ok(())
    }

    async fn is_within(&self, org: &OrgId, mut source: String, limit: RateLimit) -> Result<bool, ApiError> {
        source.truncate(source.floor_char_boundary(200));
        let (admission, _) = self.rate_limit(org, &source, limit).await?;
        Ok(admission.admitted)
    }

    /// Delivers some of what is to be told, each within its time and none behind another. Whether there was something.
    pub(super) async fn deliver_notices(&self) -> bool {
        let told = self.inner.notices.take();
        join_all(told.iter().map(|told| self.deliver(told))).await;
        !told.is_empty()
    }

    async fn deliver(&self, Told { notice, webhook }: &Told) {
        if let Some(url) = webhook {
            let body = json!({
                "type": notice.about.as_str(),
                "organization": notice.org.as_str(),
                "user_id": notice.user.to_string(),
                "agent_name": &*notice.agent,
                "summary": notice.summary,
                "reference": notice.reference,
                "expires_at": notice.expires_at.map(|at| at.to_string()),
                "page": notice.page,
            });
            match in_time(self.post_signed(&notice.org, url, &body)).await {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::warn!(%error, user = %notice.user, "an approver webhook does not answer");
                }
                None => tracing::warn!(user = %notice.user, "an approver webhook takes too long"),
            }
        }
        if let Some(mail) = &self.inner.mail {
            match in_time(mail.notify(notice)).await {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    let error = &error as &dyn Error;
                    tracing::warn!(error, user = %notice.user, "no mail about what waits");
                }
                None => tracing::warn!(user = %notice.user, "mail about what waits takes too long"),
            }
        }
    }
}

/// What comes of `work`, unless it takes too long.
async fn in_time<T>(work: impl Future<Output = T>) -> Option<T> {
    match select(std::pin::pin!(work), Delay::new(DELIVERY)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

/// A person who is not told sees it all the same where it waits, and what was opened is open.
fn untold(announced: Result<(), ApiError>) {
    if let Err(error) = announced {
        tracing::warn!(error = &error as &dyn Error, "nobody is told of what waits");
    }
}

struct Waiting {
    about: Subject,
    summary: String,
    reference: String,
    ends: Option<Timestamp>,
}

/// The channel that people are told by who have no other.
pub(super) type Mail = Option<Arc<dyn Notifier>>;

#[cfg(test)]
mod tests;
