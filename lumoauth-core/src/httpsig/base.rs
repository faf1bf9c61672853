//! The signature base: the text that is signed (RFC 9421 section 2.5).

use http::{HeaderName, HeaderValue};

use super::{Component, Message, Profile, SignatureError, message::one, profile::Authority};

/// One line for each of `components`, then `params` as the line of `@signature-params`, without a line break after it.
pub(super) fn build(
    message: &Message<'_>,
    profile: &Profile,
    components: &[Component],
    params: &str,
) -> Result<String, SignatureError> {
    let mut base = String::with_capacity(1024);
    for component in components {
        base.push('"');
        base.push_str(component.as_str());
        base.push_str("\": ");
        push_value(&mut base, message, profile, component)?;
        base.push('\n');
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(params);
    Ok(base)
}

/// Appends what a component stands for. No value can hold a line break: fields cannot, and the target was checked.
fn push_value(
    base: &mut String,
    message: &Message<'_>,
    profile: &Profile,
    component: &Component,
) -> Result<(), SignatureError> {
    match component {
        Component::Method => base.push_str(message.method.as_str()),
        Component::Scheme => base.push_str(message.scheme),
        Component::Authority => push_authority(base, message, profile),
        Component::Path => base.push_str(message.signed_path()),
        // "If the query string is absent from the request message, the component value is the leading ? character alone"
        // (section 2.2.7).
        Component::Query => push_query(base, Some(message.query.unwrap_or_default())),
        Component::RequestTarget => push_target(base, message),
        Component::TargetUri => {
            base.push_str(message.scheme);
            base.push_str("://");
            push_authority(base, message, profile);
            push_target(base, message);
        }
        Component::Field(name) => match one(message.headers, name)? {
            Some(value) => {
                let text = text(name, value)?;
                if text.is_empty() && profile.is_empty_if_absent(name) {
                    // Else two requests would have one base.
                    return Err(SignatureError::Empty(name.clone()));
                }
                base.push_str(text);
            }
            None if profile.is_empty_if_absent(name) => {}
            None => return Err(SignatureError::Absent(name.clone())),
        },
    }
    Ok(())
}

fn push_authority(base: &mut String, message: &Message<'_>, profile: &Profile) {
    match profile.authority() {
        Authority::AsReceived => base.push_str(message.authority),
        Authority::Normalized => base.push_str(&message.normalized_authority()),
    }
}

fn push_target(base: &mut String, message: &Message<'_>) {
    base.push_str(message.signed_path());
    push_query(base, message.query);
}

fn push_query(base: &mut String, query: Option<&str>) {
    if let Some(query) = query {
        base.push('?');
        base.push_str(query);
    }
}

/// The value of a field without white space around it (section 2.1).
pub(super) fn text<'a>(name: &HeaderName, value: &'a HeaderValue) -> Result<&'a str, SignatureError> {
    let text = value.to_str().map_err(|_| SignatureError::Unprintable(name.clone()))?;
    Ok(text.trim_matches([' ', '\t']))
}
