//! Header fields by which agents say who they are.

use http::{HeaderMap, HeaderName};

use crate::httpsig::SignatureError;

/// Both ways: an agent shows its agent token in it, and a resource says in it what it wants.
pub(crate) const AGENT_AUTH: HeaderName = HeaderName::from_static("agent-auth");

/// The agent token in `Agent-Auth: agent_token=<JWT>`. The field in another form says nothing about who signs.
///
/// # Errors
/// [`SignatureError`] if the field stands there twice, or is no text.
pub(crate) fn agent_token(headers: &HeaderMap) -> Result<Option<&str>, SignatureError> {
    let Some(text) = single(headers, &AGENT_AUTH)? else { return Ok(None) };
    let Some(token) = text.trim().strip_prefix("agent_token=") else { return Ok(None) };
    Ok(Some(token.strip_prefix('"').and_then(|token| token.strip_suffix('"')).unwrap_or(token)))
}

/// The text of a field that may stand there once: two could be read differently by two parties.
///
/// # Errors
/// [`SignatureError`] if it stands there twice, or is no text.
pub(crate) fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, SignatureError> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(SignatureError::Repeated(name.clone()));
    }
    line.map(|line| line.to_str().map_err(|_| SignatureError::Unprintable(name.clone()))).transpose()
}
