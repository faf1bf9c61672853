//! Tuples: the relations that are written down.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiError, AuthorizationServer, Caller, Plan, RelationRequest, Shows, invalid,
    relations::{UNKNOWN, token},
};
use crate::{
    audit::{EventKind, Target},
    id::OrgId,
    policy::{Entity, Entry, RecordKind, Snapshot, Tuple},
    store::{Expect, Listing, Page, PolicyChange},
};

/// Tuples to write or remove: one, or up to 100 that are written together or not at all.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct TupleRequest {
    /// One, as text.
    pub tuple: Option<String>,
    /// Several: as objects or as text.
    pub tuples: Option<Vec<Value>>,
    /// One, by its parts.
    #[serde(flatten)]
    pub one: RelationRequest,
}

/// What becomes of tuples about agents and people that there are not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unknown {
    Refused,
    /// What is left of somebody who is gone.
    AsWritten,
}

impl AuthorizationServer {
    /// The tuples that match: those of an object, of a relation, of a subject; the namespace alone is enough for an object.
    ///
    /// # Errors
    /// [`ApiError`] if a name is malformed or there is only half of it, or the store cannot answer.
    pub async fn tuples(
        &self,
        org: &OrgId,
        filter: &RelationRequest,
        page: Page,
    ) -> Result<Listing<Tuple>, ApiError> {
        let object = match filter.object()? {
            Some(text) => Some(self.entity(org, &text).await?.ok_or(UNKNOWN)?),
            None => None,
        };
        let subject = match filter.subject()? {
            Some(text) => Some(self.subject_of_relation(org, &text).await?),
            None => None,
        };
        let wanted = |tuple: &Tuple| {
            object.as_ref().is_none_or(|object| tuple.object == *object)
                && subject.as_ref().is_none_or(|subject| tuple.subject == *subject)
                && filter.relation.as_deref().is_none_or(|relation| tuple.relation.as_str() == relation)
                && filter.object_type.as_deref().is_none_or(|name| tuple.object.namespace() == name)
                && filter.user_type.as_deref().is_none_or(|name| tuple.subject.entity.namespace() == name)
        };
        self.with_policy(org, |snapshot| {
            let tuples = snapshot.all(RecordKind::Tuple).filter_map(|entry| match entry {
                Entry::Tuple(tuple) if wanted(tuple) => Some(tuple),
                _ => None,
            });
            let (mut items, mut total) = (Vec::new(), 0);
            for tuple in tuples {
                if total >= page.offset && items.len() < page.limit as usize {
                    items.push(tuple.clone());
                }
                total += 1;
            }
            Listing { items, total }
        })
        .await
    }

    /// Writes tuples: all of them or none. Those that are there already stay. Which are new, and the token of the result.
    ///
    /// # Errors
    /// [`ApiError`] if one is malformed, or of a relation that its namespace does not have.
    pub async fn write_tuples(
        &self,
        org: &OrgId,
        request: &TupleRequest,
        caller: &Caller,
    ) -> Result<(Vec<Tuple>, Vec<Tuple>, String), ApiError> {
        let tuples = self.named_tuples(org, request, Unknown::Refused).await?;
        let plan = |snapshot: &Snapshot| {
            let odd = tuples
                .iter()
                .find(|it| !snapshot.takes_relation(it.object.namespace(), it.relation.as_str()));
            if odd.is_some() {
                return Err(UNKNOWN);
            }
            let new: Vec<_> =
                tuples.iter().filter(|it| snapshot.find(&it.record_id()).is_none()).cloned().collect();
            let plan = plan_of(EventKind::RelationWritten, "relations written", &new).made(told(&new));
            Ok(new.iter().fold(plan, |plan, tuple| plan.insert(&Entry::Tuple(tuple.clone()))))
        };
        let (new, revision) = self.change_policy(org, caller, plan).await?;
        Ok((tuples, new, token(org, revision)))
    }

    /// Removes tuples: all of them or none. Those that are not there are no matter, if one of them is. Which were there, and
    /// the token of the result.
    ///
    /// # Errors
    /// [`ApiError`] if one is malformed, or none of them is there.
    pub async fn remove_tuples(
        &self,
        org: &OrgId,
        request: &TupleRequest,
        caller: &Caller,
    ) -> Result<(Vec<Tuple>, String), ApiError> {
        let tuples = self.named_tuples(org, request, Unknown::AsWritten).await?;
        let plan = |snapshot: &Snapshot| {
            let there: Vec<_> =
                tuples.iter().filter(|it| snapshot.find(&it.record_id()).is_some()).cloned().collect();
            if there.is_empty() {
                return Err(ApiError::NotFound("relation"));
            }
            let plan = plan_of(EventKind::RelationDeleted, "relations removed", &there);
            let mut plan = plan.gone(told(&there));
            let changes = there.iter().map(|it| PolicyChange::remove(it.record_id(), Expect::Anything));
            plan.changes.extend(changes);
            Ok(plan)
        };
        let (there, revision) = self.change_policy(org, caller, plan).await?;
        Ok((there, token(org, revision)))
    }

