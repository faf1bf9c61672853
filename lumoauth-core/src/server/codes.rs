//! Codes, and what they stand for.

use std::time::Duration;

use super::{AuthorizationServer, authorize::Answer};
use crate::{
    authorize::{Authorized, CodeBody, Request, write},
    capability::{Capability, Scope},
    client_auth::AuthenticatedClient,
    clock::Timestamp,
    consent::Consent,
    grant::{REFRESH_LIFE, SignIn},
    id::TokenId,
    mcp::McpServer,
    organization::Organization,
    secret::Secret,
    store::{StoreError, Ticket, TicketPurpose},
    token::{ConsentEpoch, family_handle},
    user::User,
};

/// How long a code works.
const CODE_LIFE: Duration = Duration::from_secs(300);
/// How long the second use of a code is recognised: longer than anything that came of its first use lives by itself.
const CODE_MEMORY: Duration = Duration::from_secs(31 * 86_400);
// Ticket::dead_until: what a code gave just before its second use ends before the mark does.
const _: () = assert!(CODE_MEMORY.as_secs() - CODE_LIFE.as_secs() > REFRESH_LIFE.as_secs());
/// What a person agrees to when a client gets a refresh token (OpenID Connect Core section 11).
const OFFLINE: &str = "offline_access";

/// Who agreed to what.
pub(super) struct Agreed<'a> {
    pub(super) client: &'a AuthenticatedClient,
    pub(super) user: &'a User,
    pub(super) scope: Scope,
    pub(super) server: Option<&'a McpServer>,
    pub(super) sign_in: SignIn,
}

impl AuthorizationServer {
    /// Makes a code. It grants nothing by itself, so nothing is recorded.
    pub(super) async fn give_code(
        &self,
        organization: &Organization,
        request: &Request,
        agreed: Agreed<'_>,
        consent: &Consent,
        now: Timestamp,
    ) -> Result<Answer, StoreError> {
        let org = &organization.id;
        let Agreed { client, user, scope, server, sign_in } = agreed;
        // Without that in what was agreed to, no refresh token. A token lists it if it was asked for by that name.
        let offline = scope.as_slice().iter().any(is_offline);
        let by_name = request.scope.as_ref().is_some_and(|asked| asked.as_slice().iter().any(is_offline));
        let scope = if by_name { scope } else { without_offline(&scope) };
        let body = CodeBody {
            redirect_uri: request.address.redirect_uri.clone(),
            redirect_named: request.address.redirect_named,
            code_challenge: request.code_challenge.clone(),
            nonce: request.nonce.clone(),
            offline,
            authorized: Authorized {
                client_id: client.client_id().clone(),
                agent: client.agent_id(),
                user: user.id,
                scope,
                resource: server.map(|server| server.server_id.clone()),
                sign_in,
                consent: ConsentEpoch { id: consent.id, epoch: consent.epoch },
                epochs: [organization.epoch, user.epoch, client.epoch()],
            },
        };
        let code = Secret::generate("ac_");
        let ticket = Ticket {
            purpose: TicketPurpose::AuthorizationCode,
            hash: code.hash(),
            body: write(&body)?,
            expires_at: now.plus(CODE_LIFE),
            keep_until: now.plus(CODE_MEMORY),
            family: Some(family_handle(org, &TokenId::generate().to_string())),
        };
        self.stores().grants.put_ticket(org, &ticket).await?;
        let redirect_to = request.address.answer(&self.issuer(org), &[("code", code.expose())]).into();
        Ok(Answer { redirect_to, code: Some(code) })
    }
}

fn is_offline(item: &Capability) -> bool {
    item.as_str() == OFFLINE
}

/// The same, with a refresh token.
pub(super) fn with_offline(scope: &Scope) -> Scope {
    Scope::new(scope.as_slice().iter().cloned().chain(Capability::parse(OFFLINE)))
}

fn without_offline(scope: &Scope) -> Scope {
    Scope::new(scope.as_slice().iter().filter(|item| !is_offline(item)).cloned())
}
