//! The people of an organization.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{ApiError, AuthorizationServer, Caller, jit::callback_url, retrying, shown::Shows, written};
use crate::{
    agent::checked_text,
    audit::{Actor, ActorKind, Event, EventKind, Origin, Target},
    capability::Capability,
    clock::Timestamp,
    id::{Number, OrgId, UserId},
    policy::Holder,
    principal::{Identity, Principal},
    secret::{Secret, SecretHash, sha256},
    store::{Handle, Insert, Listing, Page, Revoked, StoreError, UserKey, UserStore},
    user::{User, is_email},
};

/// What an administrator registers as a person.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct NewUserRequest {
    /// The e-mail address.
    pub email: Option<String>,
    /// The first password; kept as a hash.
    pub password: Option<Secret>,
    /// Display name.
    pub name: Option<String>,
    /// Whether the person administers the organization.
    #[serde(rename = "isAdmin", alias = "is_admin")]
    pub is_admin: Option<bool>,
    /// Whether approval requests reach the person.
    pub approver: Option<Approver>,
    /// Roles that the person gets, by id or slug.
    pub roles: Option<Vec<String>>,
}

/// The members of a person that an administrator changes. Absent and `null` leave a member as it is.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct UserPatch {
    /// Display name; empty takes it away.
    pub name: Option<String>,
    /// Whether approval requests reach the person; replaces all of it.
    pub approver: Option<Approver>,
    /// Whether the person administers the organization.
    #[serde(rename = "isAdmin", alias = "is_admin")]
    pub is_admin: Option<bool>,
    /// Whether nothing of theirs works.
    pub blocked: Option<bool>,
    /// The contrary of `blocked`.
    #[serde(rename = "isActive", alias = "is_active")]
    pub is_active: Option<bool>,
    /// The e-mail address that they have; it never changes.
    pub email: Option<String>,
    /// Not changed here.
    pub password: Option<Secret>,
    /// Not changed here: roles have routes of their own.
    pub roles: Option<Value>,
}

impl UserPatch {
    fn apply(&self, user: &mut User) -> Result<(), ApiError> {
        let refused = |member, problem: &str| Err(ApiError::Invalid { member, problem: problem.to_owned() });
        if self.email.as_ref().is_some_and(|email| email.to_lowercase() != user.email) {
            return refused("email", "never changes");
        }
        if self.password.is_some() {
            return refused("password", "is set when the user is made");
        }
        if self.roles.is_some() {
            return refused("roles", "are given and taken at /roles of the user");
        }
        if let Some(name) = &self.name {
            user.name = display_name(name)?;
        }
        if let Some(approver) = &self.approver {
            approver.apply(user)?;
        }
        if let Some(is_admin) = self.is_admin {
            let _ = user.set_admin(is_admin);
        }
        let _ = match (self.blocked, self.is_active) {
            (Some(blocked), Some(active)) if blocked == active => {
                return refused("blocked", "is the contrary of isActive");
            }
            (Some(true), _) | (_, Some(false)) => user.block(),
            (Some(false), _) | (_, Some(true)) => user.unblock(),
            (None, None) => false,
        };
        Ok(())
    }
}

/// The approver channel of a person.
#[derive(Clone, Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct Approver {
    /// Whether it is on. With a webhook it is.
    pub enabled: Option<bool>,
    /// An `https` URL that is told of everything that waits for the person, with a signature.
    pub webhook: Option<String>,
}

impl Approver {
    fn apply(&self, user: &mut User) -> Result<(), ApiError> {
        let webhook = self.webhook.as_deref().filter(|url| !url.is_empty());
        if webhook.is_some() && self.enabled == Some(false) {
            let problem = "is off, and so has no webhook".to_owned();
            return Err(ApiError::Invalid { member: "approver", problem });
        }
        user.approver = self.enabled == Some(true);
        user.approver_webhook = webhook.map(|url| callback_url("approver", url)).transpose()?;
        Ok(())
    }
}

