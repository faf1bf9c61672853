//! What is asked of a decision.

use std::{borrow::Cow, net::IpAddr};

use serde_json::{Map, Value};

use super::{Entity, Holder, Subject};
use crate::{
    agent::Agent,
    capability::{Capability, Decision},
    clock::Timestamp,
    id::Label,
    user::User,
};

/// May all of these do this?
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Question<'a> {
    /// What is to be done.
    pub action: &'a Capability,
    /// Who must all be able to: a caller, or everybody in a chain of agency. The one that calls is the last.
    pub parties: Vec<Party<'a>>,
    /// To what it is done.
    pub resource: Resource<'a>,
    /// What policies about the type of the resource call it, where that type is not merely what the caller says.
    pub verb: Option<&'a str>,
    /// What else is known of the request.
    pub environment: Environment<'a>,
    /// The relation to an object that would allow it.
    pub relation: Option<(Entity, Label)>,
}

impl<'a> Question<'a> {
    /// May they do `action`, of which nothing else is known?
    pub fn new(action: &'a Capability, parties: Vec<Party<'a>>, environment: Environment<'a>) -> Self {
        Self { action, parties, resource: Resource::default(), verb: None, environment, relation: None }
    }
}

/// Somebody who must be able to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Party<'a> {
    /// Who it is.
    pub who: Who<'a>,
    /// What their capabilities and their token say.
    pub standing: Decision,
    /// Whether nothing beyond their token counts: somebody acts for somebody else, who agreed to what the token says.
    pub bounded: bool,
    /// Whether it is a person in person, and not through an agent.
    pub in_person: bool,
}

impl<'a> Party<'a> {
    /// `who`, whose capabilities and token say `standing`.
    pub fn new(who: Who<'a>, standing: Decision) -> Self {
        Self { who, standing, bounded: false, in_person: false }
    }
}

/// Who somebody is.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "every sort of party is decided differently")]
pub enum Who<'a> {
    /// An agent.
    Agent(&'a Agent),
    /// A person.
    User(&'a User),
    /// An application or a key: it has what its scopes say, and no roles.
    Other,
}

impl Who<'_> {
    /// As the holder of roles.
    pub fn holder(&self) -> Option<Holder> {
        match self {
            Self::Agent(agent) => Some(Holder::Agent(agent.id)),
            Self::User(user) => Some(Holder::User(user.id)),
            Self::Other => None,
        }
    }

    /// As the subject of relations: `agent:<agent id>` or `user:<user id>`.
    pub fn subject(&self) -> Option<Subject> {
        let text = self.holder()?.to_string();
        Entity::parse(&text).ok().map(Subject::from)
    }
}

/// To what it is done.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Resource<'a> {
    /// Its type, as the caller says; if absent, what stands before the last `.` or `:` of the action.
    pub kind: Option<&'a str>,
    /// Its id.
    pub id: Option<&'a str>,
    /// Its attributes as the caller knows them. Only from callers whose word counts; what the organization wrote down counts
    /// more.
    pub given: Option<&'a Map<String, Value>>,
}

impl<'a> Resource<'a> {
    /// The resource of this type and id.
    pub fn new(kind: Option<&'a str>, id: Option<&'a str>) -> Self {
        Self { kind, id, given: None }
    }
}

/// What else is known of a request. The facts that the server knows itself are never taken from the caller.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "the server builds it")]
pub struct Environment<'a> {
    /// What the caller says.
    pub given: &'a Map<String, Value>,
    /// Where the request came from.
    pub ip: Option<IpAddr>,
    /// With what program.
    pub user_agent: Option<&'a str>,
    /// The request's method.
    pub method: &'a str,
    /// The request's path.
    pub path: &'a str,
    /// When.
    pub now: Timestamp,
}

/// Names that belong to the server: what a caller writes under them is not believed.
const OWN: [&str; 9] =
    ["ip", "userAgent", "requestMethod", "requestPath", "time", "hour", "minute", "dayOfWeek", "isWeekend"];

impl<'a> Environment<'a> {
    /// `given` with everything under the server's names moved to the member `pep`.
    pub fn separate(mut given: Map<String, Value>) -> Map<String, Value> {
        let take = |name: &&str| given.remove(*name).map(|value| ((*name).to_owned(), value));
        let claimed: Map<String, Value> = OWN.iter().filter_map(take).collect();
        if !claimed.is_empty() {
            given.insert("pep".to_owned(), Value::Object(claimed));
        }
        given
    }

    /// One fact. Hours, minutes and days are those of UTC; Monday is day 1.
    pub(super) fn get(&self, name: &str) -> Option<Cow<'a, Value>> {
        let at = || self.now.to_jiff().to_zoned(jiff::tz::TimeZone::UTC);
        let day = || at().weekday().to_monday_one_offset();
        Some(Cow::Owned(match name {
            "ip" => self.ip?.to_canonical().to_string().into(),
            "userAgent" => self.user_agent?.into(),
            "requestMethod" => self.method.into(),
            "requestPath" => self.path.into(),
            "time" => self.now.to_string().into(),
            "hour" => at().hour().into(),
            "minute" => at().minute().into(),
            "dayOfWeek" => day().into(),
            "isWeekend" => (day() >= 6).into(),
            _ => return self.given.get(name).map(Cow::Borrowed),
        }))
    }
}
