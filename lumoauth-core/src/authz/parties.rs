//! Who must be able to do what a caller wants to do.

use crate::{
    agent::Agent,
    capability::{Capability, Decision, DenyReason, evaluate},
    client_auth::AuthenticatedClient,
    policy::{Party, Who},
    principal::{Identity, Principal, Represented},
    user::User,
};

/// The caller; and where it acts for somebody, everybody in the chain, the caller last.
pub(crate) fn parties<'a>(principal: &'a Principal, action: &Capability) -> Vec<Party<'a>> {
    let scope = principal.token_scope();
    match (&principal.identity, &principal.delegation) {
        (Identity::Agent(_), Some(delegation)) => {
            let person = match &delegation.represented {
                Represented::User(user) => {
                    let agreed = scope.is_some_and(|scope| scope.iter().any(|item| item.covers(action)));
                    let standing =
                        if agreed { Decision::Allow } else { Decision::Deny(DenyReason::NotInToken) };
                    Some(bounded(Party::new(Who::User(user), standing)))
                }
                Represented::Agent(_) => None,
            };
            let agents = delegation.agents().map(|agent| bounded(of_agent(agent, scope, action)));
            person.into_iter().chain(agents).collect()
        }
        (Identity::Agent(agent), None) => vec![of_agent(agent, scope, action)],
        (Identity::User(person), _) => {
            let mut user = Party::new(Who::User(&person.user), principal.decide(action));
            match &person.client {
                AuthenticatedClient::Client(_) => {
                    user.in_person = true;
                    vec![user]
                }
                AuthenticatedClient::Agent(agent) => {
                    vec![bounded(user), bounded(of_agent(agent, scope, action))]
                }
            }
        }
        (Identity::Client(_) | Identity::ApiKey(_) | Identity::Remote(_), _) => {
            vec![Party::new(Who::Other, principal.decide(action))]
        }
    }
}

/// Somebody whom others ask about: what they could do in person, or with a token that leaves nothing out.
pub(crate) fn subject_parties<'a>(
    agent: Option<&'a Agent>,
    user: Option<&'a User>,
    action: &Capability,
) -> Vec<Party<'a>> {
    let agent = agent.map(|agent| of_agent(agent, None, action));
    let user = user.map(|user| {
        let mut party = Party::new(Who::User(user), Decision::Deny(DenyReason::NotGranted));
        party.in_person = true;
        party
    });
    agent.into_iter().chain(user).collect()
}

fn of_agent<'a>(agent: &'a Agent, scope: Option<&[Capability]>, action: &Capability) -> Party<'a> {
    let standing = if agent.allows_tool(action) {
        evaluate(&agent.capabilities, scope, action)
    } else {
        Decision::Deny(DenyReason::ToolNotAllowed)
    };
    Party::new(Who::Agent(agent), standing)
}

fn bounded(mut party: Party<'_>) -> Party<'_> {
    party.bounded = true;
    party
}