/// What the log says of a channel. A whole URL may be all that it takes to write to it.
fn channel(user: &User) -> Value {
    let host = user.approver_webhook.as_deref().and_then(|url| Url::parse(url).ok());
    json!({ "enabled": user.approver, "webhook": host.map(|url| url.origin().ascii_serialization()) })
}

/// What the log says of a person. Not the address: it is personal, and who is meant is clear without it.
fn told(user: &User) -> Value {
    json!({
        "name": user.name,
        "isAdmin": user.is_admin,
        "blocked": !user.is_active(),
        "approver": channel(user),
        "hasPassword": user.password_hash.is_some(),
    })
}

/// Whether `principal` may make `next` of the person `current`, as far as that decides who administers the organization.
/// Nobody ends their own access: the last administrator could shut everybody out. And nobody who is no full
/// administrator ends or restores the access of one.
fn check_standing(principal: &Principal, current: &User, next: &User) -> Result<(), ApiError> {
    if (current.is_admin, current.status) == (next.is_admin, next.status) {
        return Ok(());
    }
    if let Identity::User(person) = &principal.identity
        && person.user.id == current.id
    {
        return Err(ApiError::OwnAccess("Nobody ends their own access: another administrator does."));
    }
    if (current.is_admin || next.is_admin) && !is_full_administrator(principal) {
        return Err(ApiError::Forbidden("Only a full administrator decides who administers."));
    }
    Ok(())
}

fn is_full_administrator(principal: &Principal) -> bool {
    Capability::parse("admin").is_ok_and(|admin| principal.decide(&admin).is_allow())
}

/// A display name, if one is left.
fn display_name(name: &str) -> Result<Option<String>, ApiError> {
    Ok(Some(checked_text("name", name, 0, 128)?).filter(|name| !name.is_empty()))
}

impl AuthorizationServer {
    /// Adds a person.
    ///
    /// # Errors
    /// [`ApiError`] if a member is not acceptable or the e-mail address is taken.
    pub async fn create_user(
        &self,
        org: &OrgId,
        request: &NewUserRequest,
        principal: &Principal,
        caller: &Caller,
    ) -> Result<Arc<User>, ApiError> {
        let now = self.now();
        let invalid = |member, problem: &str| ApiError::Invalid { member, problem: problem.to_owned() };
        let email = request.email.as_deref().unwrap_or_default();
        if !is_email(email) {
            return Err(invalid("email", "must be an e-mail address"));
        }
        let roles = request.roles.as_deref().unwrap_or_default();
        let gives = ["admin:roles", "admin:write"].map(Capability::parse);
        if !roles.is_empty() && !gives.iter().flatten().any(|scope| principal.decide(scope).is_allow()) {
            return Err(ApiError::Forbidden("Giving roles needs admin:roles."));
        }
        for role in roles {
            match self.role(org, role).await {
                Ok(_) => {}
                Err(ApiError::NotFound(_)) => return Err(invalid("roles", "name an unknown role")),
                Err(error) => return Err(error),
            }
        }
        let mut user = User::new(email, now);
        if let Some(name) = &request.name {
            user.name = display_name(name)?;
        }
        user.is_admin = request.is_admin == Some(true);
        if user.is_admin && !is_full_administrator(principal) {
            return Err(ApiError::Forbidden("Only a full administrator makes administrators."));
        }
        if let Some(approver) = &request.approver {
            approver.apply(&mut user)?;
        }
        if let Some(password) = &request.password {
            let Some(hasher) = &self.inner.password_hasher else {
                return Err(invalid("password", "is not supported by this server"));
            };
            if !(8..=256).contains(&password.expose().len()) {
                return Err(invalid("password", "must be 8 to 256 bytes"));
            }
            user.password_hash = Some(hasher.hash(password).await?);
        }
        let event = caller
            .event(EventKind::UserCreated, "user created", now)
            .on(user_target(&user))
            .with("is_admin", user.is_admin)
            .with("approver", channel(&user))
            .made(told(&user));
        match self.stores().users.insert(org, &user, &event).await? {
            Insert::Inserted => {
                // In this order: if it stops in between, the person is there and has nothing.
                if !roles.is_empty() {
                    self.assign_roles(org, &Holder::User(user.id), roles, false, caller).await?;
                }
                Ok(Arc::new(user))
            }
            Insert::Taken(_) => Err(ApiError::Conflict("A user with this e-mail address exists.")),
        }
    }

