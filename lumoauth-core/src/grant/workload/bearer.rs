//! The `jwt-bearer` grant (RFC 7523 section 2.1): a JWT of a platform as the grant itself. No client is registered for it;
//! the agent that trusts the workload is the client.

use async_trait::async_trait;

use super::{Named, TokenError, TokenResponse, begin, issue_to, jwt};
use crate::{
    grant::{Grant, GrantContext},
    wire::Params,
};

pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The `jwt-bearer` grant.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct JwtBearer;

#[async_trait]
impl Grant for JwtBearer {
    fn grant_type(&self) -> &'static str {
        GRANT_TYPE
    }

    async fn handle(&self, context: &GrantContext<'_>, params: &Params) -> Result<TokenResponse, TokenError> {
        begin(context);
        let assertion =
            params.get("assertion").ok_or(TokenError::InvalidRequest("assertion is required."))?;
        let agent = jwt::prove(context, assertion, None, &Named::by(context, params)).await?;
        issue_to(context, &agent, params).await
    }
}
