//! The page that asks a person.

use std::fmt::Write;

use bytes::Bytes;
use http::StatusCode;
use lumoauth_core::{client_auth::AuthenticatedClient, server::Question};

use super::{escaped, page};
use crate::reply::Reply;

/// Who wants what, for whom, and where the browser goes next; and two buttons. `submit_url` is where the form posts.
pub(crate) fn consent(question: &Question, submit_url: &str) -> Reply {
    let (kind, label, subject) = match &question.client {
        AuthenticatedClient::Agent(agent) => ("agent", "Agent", Some(agent.subject())),
        AuthenticatedClient::Client(_) => ("application", "Application", None),
    };
    let name = escaped(question.client.name());
    let mut main = String::with_capacity(2048);
    // Writing to a string cannot fail.
    let _ = write!(main, "<h1>Allow the {kind} <bdi>{name}</bdi> to act for you?</h1>");
    if question.scopes.is_empty() {
        let _ = write!(main, "<p>This {kind} asks for nothing in particular.</p>");
    } else {
        let _ = write!(main, "<p>This {kind} wants to:</p><ul>");
        for (item, text) in &question.scopes {
            let _ = write!(main, "<li><bdi>{}</bdi> <code>{}</code></li>", escaped(text), escaped(item));
        }
        main.push_str("</ul>");
    }
    let _ = write!(main, "<dl><dt>{label}</dt><dd><bdi>{name}</bdi>");
    if let Some(subject) = subject {
        let _ = write!(main, "<br><code>{}</code>", escaped(&subject));
    }
    if let Some(url) = &question.client_url {
        let _ = write!(main, "<br><code>{}</code>", escaped(url));
    }
    let _ = write!(
        main,
        "</dd><dt>Client ID</dt><dd><code>{}</code></dd>",
        escaped(question.client.client_id().as_str()),
    );
    if let Some(resource) = &question.resource {
        main.push_str("<dt>For use at</dt><dd>");
        if let Some(name) = &question.resource_name {
            let _ = write!(main, "<bdi>{}</bdi><br>", escaped(name));
        }
        let _ = write!(main, "<code>{}</code></dd>", escaped(resource));
    }
    let next = question.redirect_origin.as_deref().unwrap_or_default();
    let _ = write!(
        main,
        "<dt>You are signed in as</dt><dd><bdi>{}</bdi></dd>\
         <dt>Your browser goes on to</dt><dd><code>{}</code></dd></dl>",
        escaped(&question.user.email),
        escaped(next),
    );
    let _ = write!(
        main,
        "<form method=\"post\" action=\"{}\" autocomplete=\"off\">\
         <input type=\"hidden\" name=\"challenge_id\" value=\"{}\">\
         <input type=\"hidden\" name=\"csrf_token\" value=\"{}\">\
         <button name=\"decision\" value=\"deny\">Deny</button>\
         <button class=\"yes\" name=\"decision\" value=\"approve\">Allow</button></form>",
        escaped(submit_url),
        escaped(question.challenge_id.expose()),
        escaped(question.csrf_token.expose()),
    );
    page(StatusCode::OK, "Allow access?", &main, question.redirect_origin.as_deref()).map(Bytes::from)
}
