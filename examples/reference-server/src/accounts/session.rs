//! What a browser carries: the cookie of a session, and the cookie that a sign-in form belongs to.
//!
//! A session is its cookie. It is authenticated under a key that comes from the master key, so every replica reads what any of
//! them wrote, a restart ends nothing, and no store grows by people who sign in. Signing out marks the cookie's hash in the
//! store until the session would have ended anyway, so a copy of the cookie is worth nothing then.

use std::{fmt, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};
use lumoauth_core::{
    clock::Timestamp,
    id::{OrgId, UserId},
    keys::{KeyError, MasterKey},
    organization::Organization,
    random::random_bytes,
    secret::Secret,
    user::User,
};
use serde::{Deserialize, Serialize};

/// How long a person stays signed in.
pub(super) const LIFE: Duration = Duration::from_secs(12 * 3600);

/// Who is signed in, where, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    org: String,
    user: String,
    /// When the person proved it, in Unix milliseconds: a request may want a sign-in that is newer than itself.
    at: u64,
    until: u64,
    /// What the epochs of the organization and of the person were: whatever ends their tokens ends this.
    org_epoch: u32,
    user_epoch: u32,
    /// Makes two sessions that begin in one second two.
    id: String,
}

impl Session {
    /// A session that begins now.
    pub(super) fn new(organization: &Organization, user: &User, now: Timestamp) -> Self {
        Self {
            org: organization.id.as_str().to_owned(),
            user: user.id.to_string(),
            at: now.unix_millis(),
            until: now.plus(LIFE).unix_seconds(),
            org_epoch: organization.epoch,
            user_epoch: user.epoch,
            id: URL_SAFE_NO_PAD.encode(random_bytes::<16>()),
        }
    }

    /// Whose it is, if it holds in this organization now.
    pub(super) fn holder(&self, organization: &Organization, now: Timestamp) -> Option<UserId> {
        let holds = self.org == organization.id.as_str()
            && self.org_epoch == organization.epoch
            && organization.is_active()
            && now < self.until();
        if holds { UserId::parse(&self.user).ok() } else { None }
    }

    /// Whether `user`, its holder, is still as they were when they signed in.
    pub(super) fn stands_on(&self, user: &User) -> bool {
        user.is_active() && user.epoch == self.user_epoch
    }

    /// Whose it is and in which organization, whether it holds or not.
    pub(super) fn owner(&self) -> Option<(OrgId, UserId)> {
        Some((OrgId::parse(&self.org).ok()?, UserId::parse(&self.user).ok()?))
    }

    /// From when on it holds no more.
    pub(super) fn until(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.until)
    }

    /// When the person proved who they are.
    pub(super) fn since(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.at)
    }
}

/// Writes cookies and recognises its own.
pub(super) struct Cookies {
    key: hmac::Key,
    /// Whether browsers reach the server over TLS.
    secure: bool,
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookies").field("secure", &self.secure).finish_non_exhaustive()
    }
}

