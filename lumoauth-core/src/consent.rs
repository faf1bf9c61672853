//! What people allowed clients and agents to do for them.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    capability::{Capability, Scope},
    clock::Timestamp,
    id::{AAuthResourceId, ClientId, ConsentId, McpServerId, ParseIdError, UserId},
};

/// What a client may know about the person. It learns that here, so it does not matter for which MCP server it asked. For an
/// AAuth resource these are words like others: it says itself what they mean there, and nobody learns anything here by them.
const ABOUT_THE_PERSON: [&str; 3] = ["openid", "profile", "email"];

/// What one person allows one client, an agent or an ordinary one.
///
/// There is one record per person and client, for ever: withdrawing it raises its epoch, so that every token that stands
/// on it is dead and stays dead, also when the person agrees anew.
///
/// What a person allows an agent covers the agents that it hands the work on to (a chain of actors): people know whom they
/// asked, and not what it is made of. Each of those is named in the tokens and in the log, is bounded by what was allowed here
/// and by what it may do itself, and stands on this record: withdrawing it ends them all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Consent {
    /// Its identity.
    pub id: ConsentId,
    /// Who allows it.
    pub user: UserId,
    /// To whom.
    pub client_id: ClientId,
    /// What, at this server itself; and what the client may know about the person, whether it asked for that here or for an
    /// MCP server. An item is allowed if it is listed, literally: people agree to what they read.
    pub scope: Scope,
    /// What, at each place that is not this server. What is allowed at one is not allowed at another.
    #[serde(default)]
    pub at: BTreeMap<Place, Scope>,
    /// Whether it holds.
    pub active: bool,
    /// Raised whenever all tokens that stand on it must die.
    pub epoch: u32,
    /// The version a store guards updates with.
    pub version: u64,
    /// When the person first agreed. What is older than its client was given to another one of the same id.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Where else than at this server something may be allowed. Its text form is the id, whose prefix says what it is.
///
/// ```
/// use lumoauth_core::{consent::Place, id::AAuthResourceId};
///
/// let resource = AAuthResourceId::generate();
/// assert_eq!(Place::parse(resource.as_str())?, Place::AAuth(resource));
/// # Ok::<(), lumoauth_core::id::ParseIdError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Arc<str>", into = "Arc<str>")]
#[expect(clippy::exhaustive_enums, reason = "every place must be handled where people agree")]
pub enum Place {
    /// An MCP server.
    Mcp(McpServerId),
    /// An AAuth resource.
    AAuth(AAuthResourceId),
}

