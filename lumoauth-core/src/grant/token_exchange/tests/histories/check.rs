//! What the model says of a new token, and of whether a token is alive.

use std::{collections::BTreeSet, sync::Arc};

use super::{ACTIONS, Asked, NARROW, Node, Tally, World};
use crate::{
    capability::{Capability, Scope},
    consent::{Consent, Place},
    grant::MAX_ACTORS,
    id::McpServerId,
    mcp::McpServer,
    token::{AccessClaims, Audience, Subject},
};

/// What a consent lists for a place.
pub(super) fn listed<'a>(consent: &'a Consent, place: Option<&McpServerId>) -> &'a [Capability] {
    match place {
        None => consent.scope.as_slice(),
        Some(id) => consent.at.get(&Place::Mcp(id.clone())).map_or(&[], Scope::as_slice),
    }
}

/// Whether somebody who was given `items` reaches `action`. Who a person is, no wildcard reaches.
fn reaches(items: &[Capability], action: &Capability) -> bool {
    let literally = action.as_str() == "openid";
    items.iter().any(|item| if literally { item == action } else { item.covers(action) })
}

impl World {
    /// Checks a new token against everything that it comes from.
    pub(super) fn exchanged(&mut self, asked: &Asked<'_>, claims: AccessClaims, tally: &mut Tally) {
        let &Asked { subject, actor, target, .. } = asked;
        let sources: Vec<_> = [Some(subject), actor].into_iter().flatten().collect();
        assert!(sources.iter().all(|n| self.is_alive(*n)), "something dead was exchanged");
        let before = self.nodes[subject].claims.clone();
        let depth = self.check_chain(&before, actor, &claims);
        self.check_scope(asked, &claims);
        let used = self.check_consent(asked, &claims);

        let fresh = actor.is_none() && before.act.is_none() && target.is_some();
        for n in sources.iter().filter(|_| !fresh) {
            assert!(claims.exp <= self.nodes[*n].claims.exp, "it outlives a source");
        }
        assert!(depth == 0 || claims.exp <= self.now.unix_seconds() + 900);

        self.check_audience(&before, asked, &claims, tally);
        let mut node = Node {
            claims: Arc::new(claims),
            lineage: [self.nodes.len()].into(),
            stands_on: BTreeSet::new(),
            agreed: BTreeSet::new(),
            families: BTreeSet::new(),
        };
        for n in &sources {
            node.lineage.extend(&self.nodes[*n].lineage);
            node.stands_on.extend(self.nodes[*n].stands_on.iter().cloned());
            node.agreed.extend(&self.nodes[*n].agreed);
            node.families.extend(&self.nodes[*n].families);
        }
        // The consent that was used is not one of a source.
        node.stands_on
            .extend(used.map(|n| &self.consents[n]).map(|consent| (consent.id.to_string(), consent.epoch)));
        node.agreed.extend(used);
        tally.by_consent += usize::from(used.is_some());
        tally.exchanges += 1;
        tally.deepest[depth] += 1;
        self.nodes.push(node);
    }

    /// The number of actors, each a different agent and the new one at the end.
    fn check_chain(&self, before: &AccessClaims, actor: Option<usize>, claims: &AccessClaims) -> usize {
        let chain: Vec<_> = claims.actors().into_iter().map(|act| act.agent_id).collect();
        let mut expected: Vec<_> = before.actors().into_iter().map(|act| act.agent_id).collect();
        expected.extend(actor.map(|n| self.nodes[n].claims.agent_id.unwrap()));
        assert_eq!((&chain, &claims.sub), (&expected, &before.sub));
        let agents = agents(claims);
        assert_eq!(agents.iter().collect::<BTreeSet<_>>().len(), agents.len(), "an agent is in it twice");
        assert!(chain.len() <= MAX_ACTORS);
        assert_eq!(claims.delegation_depth.map_or(0, usize::from), chain.len());
        chain.len()
    }

    /// Within both tokens, everybody of the chain, the client of a person's token, and the vocabulary.
    fn check_scope(&self, asked: &Asked<'_>, claims: &AccessClaims) {
        let subject = &self.nodes[asked.subject].claims;
        for action in reached(claims) {
            assert!(reaches(subject.scope.as_slice(), &action), "{action} comes from nowhere");
            if let Some(actor) = asked.actor.map(|n| &self.nodes[n].claims) {
                let held = actor.scope.as_slice().iter().any(|item| item.covers(&action));
                assert!(held, "the actor's token has no {action}");
            }
            for id in agents(claims) {
                let agent = self.agents.iter().find(|agent| agent.id == id).unwrap();
                assert!(agent.holds(&action), "{} may not do {action}", agent.slug);
            }
            let is_persons = subject.lin.subject == Some(Subject::User) && subject.act.is_none();
            if is_persons && action.as_str() != "openid" {
                let may = if subject.client_id == self.app.client_id {
                    reaches(&self.app.allowed_scopes, &action)
                } else {
                    self.agents
                        .iter()
                        .any(|agent| agent.client_id == subject.client_id && agent.holds(&action))
                };
                assert!(may, "the client of the person has lost {action}");
            }
            if asked.target == Some("urn:mcp:narrow") {
                assert!(NARROW.contains(&action.as_str()));
            }
        }
    }