    async fn named_tuples(
        &self,
        org: &OrgId,
        request: &TupleRequest,
        unknown: Unknown,
    ) -> Result<Vec<Tuple>, ApiError> {
        let mut wanted = Vec::new();
        match (&request.tuples, &request.tuple) {
            (Some(_), Some(_)) => return Err(invalid("tuples", "and tuple exclude each other")),
            (Some(_), None) if request.one.names_something() => {
                return Err(invalid("tuples", "and the parts of one exclude each other"));
            }
            (Some(several), None) if (1..=100).contains(&several.len()) => {
                for value in several {
                    wanted.push(match value {
                        Value::String(text) => self.tuple_of_text(org, text, unknown).await?,
                        other => {
                            let one =
                                RelationRequest::deserialize(other).map_err(|_| ApiError::MissingFields)?;
                            self.tuple_of_parts(org, &one, unknown).await?
                        }
                    });
                }
            }
            (Some(_), None) => return Err(invalid("tuples", "must be a list of 1 to 100")),
            (None, Some(text)) => {
                let tuple = self.tuple_of_text(org, text, unknown).await?;
                // One that was read has its parts beside it.
                if request.one.names_something()
                    && self.tuple_of_parts(org, &request.one, unknown).await? != tuple
                {
                    return Err(invalid("tuple", "is another one than its parts say"));
                }
                wanted.push(tuple);
            }
            (None, None) => wanted.push(self.tuple_of_parts(org, &request.one, unknown).await?),
        }
        let mut seen = std::collections::HashSet::new();
        wanted.retain(|tuple| seen.insert(tuple.clone()));
        Ok(wanted)
    }

    async fn tuple_of_text(&self, org: &OrgId, text: &str, unknown: Unknown) -> Result<Tuple, ApiError> {
        let tuple = Tuple::parse(text).map_err(|_| UNKNOWN)?;
        let (object, subject) = (tuple.object.to_string(), tuple.subject.to_string());
        let relation = Some(tuple.relation.to_string());
        let parts = RelationRequest {
            object: Some(object),
            relation,
            subject: Some(subject),
            ..RelationRequest::default()
        };
        self.tuple_of_parts(org, &parts, unknown).await
    }

    async fn tuple_of_parts(
        &self,
        org: &OrgId,
        request: &RelationRequest,
        unknown: Unknown,
    ) -> Result<Tuple, ApiError> {
        let (object, relation) = self.object_and_relation(org, request).await?;
        let subject = request.subject()?.ok_or(ApiError::MissingFields)?;
        let subject = self.subject_of_relation(org, &subject).await?;
        if unknown == Unknown::Refused {
            for (member, entity) in [("object", &object), ("subject", &subject.entity)] {
                self.check_known(org, member, entity).await?;
            }
        }
        Ok(Tuple { object, relation, subject })
    }

    /// Refuses the name of an agent or the e-mail address of a person that nobody has: it would stay a name, and mean nobody
    /// when somebody has it later.
    async fn check_known(&self, org: &OrgId, member: &'static str, entity: &Entity) -> Result<(), ApiError> {
        match entity.namespace() {
            "agent" if self.find_agent(org, entity.id()).await?.is_none() => {
                Err(invalid(member, "names an unknown agent"))
            }
            // Who was found has been named by id.
            "user" if entity.id().contains('@') => Err(invalid(member, "names an unknown person")),
            _ => Ok(()),
        }
    }
}

/// What the log says of relations.
fn told(tuples: &[Tuple]) -> Value {
    json!({ "tuples": tuples.iter().map(ToString::to_string).collect::<Vec<_>>() })
}

fn plan_of(kind: EventKind, message: &'static str, tuples: &[Tuple]) -> Plan<Vec<Tuple>> {
    let texts: Vec<_> = tuples.iter().map(ToString::to_string).collect();
    let target = Target::new("relation", texts.first().cloned().unwrap_or_default());
    Plan::new(kind, message, target, tuples.to_vec()).with("tuples", texts)
}