impl Cookies {
    /// Cookies under a key of their own that comes from `master`.
    ///
    /// # Errors
    /// [`KeyError`] if the key cannot be had.
    pub(super) fn new(master: &MasterKey, secure: bool) -> Result<Self, KeyError> {
        let key = master.derive("reference-server sessions")?;
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()), secure })
    }

    /// The value of a session's cookie.
    pub(super) fn seal(&self, session: &Session) -> Secret {
        // A record of texts and numbers can always be written.
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(session).unwrap_or_default());
        let tag = self.tag("session", &payload);
        Secret::from(format!("{payload}.{tag}"))
    }

    /// The session of a request, with the value of its cookie; nothing that this server did not write itself.
    pub(super) fn session(&self, headers: &HeaderMap) -> Option<(Session, Secret)> {
        cookies(headers, self.session_name()).find_map(|value| {
            let (payload, tag) = value.split_once('.')?;
            let genuine = value.len() <= MAX_COOKIE && self.is_tag("session", payload, tag);
            let payload = genuine.then(|| URL_SAFE_NO_PAD.decode(payload).ok())??;
            Some((serde_json::from_slice(&payload).ok()?, Secret::from(value)))
        })
    }

    /// What a form must send along that goes to a browser with this pre-session.
    pub(super) fn form_token(&self, org: &OrgId, pre_session: &str) -> String {
        self.tag("form", &format!("{org} {pre_session}"))
    }

    /// Whether a form comes from the browser that it was given to.
    pub(super) fn accepts_form(&self, org: &OrgId, headers: &HeaderMap, token: &str) -> bool {
        self.pre_session(headers)
            .is_some_and(|pre_session| self.is_tag("form", &format!("{org} {pre_session}"), token))
    }

    /// What a form must send along by which the holder of this session decides something.
    pub(super) fn decision_token(&self, org: &OrgId, session: &Secret) -> String {
        self.tag("decision", &format!("{org} {}", session.expose()))
    }

    /// Whether a form by which something is decided was shown in the session of this request.
    pub(super) fn accepts_decision(&self, org: &OrgId, headers: &HeaderMap, token: &str) -> bool {
        self.session(headers).is_some_and(|(_, session)| {
            self.is_tag("decision", &format!("{org} {}", session.expose()), token)
        })
    }

    /// The pre-session of a request.
    pub(super) fn pre_session(&self, headers: &HeaderMap) -> Option<String> {
        let is_ours =
            |value: &&str| URL_SAFE_NO_PAD.decode(value).is_ok_and(|bytes| bytes.len() == PRE_SESSION);
        cookies(headers, self.pre_session_name()).find(is_ours).map(str::to_owned)
    }

    /// A new pre-session.
    pub(super) fn new_pre_session() -> String {
        URL_SAFE_NO_PAD.encode(random_bytes::<PRE_SESSION>())
    }

    /// `Set-Cookie` of a session that begins.
    pub(super) fn begin(&self, value: &Secret) -> Option<HeaderValue> {
        let text = self.cookie(self.session_name(), value.expose(), Some(LIFE));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// `Set-Cookie` of a session that ends.
    pub(super) fn end(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.cookie(self.session_name(), "", Some(Duration::ZERO))).ok()
    }

    /// `Set-Cookie` of a pre-session, which is gone with the browser.
    pub(super) fn begin_pre_session(&self, pre_session: &str) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.cookie(self.pre_session_name(), pre_session, None)).ok()
    }

    fn cookie(&self, name: &str, value: &str, life: Option<Duration>) -> String {
        let life = life.map(|life| format!("; Max-Age={}", life.as_secs())).unwrap_or_default();
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{name}={value}; Path=/{life}; HttpOnly; SameSite=Lax{secure}")
    }

    /// A browser takes `__Host-` only over TLS, and then from this host alone: no neighbour can plant one. It wants `Path=/`
    /// for that, also where the public URL has a path.
    const fn session_name(&self) -> &'static str {
        if self.secure { "__Host-lumoauth_session" } else { "lumoauth_session" }
    }

    const fn pre_session_name(&self) -> &'static str {
        if self.secure { "__Host-lumoauth_sign_in" } else { "lumoauth_sign_in" }
    }

    fn tag(&self, purpose: &str, text: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, format!("{purpose} {text}").as_bytes()))
    }

    fn is_tag(&self, purpose: &str, text: &str, tag: &str) -> bool {
        let Ok(tag) = URL_SAFE_NO_PAD.decode(tag) else { return false };
        hmac::verify(&self.key, format!("{purpose} {text}").as_bytes(), &tag).is_ok()
    }
}

/// The longest value that is looked at; ours have less than half of it.
const MAX_COOKIE: usize = 1024;

/// How many random bytes a pre-session has.
const PRE_SESSION: usize = 32;

