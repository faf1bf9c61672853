//! AAuth, as the authorization server sees it.
//!
//! | file | what it serves |
//! |---|---|
//! | `door` | who signed a request: an agent by its agent token, or a registered party by its key |
//! | `registry` | agents and resources, and their keys |
//! | `token` | the token endpoint: `auth`, `code`, `refresh`, `exchange` |
//! | `grants` | what is kept behind request tokens, codes and refresh tokens |
//! | `consent` | bringing a person to the question, and their answer |
//! | `issue` | making auth tokens, and reading them |
//! | `platform` | an access token for all other routes, bound to the key of the agent |
//! | `parties` | what resources and agents do with their registered keys |
//! | `local` | auth tokens at resources in this process |

mod consent;
mod door;
mod grants;
mod issue;
mod local;
mod parties;
mod platform;
mod registry;
mod token;

use super::AuthorizationServer;
use crate::{
    aauth::{AAuthError, Unauthenticated},
    audit::{Actor, ActorKind, Event, EventKind, Origin},
    clock::Timestamp,
    grant::Refusal,
    httpsig::Message,
    organization::Organization,
};

pub(super) use consent::Bringing;
pub use door::ClaimedSigner;
pub use local::OwnAuthTokens;
pub use parties::{
    DelegateRequest, PartyToken, ResourceTokenRequest, RevokeRequest, VerifyAuthToken, VerifyResourceToken,
};
pub use platform::PlatformToken;
pub use registry::{AAuthAgentPatch, AAuthResourcePatch};
pub use token::{AAuthAnswer, AAuthTokenRequest, AAuthTokens, ConsentNeeded};

/// A request to one of the routes whose callers sign. Its `Debug` shows no credentials, since that of [`Message`] shows none.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "transports build it")]
pub struct SignedCall<'a> {
    /// The request as its sender signed it: with the public path, which is not the one that arrives if a proxy takes a prefix
    /// away.
    pub message: Message<'a>,
    /// Where it came from.
    pub origin: &'a Origin,
}

impl AuthorizationServer {
    /// Records that a request was refused, and says what to answer.
    ///
    /// Whoever fails too often from one address is refused without a row.
    async fn refused(
        &self,
        organization: &Organization,
        call: SignedCall<'_>,
        refusal: Refusal,
        error: AAuthError,
        now: Timestamp,
    ) -> AAuthError {
        if error.is_outage() {
            return error;
        }
        let nobody = Actor::new(ActorKind::Unknown, "anonymous");
        let mut event = Event::new(EventKind::AAuthRefused, nobody, "AAuth request refused", now)
            .by_method("aauth")
            .from_origin(call.origin)
            .failed(error.reason())
            .with("path", call.message.path);
        refusal.describe(&mut event);
        match self.record_failure(&organization.id, event, now).await {
            Ok(None) => error,
            Ok(Some(resets_at)) => AAuthError::TooManyFailures { resets_at, now },
            Err(error) => error.into(),
        }
    }

    /// What was served to a signed call; a refusal is recorded.
    async fn served<T>(
        &self,
        organization: &Organization,
        call: SignedCall<'_>,
        refusal: Refusal,
        served: Result<T, AAuthError>,
        now: Timestamp,
    ) -> Result<T, AAuthError> {
        match served {
            Ok(value) => Ok(value),
            Err(error) => Err(self.refused(organization, call, refusal, error, now).await),
        }
    }
}

/// An organization that is not active knows nobody.
fn must_be_active(organization: &Organization) -> Result<(), AAuthError> {
    if organization.is_active() { Ok(()) } else { Err(Unauthenticated::Party.into()) }
}