    /// The consent by which an agent begins to act for a person. It and those before allow everything that the token is good
    /// for, where it is good.
    fn check_consent(&self, asked: &Asked<'_>, claims: &AccessClaims) -> Option<usize> {
        let subject = &self.nodes[asked.subject];
        let before = &subject.claims;
        let begins = before.lin.subject == Some(Subject::User) && before.act.is_none();
        let actor = asked.actor.map(|n| self.nodes[n].claims.agent_id.unwrap()).filter(|_| begins);
        let actor = actor.and_then(|id| self.agents.iter().find(|agent| agent.id == id));
        let implicit = crate::agent::DelegationConsent::Implicit;
        let asks = |agent: &&crate::agent::Agent| {
            agent.client_id != before.client_id && agent.delegation_consent != implicit
        };
        let place = claims.mcp_server_id.as_ref();
        let used = actor.filter(asks).map(|agent| {
            let used = self.agreement(&before.sub, &agent.client_id).expect("nobody agreed");
            let consent = &self.consents[used];
            for item in claims.scope.as_slice() {
                let literally = [None, place].iter().any(|place| listed(consent, *place).contains(item));
                assert!(literally, "{item} was not agreed to");
            }
            used
        });
        for consent in subject.agreed.iter().copied().chain(used).map(|n| &self.consents[n]) {
            for action in reached(claims) {
                let allowed = [None, place].iter().any(|place| reaches(listed(consent, *place), &action));
                assert!(allowed, "{action} was agreed to for somewhere else");
            }
        }
        used
    }

    /// Checks whom a new token is for, and that whoever handed on the one before was entitled to.
    fn check_audience(
        &self,
        before: &AccessClaims,
        asked: &Asked<'_>,
        claims: &AccessClaims,
        tally: &mut Tally,
    ) {
        let &Asked { actor, target, client, .. } = asked;
        let named =
            |uri: &str| self.servers.iter().find(|server| server.resource_uri.as_str() == uri).unwrap();
        // The target, or the agent that is last in the chain; who acts for nobody goes by the client.
        let itself = match (&claims.act, claims.agent_id) {
            (Some(_), Some(current)) => current.to_string(),
            _ => claims.client_id.to_string(),
        };
        let expected = target.map_or(itself, str::to_owned);
        assert_eq!(claims.aud, Audience::One(expected));
        assert_eq!(claims.mcp_server_id, target.map(|uri| named(uri).server_id.clone()));
        assert_eq!(claims.is_for_own_routes(), target.is_none());
        let last = actor.map_or(before.agent_id, |n| self.nodes[n].claims.agent_id);
        assert_eq!(claims.agent_id, last, "somebody else uses it");
        tally.for_servers += usize::from(target.is_some());
        let client_of = |n: usize| &self.nodes[n].claims.client_id;
        if let Some(id) = &before.mcp_server_id {
            let server = self.servers.iter().find(|server| server.server_id == *id).unwrap();
            let is_party = |id: &_| server.resource_client_id.as_ref() == Some(id);
            let takes_part = actor.map(client_of).is_some_and(is_party) || client.is_some_and(is_party);
            assert!(actor.is_some() && takes_part, "not for it to hand on");
            tally.handed_on += 1;
            let elsewhere = claims.mcp_server_id != before.mcp_server_id && !claims.scope.is_empty();
            tally.handed_elsewhere += usize::from(elsewhere);
        }
        if claims.agent_id.is_none() {
            assert_eq!((client, &claims.client_id), (Some(&before.client_id), &before.client_id));
            assert!(target.is_none());
            tally.of_people += 1;
        }
    }

    /// Whether a token is alive, by the model.
    pub(super) fn is_alive(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let standing: BTreeSet<_> = self
            .agents
            .iter()
            .filter(|agent| agent.is_active())
            .map(|agent| (agent.id.to_string(), agent.epoch))
            .chain(self.users.iter().filter(|u| u.is_active()).map(|u| (u.id.to_string(), u.epoch)))
            .chain(self.consents.iter().filter(|c| c.active).map(|c| (c.id.to_string(), c.epoch)))
            .chain(self.app.active.then(|| (self.app.client_id.to_string(), self.app.epoch)))
            .chain([(self.org().to_string(), self.organization.epoch)])
            .collect();
        let is_its = |server: &&McpServer| node.claims.mcp_server_id.as_ref() == Some(&server.server_id);
        node.claims.exp > self.now.unix_seconds()
            && node.lineage.is_disjoint(&self.revoked)
            && node.families.is_disjoint(&self.ended_families)
            && node.stands_on.is_subset(&standing)
            && self.servers.iter().find(is_its).is_none_or(|server| server.active)
    }
}

/// The actions that a token is good for.
fn reached(claims: &AccessClaims) -> impl Iterator<Item = Capability> {
    let actions = ACTIONS.map(|action| Capability::parse(action).unwrap());
    actions.into_iter().filter(|action| reaches(claims.scope.as_slice(), action))
}

/// The agents that bound a token: the one that it is about, and those that act.
fn agents(claims: &AccessClaims) -> Vec<crate::id::AgentId> {
    let acts = claims.actors();
    let first = match claims.lin.subject {
        Some(Subject::Agent(id)) => Some(id),
        _ if acts.is_empty() => claims.agent_id,
        _ => None,
    };
    first.into_iter().chain(acts.into_iter().map(|act| act.agent_id)).collect()
}
