//! A site on which clients publish their keys.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use serde_json::{Value, json};

use crate::{
    AttackerKey,
    https::{Answer, Authority},
    unique,
};

/// A site with one address per client, by https.
#[derive(Debug)]
pub struct KeySite {
    origin: String,
    pages: Arc<Mutex<HashMap<String, Page>>>,
}

#[derive(Debug)]
struct Page {
    status: u16,
    headers: String,
    body: Value,
    asked: u64,
    posted: Vec<Posted>,
}

/// What somebody posted to a page.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "what a test looks at")]
pub struct Posted {
    /// Its fields.
    pub headers: Vec<(String, String)>,
    /// Its content.
    pub body: String,
}

impl KeySite {
    /// The one that servers may fetch from which know of our sites.
    pub fn trusted() -> &'static Self {
        static SITE: OnceLock<KeySite> = OnceLock::new();
        SITE.get_or_init(|| Self::under(Authority::trusted()))
    }

    /// One whose certificate nobody trusts.
    pub fn untrusted() -> Self {
        Self::under(&Authority::new())
    }

    /// Another one, whose certificate is as good.
    pub fn another() -> Self {
        Self::under(Authority::trusted())
    }

    fn under(authority: &Authority) -> Self {
        let pages = Arc::<Mutex<HashMap<String, Page>>>::default();
        let served = pages.clone();
        let port = authority.serve(move |received| {
            let mut pages = served.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(page) = pages.get_mut(&received.target) else { return Answer::json(404, &Value::Null) };
            page.asked += 1;
            if received.method == "POST" {
                page.posted.push(Posted { headers: received.headers.clone(), body: received.body.clone() });
            }
            let Answer { status, headers, body } = Answer::json(page.status, &page.body);
            Answer { status, headers: headers + &page.headers, body }
        });
        Self { origin: format!("https://localhost:{port}"), pages }
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// A new address, with no keys yet.
    pub fn page(&self) -> KeyPage<'_> {
        self.page_at(format!("/{}/jwks.json", unique("client")))
    }

    /// The metadata of a new issuer, with no keys yet, and its name.
    pub fn issuer(&self) -> (String, KeyPage<'_>) {
        let path = format!("/{}", unique("issuer"));
        (format!("{}{path}", self.origin), self.page_at(format!("{path}/.well-known/openid-configuration")))
    }

    fn page_at(&self, path: String) -> KeyPage<'_> {
        let page = KeyPage { site: self, path };
        page.publish(&[]);
        page
    }
}

/// An address at which somebody publishes keys.
#[derive(Debug)]
pub struct KeyPage<'a> {
    site: &'a KeySite,
    path: String,
}

impl KeyPage<'_> {
    /// Where it is.
    pub fn uri(&self) -> String {
        format!("{}{}", self.site.origin, self.path)
    }

    /// How often it was asked for.
    pub fn asked(&self) -> u64 {
        self.with(|page| page.asked)
    }

    /// What was posted to it.
    pub fn posted(&self) -> Vec<Posted> {
        self.with(|page| page.posted.clone())
    }

    /// Shows these keys under their ids, and nothing else.
    pub fn publish(&self, keys: &[(&str, &AttackerKey)]) {
        let keys: Vec<Value> = keys.iter().map(|(kid, key)| key.jwk(kid)).collect();
        self.show(json!({ "keys": keys }));
    }

    /// Shows this.
    pub fn show(&self, body: Value) {
        self.with(|page| {
            page.status = 200;
            page.headers.clear();
            page.body = body;
        });
    }

    /// Answers with this status from now on, and points to `location` if there is one.
    pub fn fail(&self, status: u16, location: Option<&str>) {
        self.with(|page| {
            page.status = status;
            page.headers = location.map(|to| format!("Location: {to}\r\n")).unwrap_or_default();
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut Page) -> T) -> T {
        let mut pages = self.site.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh =
            || Page { status: 200, headers: String::new(), body: Value::Null, asked: 0, posted: Vec::new() };
        change(pages.entry(self.path.clone()).or_insert_with(fresh))
    }
}
