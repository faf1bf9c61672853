//! People: their passwords, their sessions, and the page where they sign in.
//!
//! | Path below `/orgs/{org}/api/v1/oauth` and `/t/{org}/api/v1/oauth` | |
//! |---|---|
//! | GET `login?return_to=` | the page |
//! | POST `login/submit` | its form: `email`, `password`, `return_to`, `csrf_token`; 303 to `return_to` |
//! | POST `login/json` | `{"email","password"}`; 200 with the person |
//! | POST `logout` | ends the session, also for whoever has a copy of its cookie |
//! | GET `approvals` | what agents ask the person |
//! | POST `approvals/decide` | the form of one of them: `kind`, `id`, `action_hash`, `decision`, `message`, `csrf_token`; 303 to `approvals` |
//!
//! Where the public URL has a path, browsers ask for all of these below it, and every path in a page and in `return_to`
//! begins with it; something in front of the server takes it away.
//!
//! A session is good for the authorization endpoint and for the page of approvals, whose forms carry a token of it: no other
//! route takes a cookie, so none of them has to fear what another site makes a browser send.

mod approver;
mod door;
mod page;
mod session;
mod site;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderMap, Response, StatusCode, header};
use lumoauth_core::{
    audit::Origin,
    clock::Timestamp,
    id::UserId,
    keys::{KeyError, MasterKey},
    organization::Organization,
    people::{SignedIn, UserAuthenticator},
    secret::Secret,
    server::{ApiError, AuthorizationServer},
    store::{RateLimit, StoreError},
    user::{User, is_email},
    wire::Params,
};
use lumoauth_tower::RateLimits;

pub(crate) use self::door::Door;
use self::{
    page::Form,
    session::{Cookies, Session},
    site::Site,
};
use crate::passwords::Argon2id;

/// The accounts of all organizations.
#[derive(Debug)]
pub(crate) struct Accounts {
    server: AuthorizationServer,
    passwords: Arc<Argon2id>,
    cookies: Cookies,
    site: Site,
    limits: Option<Limits>,
}

/// How often somebody may try.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// From one address, whatever the account: each try costs a core some of its time.
    address: RateLimit,
    /// From one address at one account. Whoever guesses uses up a share of their own and not the owner's.
    account: RateLimit,
}

/// What came of a try.
#[derive(Debug)]
enum SignIn {
    /// It is this person.
    Accepted(Arc<User>),
    /// It is not, or there is no such person, or they may not.
    Refused,
    /// Too many came before it; this many seconds must pass.
    TooMany(u64),
}

impl Accounts {
    /// The accounts that `server` has, with sessions under a key that comes from `master`.
    ///
    /// # Errors
    /// [`KeyError`] if that key cannot be had.
    pub(crate) fn new(
        server: AuthorizationServer,
        passwords: Arc<Argon2id>,
        master: &MasterKey,
        limits: Option<&RateLimits>,
    ) -> Result<Self, KeyError> {
        let site = Site::at(server.public_url());
        let limits = limits.map(|limits| {
            let address = limits.failure_limit();
            Limits { address, account: RateLimit { max: PER_ACCOUNT, ..address } }
        });
        let cookies = Cookies::new(master, site.is_secure())?;
        Ok(Self { server, passwords, cookies, site, limits })
    }

    /// Checks a password. Every password that is looked at is recorded, and takes as long for an account that is not there.
    /// Who tries too often is refused before that and leaves nothing behind: the log does not grow by guessing.
    async fn sign_in(
        &self,
        organization: &Organization,
        email: &str,
        password: &Secret,
        origin: &Origin,
    ) -> Result<SignIn, ApiError> {
        let org = &organization.id;
        if let Some(seconds) = self.wait(organization, email, origin).await? {
            return Ok(SignIn::TooMany(seconds));
        }
        let user = self.find(organization, email).await?;
        let hash = user.as_ref().and_then(|user| user.password_hash.as_ref());
        let readable = password.expose().len() <= MAX_PASSWORD;
        let presented = if readable { password.clone() } else { Secret::from("") };
        let fits = self.passwords.verify(&presented, hash.filter(|_| readable)).await?;
        let reason = match user {
            Some(user) if fits && user.is_active() && organization.is_active() => {
                self.server.record_sign_in(org, &user, METHOD, origin).await?;
                return Ok(SignIn::Accepted(user));
            }
            _ if !organization.is_active() => "organization_disabled",
            Some(_) if fits => "user_blocked",
            Some(_) => "wrong_password",
            None => "unknown_user",
        };
        self.server.record_failed_sign_in(org, email, METHOD, reason, origin).await?;
        Ok(SignIn::Refused)
    }

