//! What happens to what tokens stand on.

use super::{super::setting::event, Dice, SCOPES, World};
use crate::{
    agent::StatusChange,
    audit::EventKind,
    capability::Scope,
    clock::Timestamp,
    consent::Place,
    store::{AgentKey, ConsentKey, Revoked, Update, UserKey},
    token::{family_handle, token_handle},
};

impl World {
    pub(super) async fn revoke(&mut self, dice: &mut Dice) {
        let (on, until) = (event(EventKind::TokenRevoked), Timestamp::from_unix_seconds(u64::from(u32::MAX)));
        let handle = if dice.once_in(2) && self.families > 0 {
            let family = dice.roll(self.families);
            self.ended_families.insert(family);
            family_handle(self.org(), &family.to_string())
        } else if self.nodes.is_empty() {
            return;
        } else {
            let n = dice.roll(self.nodes.len());
            self.revoked.insert(n);
            token_handle(self.org(), &self.nodes[n].claims.jti)
        };
        match self.stores.grants.revoke(self.org(), handle, until, &on).await.unwrap() {
            Revoked::Revoked | Revoked::AlreadyRevoked => {}
        }
    }

    pub(super) async fn change_agent(&mut self, dice: &mut Dice) {
        let n = dice.roll(self.agents.len());
        let found = AgentKey::Id(self.agents[n].id);
        let mut agent = (*self.stores.agents.find(self.org(), found).await.unwrap().unwrap()).clone();
        match dice.roll(4) {
            0 => agent.capabilities = dice.some_of(&SCOPES),
            1 => agent.can_act_on_behalf_of_users = !agent.can_act_on_behalf_of_users,
            2 => drop(agent.change_status(StatusChange::Disable)),
            _ => drop(agent.change_status(StatusChange::Activate)),
        }
        let outcome = self.stores.agents.update(self.org(), &agent, &event(EventKind::AgentUpdated)).await;
        assert_eq!(outcome.unwrap(), Update::Updated);
        self.agents[n] = agent;
    }

    pub(super) async fn change_person(&mut self, dice: &mut Dice) {
        if dice.once_in(2) && !self.consents.is_empty() {
            let n = dice.roll(self.consents.len());
            let key = ConsentKey::Id(self.consents[n].id);
            let mut consent = (*self.stores.consents.find(self.org(), key).await.unwrap().unwrap()).clone();
            if !consent.withdraw() {
                let place = dice.once_in(2).then(|| &self.servers[dice.roll(self.servers.len())].server_id);
                consent.grant(place.cloned().map(Place::Mcp).as_ref(), &Scope::new(dice.some_of(&SCOPES)));
            }
            let on = event(EventKind::ConsentRevoked);
            assert_eq!(
                self.stores.consents.update(self.org(), &consent, &on).await.unwrap(),
                Update::Updated
            );
            self.consents[n] = consent;
            return;
        }
        let n = dice.roll(self.users.len());
        let found = UserKey::Id(self.users[n].id);
        let mut user = (*self.stores.users.find(self.org(), found).await.unwrap().unwrap()).clone();
        let _ = user.block();
        if dice.roll(3) > 0 {
            let _ = user.unblock();
        }
        let outcome = self.stores.users.update(self.org(), &user, &event(EventKind::UserBlocked)).await;
        assert_eq!(outcome.unwrap(), Update::Updated);
        self.users[n] = user;
    }

    /// The application, a server or the organization.
    pub(super) async fn change_other(&mut self, dice: &mut Dice) {
        let outcome = match dice.roll(12) {
            0 => {
                assert!(self.organization.set_active(false) && self.organization.set_active(true));
                let on = event(EventKind::OrganizationDisabled);
                let outcome = self.stores.organizations.update(&self.organization, &on).await;
                self.organization.version += 1;
                outcome
            }
            1..=4 => {
                let n = dice.roll(self.servers.len());
                let server = &mut self.servers[n];
                server.active = !server.active;
                let on = event(EventKind::McpServerUpdated);
                let outcome = self.stores.mcp_servers.update(&self.organization.id, server, &on).await;
                server.version += 1;
                outcome
            }
            other => {
                if other == 5 {
                    self.app.active = !self.app.active;
                    self.app.epoch += 1;
                } else {
                    self.app.allowed_scopes = dice.some_of(&SCOPES);
                }
                let on = event(EventKind::ClientCreated);
                let outcome = self.stores.clients.update(&self.organization.id, &self.app, &on).await;
                self.app.version += 1;
                outcome
            }
        };
        assert_eq!(outcome.unwrap(), Update::Updated);
    }
}