impl Place {
    /// Parses the text form.
    ///
    /// # Errors
    /// [`ParseIdError`] if the text is the id of nothing that can be a place.
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        match AAuthResourceId::parse(text) {
            Ok(id) => Ok(Self::AAuth(id)),
            Err(_) => McpServerId::parse(text).map(Self::Mcp),
        }
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Mcp(id) => id.as_str(),
            Self::AAuth(id) => id.as_str(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<Arc<str>> for Place {
    type Error = ParseIdError;

    fn try_from(text: Arc<str>) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Place> for Arc<str> {
    fn from(place: Place) -> Self {
        match place {
            Place::Mcp(id) => id.into(),
            Place::AAuth(id) => id.into(),
        }
    }
}

impl Consent {
    /// A consent to this at the server itself, which holds.
    pub fn new(user: UserId, client_id: ClientId, scope: Scope, now: Timestamp) -> Self {
        Self {
            id: ConsentId::generate(),
            user,
            client_id,
            scope,
            at: BTreeMap::new(),
            active: true,
            epoch: 0,
            version: 0,
            created_at: now,
            updated_at: now,
        }
    }

    /// Whether it holds for a client that was registered at `registered_at`. Ids can be registered again after their client is
    /// gone; nobody agreed to the newcomer.
    pub fn holds_for(&self, registered_at: Timestamp) -> bool {
        self.active && self.created_at >= registered_at
    }

    /// Whether it holds and lists every item of `scope` for `resource`; `None` is this server itself.
    pub fn covers(&self, resource: Option<&Place>, scope: &Scope) -> bool {
        let listed = |item: &Capability| {
            let place = if is_about_the_person(resource, item) { None } else { resource };
            self.listed_at(place).contains(item)
        };
        self.active && scope.as_slice().iter().all(listed)
    }

    /// Whether it lists `item` for an agent that the person did not send here, but that somebody hands their token to.
    ///
    /// Elsewhere, what the person allows there or at this server itself suffices. For this server only the latter
    /// does: a token for it can be exchanged for one of any MCP server.
    pub(crate) fn lets_act(&self, resource: Option<&Place>, item: &Capability) -> bool {
        self.listed_for(resource).any(|listed| listed == item)
    }

    /// Whether what it lists, there or at this server itself, comes to `item`: for work that goes on under it. Who read
    /// `read:*` has agreed to all of it, so what was narrowed to `read:a` meanwhile is not new.
    pub(crate) fn reaches(&self, resource: Option<&Place>, item: &Capability) -> bool {
        self.listed_for(resource).any(|listed| listed.covers(item))
    }

    /// Adds what the person agreed to for `resource`. After a withdrawal only that holds.
    pub fn grant(&mut self, resource: Option<&Place>, scope: &Scope) {
        if !self.active {
            self.scope = Scope::default();
            self.at.clear();
            self.active = true;
        }
        let (person, rest) = split(resource, scope);
        self.change(None, |before| Scope::new(before.as_slice().iter().chain(&person).cloned()));
        self.change(resource, |before| Scope::new(before.as_slice().iter().chain(&rest).cloned()));
    }

    /// Takes out what the person was asked for `resource` and did not choose. What was issued before lives on: to end that,
    /// the person withdraws.
    pub fn forget(&mut self, resource: Option<&Place>, scope: &Scope) {
        let (person, rest) = split(resource, scope);
        let without = |before: &Scope, gone: &[Capability]| {
            Scope::new(before.as_slice().iter().filter(|item| !gone.contains(item)).cloned())
        };
        self.change(None, |before| without(before, &person));
        self.change(resource, |before| without(before, &rest));
    }

    /// Everything it lists, wherever.
    pub fn everything(&self) -> Scope {
        let everywhere = self.at.values().flat_map(Scope::as_slice);
        Scope::new(self.scope.as_slice().iter().chain(everywhere).cloned())
    }

    /// What it lists there, and what it lists at this server itself as far as that means the same there.
    fn listed_for(&self, resource: Option<&Place>) -> impl Iterator<Item = &Capability> {
        let words_of_its_own = matches!(resource, Some(Place::AAuth(_)));
        let here = self.scope.as_slice().iter();
        let here = here.filter(move |item| !(words_of_its_own && is_about_the_person(None, item)));
        here.chain(self.listed_at(resource))
    }

    fn listed_at(&self, resource: Option<&Place>) -> &[Capability] {
        match resource {
            None => self.scope.as_slice(),
            Some(id) => self.at.get(id).map_or(&[], Scope::as_slice),
        }
    }

    fn change(&mut self, resource: Option<&Place>, change: impl FnOnce(&Scope) -> Scope) {
        match resource {
            None => self.scope = change(&self.scope),
            Some(id) => {
                let next = change(self.at.get(id).unwrap_or(&Scope::default()));
                if next.is_empty() {
                    self.at.remove(id);
                } else {
                    self.at.insert(id.clone(), next);
                }
            }
        }
    }

    /// Withdraws it. Whether that changed anything.
    #[must_use]
    pub fn withdraw(&mut self) -> bool {
        let changed = self.active;
        if changed {
            self.active = false;
            self.epoch += 1;
        }
        changed
    }
}

/// Whether `item`, asked for `resource`, is about what the client may know of the person.
fn is_about_the_person(resource: Option<&Place>, item: &Capability) -> bool {
    !matches!(resource, Some(Place::AAuth(_))) && ABOUT_THE_PERSON.contains(&item.as_str())
}

/// What of `scope`, asked for `resource`, is about the person, and the rest.
fn split(resource: Option<&Place>, scope: &Scope) -> (Vec<Capability>, Vec<Capability>) {
    scope.as_slice().iter().cloned().partition(|item| is_about_the_person(resource, item))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        text.parse().unwrap()
    }

    fn consent(text: &str) -> Consent {
        let client = ClientId::generate_for_agent();
        Consent::new(UserId::generate(), client, scope(text), Timestamp::from_unix_seconds(100))
    }

    fn server() -> Place {
        Place::Mcp(McpServerId::generate())
    }

    fn resource() -> Place {
        Place::AAuth(AAuthResourceId::generate())
    }

    #[test]
    fn what_was_withdrawn_does_not_come_back_with_a_new_consent() {
        let server = server();
        let mut consent = consent("read:a");
        consent.grant(None, &scope("read:b"));
        consent.grant(Some(&server), &scope("read:c"));
        assert!(consent.covers(None, &scope("read:b read:a")));
        assert!(!consent.covers(None, &scope("read:c")));
        assert!(consent.withdraw() && !consent.withdraw());
        assert!(!consent.covers(None, &scope("")) && !consent.covers(Some(&server), &scope("read:c")));
        consent.grant(None, &scope("read:b"));
        assert!(consent.covers(None, &scope("read:b")) && !consent.covers(None, &scope("read:a")));
        assert!(!consent.covers(Some(&server), &scope("read:c")));
        assert_eq!(consent.epoch, 1);
    }

    #[test]
    fn an_item_is_only_covered_literally() {
        assert!(!consent("read:*").covers(None, &scope("read:a")));
    }

    #[test]
    fn what_is_allowed_at_one_resource_is_not_allowed_at_another() {
        let [mcp, aauth] = [server(), resource()];
        for [one, other] in [[&mcp, &aauth], [&aauth, &mcp], [&mcp, &server()], [&aauth, &resource()]] {
            let mut consent = consent("read:own");
            consent.grant(Some(one), &scope("read:all openid offline_access"));
            let covers = |place, text| consent.covers(place, &scope(text));
            assert!(covers(Some(one), "read:all openid offline_access"));
            for place in [None, Some(other)] {
                assert!(!covers(place, "read:all") && !covers(place, "offline_access"));
            }
            assert!(covers(None, "read:own") && !covers(Some(one), "read:own"));
            let everything = consent.everything();
            for item in scope("read:own openid read:all offline_access").as_slice() {
                assert!(everything.as_slice().contains(item), "{item}");
            }
            assert_eq!(everything.as_slice().len(), 4);
        }
    }

    #[test]
    fn what_a_client_knows_about_the_person_it_knows_for_every_mcp_server() {
        let mut consent = consent("read:own");
        consent.grant(Some(&server()), &scope("openid"));
        assert!(consent.covers(None, &scope("openid")) && consent.covers(Some(&server()), &scope("openid")));
    }

    #[test]
    fn words_of_an_aauth_resource_are_its_own() {
        let [one, other] = [resource(), resource()];
        let email = Capability::parse("email").unwrap();
        // Who may know her address may not do what a resource calls by the same word.
        let mut consent = consent("openid email");
        assert!(!consent.covers(Some(&one), &scope("email")) && !consent.lets_act(Some(&one), &email));
        assert!(!consent.reaches(Some(&one), &email));
        // Nor the other way round, nor at another one.
        consent.forget(None, &scope("email"));
        consent.grant(Some(&one), &scope("email"));
        assert!(consent.covers(Some(&one), &scope("email")) && consent.lets_act(Some(&one), &email));
        for place in [None, Some(&other), Some(&server())] {
            assert!(!consent.covers(place, &scope("email")) && !consent.lets_act(place, &email));
        }
        // What she does not choose there she has not taken back here.
        consent.grant(None, &scope("email"));
        consent.forget(Some(&one), &scope("email"));
        assert!(consent.covers(None, &scope("email")) && !consent.covers(Some(&one), &scope("email")));
    }

    #[test]
    fn what_was_asked_and_not_chosen_is_gone_where_it_was_asked() {
        let server = server();
        let mut consent = consent("read:a read:b");
        consent.grant(Some(&server), &scope("read:a read:b email"));
        consent.forget(Some(&server), &scope("read:b email"));
        assert!(consent.covers(Some(&server), &scope("read:a")) && consent.covers(None, &scope("read:b")));
        assert!(!consent.covers(Some(&server), &scope("read:b")) && !consent.covers(None, &scope("email")));
        consent.forget(Some(&server), &scope("read:a"));
        assert!(consent.at.is_empty());
    }

    #[test]
    fn an_agent_is_let_act_where_the_person_allows_it() {
        let [one, other] = [server(), server()];
        let mut consent = consent("read:own");
        consent.grant(Some(&one), &scope("read:one"));
        let lets = |place, text| consent.lets_act(place, &Capability::parse(text).unwrap());
        assert!(lets(None, "read:own") && lets(Some(&one), "read:own") && lets(Some(&other), "read:own"));
        assert!(!lets(None, "read:one") && lets(Some(&one), "read:one") && !lets(Some(&other), "read:one"));
        assert!(!lets(None, "read:other"));
    }

    #[test]
    fn a_consent_to_an_earlier_client_of_the_same_id_holds_for_nobody() {
        let consent = consent("read:a");
        assert!(consent.holds_for(Timestamp::from_unix_seconds(100)));
        assert!(!consent.holds_for(Timestamp::from_unix_seconds(101)));
    }

    #[test]
    fn a_record_from_before_there_were_resources_is_read() {
        let before = consent("read:a");
        let mut json = serde_json::to_value(&before).unwrap();
        json.as_object_mut().unwrap().remove("at").unwrap();
        assert_eq!(serde_json::from_value::<Consent>(json).unwrap(), before);
        let mut after = before;
        after.grant(Some(&server()), &scope("read:b"));
        let json = serde_json::to_string(&after).unwrap();
        assert_eq!(serde_json::from_str::<Consent>(&json).unwrap(), after);
    }

    #[test]
    fn a_place_is_its_id_and_a_record_from_before_there_were_other_resources_is_read() {
        let (mcp, aauth) = (McpServerId::generate(), AAuthResourceId::generate());
        let mut consent = consent("read:a");
        consent.grant(Some(&Place::Mcp(mcp.clone())), &scope("read:b"));
        let before = serde_json::to_value(&consent).unwrap();
        assert_eq!(before["at"], serde_json::json!({ mcp.as_str(): "read:b" }));
        assert_eq!(serde_json::from_value::<Consent>(before.clone()).unwrap(), consent);
        consent.grant(Some(&Place::AAuth(aauth.clone())), &scope("read:c"));
        let json = serde_json::to_string(&consent).unwrap();
        assert_eq!(serde_json::from_str::<Consent>(&json).unwrap(), consent);
        let strange = before.to_string().replace(mcp.as_str(), "agt_1");
        assert!(serde_json::from_str::<Consent>(&strange).is_err());
    }
}