    /// How many seconds somebody has to wait before the next try; `None` for not at all.
    async fn wait(
        &self,
        organization: &Organization,
        email: &str,
        origin: &Origin,
    ) -> Result<Option<u64>, StoreError> {
        let Some(limits) = self.limits else { return Ok(None) };
        let peer = origin.ip.map(|ip| ip.to_string()).unwrap_or_default();
        let mut account = format!("sign-in {peer} {}", email.to_lowercase());
        account.truncate(account.floor_char_boundary(MAX_SOURCE));
        for (source, limit) in [(format!("sign-in {peer}"), limits.address), (account, limits.account)] {
            let (admission, now) = self.server.rate_limit(&organization.id, &source, limit).await?;
            if !admission.admitted {
                return Ok(Some(admission.resets_at.since(now).as_secs() + 1));
            }
        }
        Ok(None)
    }

    async fn find(&self, organization: &Organization, email: &str) -> Result<Option<Arc<User>>, ApiError> {
        if !is_email(email) {
            return Ok(None);
        }
        self.person(organization, email).await
    }

    async fn person(&self, organization: &Organization, name: &str) -> Result<Option<Arc<User>>, ApiError> {
        match self.server.user(&organization.id, name).await {
            Ok(user) => Ok(Some(user)),
            Err(ApiError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Who is signed in, by the cookie of a request.
    async fn session(
        &self,
        organization: &Organization,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Option<(Session, Secret, Arc<User>)>, ApiError> {
        let Some((session, cookie)) = self.cookies.session(headers) else { return Ok(None) };
        let Some(holder) = session.holder(organization, now) else { return Ok(None) };
        let user = self.person(organization, &UserId::to_string(&holder)).await?;
        let Some(user) = user.filter(|user| session.stands_on(user)) else { return Ok(None) };
        let ended = self.server.is_session_ended(&organization.id, &cookie.hash()).await?;
        Ok((!ended).then_some((session, cookie, user)))
    }

    /// The sign-in page, for a browser with this pre-session or with none yet.
    async fn page(
        &self,
        organization: &Organization,
        pre_session: Option<String>,
        status: StatusCode,
        form: Form<'_>,
    ) -> Result<Response<String>, StoreError> {
        let org = &organization.id;
        let target = self.target(organization, form.return_to).await?;
        let fresh = pre_session.is_none();
        let pre_session = pre_session.unwrap_or_else(Cookies::new_pre_session);
        let token = self.cookies.form_token(org, &pre_session);
        let action = self.site.url(org, "login/submit");
        let form = Form { action: &action, organization: &organization.name, token: &token, ..form };
        let mut page = page::sign_in(status, &form, target.as_deref());
        if fresh && let Some(cookie) = self.cookies.begin_pre_session(&pre_session) {
            page.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        Ok(page)
    }

    /// Where a submitted form may lead besides this server: to the client whose request waits at `return_to`, if that is a
    /// good one.
    async fn target(
        &self,
        organization: &Organization,
        return_to: &str,
    ) -> Result<Option<String>, StoreError> {
        let query = return_to.split_once('?').map_or("", |(_, query)| query);
        match Params::from_form(query.as_bytes()) {
            Ok(params) => self.server.answer_origin(organization, &params).await,
            Err(_) => Ok(None),
        }
    }
}

#[async_trait]
impl UserAuthenticator for Accounts {
    async fn signed_in(
        &self,
        organization: &Organization,
        headers: &HeaderMap,
    ) -> Result<Option<SignedIn>, StoreError> {
        let found = self.session(organization, headers, self.server.now()).await;
        match found {
            Ok(None) => Ok(None),
            Ok(Some((session, cookie, user))) => Ok(Some(SignedIn {
                user: user.id,
                at: session.since(),
                amr: vec![METHOD.to_owned()],
                session: cookie.hash(),
            })),
            Err(ApiError::Store(error)) => Err(error),
            Err(error) => Err(StoreError::unavailable("finding who is signed in", error)),
        }
    }

    async fn sign_in_page(
        &self,
        organization: &Organization,
        headers: &HeaderMap,
        resume: &str,
    ) -> Result<Response<String>, StoreError> {
        let Some(return_to) = self.site.checked_return(&organization.id, resume) else {
            return Ok(bad_return());
        };
        let form = Form { return_to, ..Form::default() };
        // A form that is open in another tab stays good.
        self.page(organization, self.cookies.pre_session(headers), StatusCode::OK, form).await
    }

    fn sign_in_path(&self, organization: &Organization) -> String {
        self.site.url(&organization.id, "login")
    }
}

/// The page of a link that leads nowhere on this server.
fn bad_return() -> Response<String> {
    let text = "This link cannot be used. Go back to the application and start again.";
    page::notice(StatusCode::BAD_REQUEST, "Nothing to sign in for", text)
}

/// How people prove who they are (RFC 8176).
const METHOD: &str = "pwd";

/// How often one address may try one account in a minute.
const PER_ACCOUNT: u32 = 10;

/// The longest password that anybody can have.
const MAX_PASSWORD: usize = 256;

/// How many bytes the name of a counted source may have.
const MAX_SOURCE: usize = 256;
