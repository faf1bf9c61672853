//! Issuers that serve everybody, and how their tokens say whose they are.

/// An issuer that serves everybody.
pub(super) struct Shared {
    issuer: &'static str,
    /// How subjects begin that name their customer.
    prefix: &'static str,
    /// How many parts the name of a customer's thing has, between slashes.
    parts: usize,
    /// How such a subject looks.
    pub(super) form: &'static str,
    /// The claims that name the customer otherwise.
    pub(super) pins: &'static [&'static str],
}

impl Shared {
    /// The one with this name, if it is one of them.
    pub(super) fn of(issuer: &str) -> Option<&'static Self> {
        SHARED.iter().find(|shared| issuer.trim_end_matches('/') == shared.issuer)
    }

    /// Whether `subject` begins with the whole name of a customer's thing.
    pub(super) fn owns(&self, subject: &str) -> bool {
        let Some(rest) = subject.strip_prefix(self.prefix) else { return false };
        let name = rest.split(':').next().unwrap_or_default();
        let mut parts = name.split('/');
        name.split('/').count() >= self.parts && parts.all(|part| !part.is_empty())
    }
}

const SHARED: [Shared; 4] = [
    Shared {
        issuer: "https://token.actions.githubusercontent.com",
        prefix: "repo:",
        parts: 2,
        form: "repo:owner/name:..",
        pins: &["repository", "repository_id", "repository_owner", "repository_owner_id", "enterprise_id"],
    },
    Shared {
        issuer: "https://gitlab.com",
        prefix: "project_path:",
        parts: 2,
        form: "project_path:group/project:..",
        pins: &["project_id", "project_path", "namespace_id"],
    },
    Shared {
        issuer: "https://app.terraform.io",
        prefix: "organization:",
        parts: 1,
        form: "organization:name:..",
        pins: &["terraform_organization_id"],
    },
    Shared {
        issuer: "https://agent.buildkite.com",
        prefix: "organization:",
        parts: 1,
        form: "organization:name:..",
        pins: &["organization_id"],
    },
];