    /// The person with this UUID, integer id or e-mail address.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn user(&self, org: &OrgId, name: &str) -> Result<Arc<User>, ApiError> {
        self.find_user(org, name).await?.ok_or(ApiError::NotFound("user"))
    }

    pub(super) async fn find_user(&self, org: &OrgId, name: &str) -> Result<Option<Arc<User>>, ApiError> {
        user_named(&self.stores().users, org, name).await
    }

    /// Records that a person proved to the host who they are, by `method` (RFC 8176).
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be recorded; the host must not sign the person in then.
    pub async fn record_sign_in(
        &self,
        org: &OrgId,
        user: &User,
        method: &'static str,
        origin: &Origin,
    ) -> Result<(), StoreError> {
        let actor = Actor::new(ActorKind::User, user.id.to_string()).named(&*user.email);
        let event = Event::new(EventKind::UserAuthenticated, actor, "signed in", self.now())
            .on(user_target(user))
            .by_method(method)
            .from_origin(origin);
        self.stores().audit.append(org, &[event]).await
    }

    /// Records that somebody failed to prove to the host who they are. `claimed` is the address they gave; it is shown only
    /// if it is one, for people type their password in its place.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be recorded.
    pub async fn record_failed_sign_in(
        &self,
        org: &OrgId,
        claimed: &str,
        method: &'static str,
        reason: &'static str,
        origin: &Origin,
    ) -> Result<(), StoreError> {
        let claimed = if is_email(claimed) { claimed } else { "unknown" };
        let actor = Actor::new(ActorKind::Unknown, claimed);
        let event = Event::new(EventKind::UserAuthenticated, actor, "sign-in refused", self.now())
            .by_method(method)
            .from_origin(origin)
            .failed(reason);
        self.stores().audit.append(org, &[event]).await
    }

    /// Ends a session of the host's: from now on [`is_session_ended`](Self::is_session_ended) is true, on every replica.
    /// `session` is what [`SignedIn`](crate::people::SignedIn) calls it, `until` the instant from which it would not hold
    /// anyway.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be ended now; the host must not say that it was.
    pub async fn end_session(
        &self,
        org: &OrgId,
        user: UserId,
        session: &SecretHash,
        until: Timestamp,
        origin: &Origin,
    ) -> Result<(), StoreError> {
        let actor = Actor::new(ActorKind::User, user.to_string());
        let event = Event::new(EventKind::UserSignedOut, actor, "signed out", self.now())
            .on(Target::new("user", user.to_string()))
            .from_origin(origin);
        let keep_until = until.plus(SESSION_SKEW);
        match self.stores().grants.revoke(org, session_handle(org, session), keep_until, &event).await? {
            Revoked::Revoked | Revoked::AlreadyRevoked => Ok(()),
        }
    }

    /// Whether a session of the host's was ended before its time.
    ///
    /// # Errors
    /// [`StoreError`] if that cannot be found out now; the session must not count then.
    pub async fn is_session_ended(&self, org: &OrgId, session: &SecretHash) -> Result<bool, StoreError> {
        self.stores().grants.any_revoked(org, &[session_handle(org, session)]).await
    }

    /// A page of the people, by e-mail address.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn users(
        &self,
        org: &OrgId,
        search: Option<&str>,
        page: Page,
    ) -> Result<Listing<Arc<User>>, ApiError> {
        Ok(self.stores().users.list(org, search, page).await?)
    }

    /// Changes a person. What somebody was given as an administrator ends with that, and stays dead.
    ///
    /// # Errors
    /// [`ApiError`] if a member is not acceptable, or there is no such person; [`ApiError::OwnAccess`] if people would end
    /// their own access, [`ApiError::Forbidden`] if somebody else than a full administrator (`admin`) would say who
    /// administers.
    pub async fn update_user(
        &self,
        org: &OrgId,
        name: &str,
        patch: &UserPatch,
        principal: &Principal,
        caller: &Caller,
    ) -> Result<Arc<User>, ApiError> {
        let now = self.now();
        retrying(|| async {
            let current = user_named(&self.stores().uncached().users, org, name).await?;
            let current = current.ok_or(ApiError::NotFound("user"))?;
            caller.expects(&*current)?;
            let mut next = (*current).clone();
            patch.apply(&mut next)?;
            check_standing(principal, &current, &next)?;
            if next == *current {
                return Ok(Some(current));
            }
            next.updated_at = now;
            // Whoever watches for blocks finds this one too.
            let (kind, text) = match (current.is_active(), next.is_active()) {
                (true, false) => (EventKind::UserBlocked, "user updated and blocked"),
                (false, true) => (EventKind::UserUnblocked, "user updated and unblocked"),
                (true, true) | (false, false) => (EventKind::UserUpdated, "user updated"),
            };
            let event =
                caller.event(kind, text, now).on(user_target(&next)).changed(&told(&current), &told(&next));
            written(self.stores().users.update(org, &next, &event).await?, "user", || {
                next.version += 1;
                Arc::new(next)
            })
        })
        .await
    }

    /// Blocks or unblocks a person. What was issued before a block stays dead.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none; [`ApiError::OwnAccess`] for whoever would block themselves,
    /// [`ApiError::Forbidden`] if it is an administrator and the caller no full one (`admin`).
    pub async fn set_user_blocked(
        &self,
        org: &OrgId,
        name: &str,
        blocked: bool,
        principal: &Principal,
        caller: &Caller,
    ) -> Result<Arc<User>, ApiError> {
        let now = self.now();
        retrying(|| async {
            let current = user_named(&self.stores().uncached().users, org, name).await?;
            let current = current.ok_or(ApiError::NotFound("user"))?;
            caller.expects(&*current)?;
            let mut next = (*current).clone();
            let (changed, kind, text) = if blocked {
                (next.block(), EventKind::UserBlocked, "user blocked")
            } else {
                (next.unblock(), EventKind::UserUnblocked, "user unblocked")
            };
            if !changed {
                return Ok(Some(current));
            }
            check_standing(principal, &current, &next)?;
            next.updated_at = now;
            let event =
                caller.event(kind, text, now).on(user_target(&next)).changed(&told(&current), &told(&next));
            written(self.stores().users.update(org, &next, &event).await?, "user", || {
                next.version += 1;
                Arc::new(next)
            })
        })
        .await
    }
}

async fn user_named(
    users: &Arc<dyn UserStore>,
    org: &OrgId,
    name: &str,
) -> Result<Option<Arc<User>>, ApiError> {
    // A number has one form here: `042` and `+42` are no other names of 42.
    let number = name.parse().ok().filter(|number: &u64| number.to_string() == name);
    Ok(match (UserId::parse(name), number) {
        (Ok(id), _) => users.find(org, UserKey::Id(id)).await?,
        (_, Some(number)) => users.find(org, UserKey::Number(Number::new(number))).await?,
        _ => users.find(org, UserKey::Email(&name.to_lowercase())).await?,
    })
}

/// How much later than this server's another one's clock may find a session at its end.
const SESSION_SKEW: Duration = Duration::from_secs(300);

/// What marks a session. Its kind keeps it apart from the handles of tokens.
fn session_handle(org: &OrgId, session: &SecretHash) -> Handle {
    let digest = sha256(&[org.as_str().as_bytes(), b"\0s\0", session.as_bytes()].concat());
    let mut bytes = [b's'; 12];
    bytes[1..].copy_from_slice(&digest[..11]);
    Handle::from_bytes(bytes)
}

fn user_target(user: &User) -> Target {
    Target::new("user", user.id.to_string())
}
