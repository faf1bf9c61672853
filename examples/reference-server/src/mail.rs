//! Mail to people about what waits for them, by SMTP.
//!
//! To another machine only over TLS: what agents ask is nobody's business on the way.

use std::{error::Error, fmt};

use async_trait::async_trait;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{
        Mailbox,
        header::{ContentType, Header, HeaderName, HeaderValue},
    },
};
use lumoauth_core::{
    notify::{Notice, Notifier, NotifyError},
    secret::Secret,
};
use url::{Host, Url};

/// Sends mail through one server.
pub(crate) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// Why no mail can be sent like this. It shows nothing of the address, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadMail(&'static str);

impl Smtp {
    /// Through the server at `url` (`smtps://user:password@host`, or `smtp://host:587?tls=required`; without TLS only on this
    /// machine), from the address `from`.
    ///
    /// # Errors
    /// [`BadMail`] if one of them is none.
    pub(crate) fn new(url: &Secret, from: &str) -> Result<Self, BadMail> {
        const FORM: BadMail =
            BadMail("must be smtps://[user:password@]host, or smtp://host:587?tls=required");
        let parsed = Url::parse(url.expose()).map_err(|_| FORM)?;
        let local = match parsed.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => return Err(FORM),
        };
        // A non-special scheme keeps an address in the host as text.
        let local = local || matches!(parsed.host_str(), Some("127.0.0.1" | "[::1]"));
        let over_tls = match parsed.scheme() {
            "smtps" => true,
            // Said once: of several, others may heed another one.
            "smtp" => {
                let said: Vec<_> = parsed.query_pairs().filter(|(name, _)| name == "tls").collect();
                matches!(said.as_slice(), [(_, value)] if value == "required")
            }
            _ => return Err(FORM),
        };
        if !over_tls && !local {
            return Err(BadMail("must use TLS: smtps://, or smtp:// with ?tls=required"));
        }
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose()).map_err(|_| FORM)?;
        let from = from.parse().map_err(|_| BadMail("must have a sender (`from`), an e-mail address"))?;
        Ok(Self { transport: transport.build(), from })
    }
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp").field("from", &self.from.email).finish_non_exhaustive()
    }
}

/// `Auto-Submitted: auto-generated` (RFC 3834): whoever is out of office does not answer.
#[derive(Clone, Copy)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[async_trait]
impl Notifier for Smtp {
    async fn notify(&self, notice: &Notice) -> Result<(), NotifyError> {
        let to: Mailbox = notice.email.parse().map_err(NotifyError::new)?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(notice.title())
            .header(ContentType::TEXT_PLAIN)
            .header(AutoSubmitted)
            .body(notice.text())
            .map_err(NotifyError::new)?;
        self.transport.send(message).await.map_err(NotifyError::new)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn mail_leaves_this_machine_over_tls_only() {
        let of = |url: &str| Smtp::new(&Secret::from(url), "LumoAuth <no-reply@auth.test>").map(|_| ());
        for good in [
            "smtps://mail.test",
            "smtps://user:p%40ss@mail.test:465",
            "smtp://mail.test:587?tls=required",
            "smtp://127.0.0.1:2525",
            "smtp://localhost:25",
        ] {
            assert_eq!(of(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "mail.test",
            "smtp://mail.test",
            "smtp://user:s3cret@10.0.0.1:25",
            "smtp://user:s3cret@mail.test:587?tls=opportunistic&tls=required",
            "smtp://user:s3cret@mail.test:587?tls=required&tls=opportunistic",
            "https://mail.test",
        ] {
            let error = of(bad).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
        let smtp = Smtp::new(&Secret::from("smtps://user:s3cret@mail.test"), "a@b.test").unwrap();
        assert!(!format!("{smtp:?}").contains("s3cret"));
        assert!(Smtp::new(&Secret::from("smtps://mail.test"), "nobody").is_err());
    }
}
