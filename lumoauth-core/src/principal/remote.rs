//! A caller whose token was verified somewhere else than at the server that issued it.

use std::sync::Arc;

use crate::{
    audit::{Actor, ActorKind},
    capability::Scope,
    clock::Timestamp,
    id::{AgentId, ClientId, OrgId},
    jit::AuthorizationDetail,
    secret::Secret,
    token::{AccessClaims, Act, InvalidToken},
};

/// A caller as its access token tells of it, at a service that has none of the records of the authorization server.
///
/// It is bound by the scope of the token alone. What an agent lost since the token was issued is gone from it where the
/// authorization server was asked (introspection), and not before the token ends where only its signature was checked.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made by whoever verifies tokens, from what they say")]
pub struct RemoteCaller {
    /// Who issued the token.
    pub issuer: String,
    /// The organization.
    pub org: OrgId,
    /// What sort of principal it is.
    pub kind: RemoteKind,
    /// For whom the token is: the caller itself, or the one it acts for.
    pub subject: String,
    /// The client that uses the token.
    pub client_id: ClientId,
    /// The agent that uses the token.
    pub agent_id: Option<AgentId>,
    /// Display name of that agent.
    pub agent_name: Option<Arc<str>>,
    /// Who acts for the subject, the first one first; the last one uses the token.
    pub actors: Vec<Actor>,
    /// What the token may be used for.
    pub scope: Scope,
    /// What the token is for in detail, if it was made for a task; empty for every other.
    pub authorization_details: Vec<AuthorizationDetail>,
    /// When the token ends.
    pub expires_at: Timestamp,
    /// Whether somebody who pays for its calls had used up a budget when the authorization server was asked.
    pub over_budget: bool,
    /// The token itself, to name the caller by at the server that issued it.
    pub token: Secret,
}

/// What sort of principal a token says that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "every sort of caller must be handled wherever access is decided"
)]
pub enum RemoteKind {
    /// An agent, by itself or for somebody.
    Agent,
    /// An ordinary OAuth client.
    Client,
    /// A person, through the client.
    User,
}

impl RemoteKind {
    /// The sort that `identity_type` names.
    ///
    /// # Errors
    /// [`InvalidToken::Malformed`] if it names none.
    pub fn of_identity_type(identity_type: &str) -> Result<Self, InvalidToken> {
        match identity_type {
            "agent" => Ok(Self::Agent),
            "client" => Ok(Self::Client),
            "user" => Ok(Self::User),
            _ => Err(InvalidToken::Malformed),
        }
    }
}

impl RemoteCaller {
    /// The caller that `claims` of the token tell of.
    ///
    /// # Errors
    /// [`InvalidToken::Malformed`] if they contradict each other.
    pub fn of_claims(claims: AccessClaims, token: Secret) -> Result<Self, InvalidToken> {
        let kind = RemoteKind::of_identity_type(&claims.identity_type)?;
        let actors = Self::actors_of(claims.act.as_deref(), claims.agent_id)?;
        if claims.organization != claims.tenant || (kind == RemoteKind::Agent && claims.agent_id.is_none()) {
            return Err(InvalidToken::Malformed);
        }
        Ok(Self {
            issuer: claims.iss,
            org: claims.organization,
            kind,
            subject: claims.sub,
            client_id: claims.client_id,
            agent_id: claims.agent_id,
            agent_name: claims.agent_name,
            actors,
            scope: claims.scope,
            authorization_details: if claims.jit { claims.authorization_details } else { Vec::new() },
            expires_at: Timestamp::from_unix_seconds(claims.exp),
            over_budget: false,
            token,
        })
    }

    /// The actors of a token, the first one first, in whichever order its issuer nests them: the one that uses the token is
    /// `current`, and it is the last.
    ///
    /// # Errors
    /// [`InvalidToken::Malformed`] if the current actor stands at neither end, or the chain is longer than any of ours.
    pub fn actors_of(act: Option<&Act>, current: Option<AgentId>) -> Result<Vec<Actor>, InvalidToken> {
        let nested = std::iter::successors(act, |act| act.act.as_deref());
        let mut nested: Vec<&Act> = nested.take(LONGEST + 1).collect();
        let id = |act: Option<&&Act>| act.map(|act| act.agent_id);
        if nested.len() > LONGEST {
            return Err(InvalidToken::Malformed);
        }
        if id(nested.last()) != current && id(nested.first()) == current {
            nested.reverse();
        }
        if !nested.is_empty() && id(nested.last()) != current {
            return Err(InvalidToken::Malformed);
        }
        let actor = |act: &Act| Actor::new(ActorKind::Agent, act.agent_id.to_string()).named(&*act.sub);
        Ok(nested.into_iter().map(actor).collect())
    }

    /// The caller as the actor of an audit event.
    pub(super) fn actor(&self) -> Actor {
        let (kind, id) = match (self.kind, self.agent_id) {
            (RemoteKind::Agent, Some(id)) => {
                return named(Actor::new(ActorKind::Agent, id.to_string()), self);
            }
            (RemoteKind::Agent | RemoteKind::Client, _) => (ActorKind::Client, self.client_id.as_str()),
            (RemoteKind::User, _) => (ActorKind::User, self.subject.as_str()),
        };
        Actor::new(kind, id)
    }
}

fn named(actor: Actor, caller: &RemoteCaller) -> Actor {
    match &caller.agent_name {
        Some(name) => actor.named(name.clone()),
        None => actor,
    }
}

/// The longest chain that is read. Ours are shorter.
const LONGEST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(ids: &[AgentId]) -> Option<Box<Act>> {
        ids.iter().rev().fold(None, |act, id| {
            let client_id = ClientId::generate_for_app();
            Some(Box::new(Act { sub: "agent:a".to_owned(), agent_id: *id, client_id, act }))
        })
    }

    #[test]
    fn a_chain_is_read_in_either_order_of_nesting() {
        let ids = [AgentId::generate(), AgentId::generate(), AgentId::generate()];
        let mut turned = ids;
        turned.reverse();
        for nesting in [ids, turned] {
            let actors = RemoteCaller::actors_of(nested(&nesting).as_deref(), Some(ids[2])).unwrap();
            let found: Vec<_> = actors.iter().map(|actor| actor.id.to_string()).collect();
            assert_eq!(found, ids.map(|id| id.to_string()));
        }
        assert_eq!(RemoteCaller::actors_of(None, Some(ids[0])), Ok(Vec::new()));
    }

    #[test]
    fn a_chain_that_its_user_does_not_end_is_none() {
        let ids = [AgentId::generate(), AgentId::generate(), AgentId::generate()];
        let malformed = Err(InvalidToken::Malformed);
        for current in [None, Some(ids[1]), Some(AgentId::generate())] {
            assert_eq!(RemoteCaller::actors_of(nested(&ids).as_deref(), current), malformed);
        }
        let many: Vec<_> = (0..=LONGEST).map(|_| AgentId::generate()).collect();
        assert_eq!(RemoteCaller::actors_of(nested(&many).as_deref(), many.last().copied()), malformed);
    }
}