/// The values of the cookies with this name. A site beside ours can add some, but not in great numbers.
fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    const MOST: usize = 4;
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(move |pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
        .take(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_unix_seconds(1_790_000_000)
    }

    fn acme() -> Organization {
        Organization::new(OrgId::parse("acme").unwrap(), "Acme", now())
    }

    fn alice() -> User {
        User::new("alice@acme.test", now())
    }

    fn cookies_of(secure: bool) -> Cookies {
        let master = MasterKey::from_base64("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
        Cookies::new(&master, secure).unwrap()
    }

    fn sent(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers
            .insert(header::COOKIE, HeaderValue::try_from(format!("a=b; lumoauth_session={value}")).unwrap());
        headers
    }

    #[test]
    fn a_session_is_read_by_every_server_with_the_master_key() {
        let session = Session::new(&acme(), &alice(), now());
        let value = cookies_of(false).seal(&session);
        let (read, same) = cookies_of(false).session(&sent(value.expose())).unwrap();
        assert_eq!((read, same.expose()), (session, value.expose()));
        assert!(value.expose().len() < MAX_COOKIE / 2);
        let other = Cookies::new(&MasterKey::generate(), false).unwrap();
        assert!(other.session(&sent(value.expose())).is_none());
    }

    #[test]
    fn no_byte_of_a_session_can_be_changed() {
        let cookies = cookies_of(false);
        let value = cookies.seal(&Session::new(&acme(), &alice(), now()));
        let value = value.expose();
        for (n, was) in value.bytes().enumerate() {
            let other = if was == b'A' { 'B' } else { 'A' };
            let mut forged = value.to_owned();
            forged.replace_range(n..=n, &other.to_string());
            let read = cookies.session(&sent(&forged));
            assert!(read.is_none(), "{n}");
        }
        let (payload, _) = value.split_once('.').unwrap();
        // A tag of another purpose is none.
        let form = cookies.tag("form", payload);
        for forged in
            ["", ".", payload, &format!("{payload}."), &format!("{payload}.{form}"), &"x".repeat(2000)]
        {
            assert!(cookies.session(&sent(forged)).is_none(), "{forged}");
        }
    }

    #[test]
    fn a_session_ends_on_time_and_with_what_it_stands_on() {
        let (acme, alice) = (acme(), alice());
        let session = Session::new(&acme, &alice, now());
        let end = now().plus(LIFE);
        assert_eq!(session.holder(&acme, end.minus(Duration::from_secs(1))), Some(alice.id));
        assert_eq!(session.holder(&acme, end), None);
        let globex = Organization::new(OrgId::parse("globex").unwrap(), "Globex", now());
        assert_eq!(session.holder(&globex, now()), None);
        let mut disabled = acme.clone();
        assert!(disabled.set_active(false));
        assert_eq!(session.holder(&disabled, now()), None);
        assert!(disabled.set_active(true));
        assert_eq!(session.holder(&disabled, now()), None, "what was before stays dead");
        assert!(session.stands_on(&alice));
        let mut blocked = alice.clone();
        assert!(blocked.block());
        assert!(!session.stands_on(&blocked));
        assert!(blocked.unblock());
        assert!(!session.stands_on(&blocked), "what was before stays dead");
    }

    #[test]
    fn cookies_keep_to_themselves() {
        let value = Secret::from("v");
        let plain = cookies_of(false).begin(&value).unwrap();
        assert_eq!(plain, "lumoauth_session=v; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax");
        let secure = cookies_of(true).begin(&value).unwrap();
        assert_eq!(
            secure,
            "__Host-lumoauth_session=v; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax; Secure"
        );
        assert!(secure.is_sensitive());
        let end = cookies_of(false).end().unwrap();
        assert_eq!(end, "lumoauth_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
    }

    #[test]
    fn a_form_belongs_to_one_browser_and_one_organization() {
        let cookies = cookies_of(false);
        let (acme, globex) = (OrgId::parse("acme").unwrap(), OrgId::parse("globex").unwrap());
        let browser = |pre_session: &str| {
            let mut headers = HeaderMap::new();
            let cookie = format!("lumoauth_sign_in={pre_session}");
            headers.insert(header::COOKIE, HeaderValue::try_from(cookie).unwrap());
            headers
        };
        let (mine, other) = (Cookies::new_pre_session(), Cookies::new_pre_session());
        let token = cookies.form_token(&acme, &mine);
        assert!(cookies.accepts_form(&acme, &browser(&mine), &token));
        assert!(!cookies.accepts_form(&acme, &browser(&other), &token));
        assert!(!cookies.accepts_form(&globex, &browser(&mine), &token));
        assert!(!cookies.accepts_form(&acme, &HeaderMap::new(), &token));
        assert!(!cookies.accepts_form(&acme, &browser(&mine), ""));
        // A chosen pre-session is no way to a token.
        assert!(!cookies.accepts_form(&acme, &browser("x"), &cookies.form_token(&acme, "x")));
    }
}
