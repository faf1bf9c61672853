//! Why a management or agent route refuses, and how that looks on the wire.

use http::StatusCode;

use crate::{
    agent::{InvalidAgent, Terminal},
    clock::Timestamp,
    grant::TokenError,
    keys::KeyError,
    spending::Exhausted,
    store::{Admission, StoreError},
    wire::WireError,
};

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// There is no such organization.
    #[error("no such organization")]
    TenantNotFound,
    /// There is no such thing in this organization.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The request makes no sense. The text is safe to show.
    #[error("{0}")]
    InvalidRequest(String),
    /// A member of the body cannot be accepted.
    #[error("{member}: {problem}")]
    Invalid {
        /// The wire name of the member.
        member: &'static str,
        /// What is wrong with it, safe to show.
        problem: String,
    },
    /// The same, on a route that answers 422.
    #[error("{member}: {problem}")]
    Unprocessable {
        /// The wire name of the member.
        member: &'static str,
        /// What is wrong with it, safe to show.
        problem: String,
    },
    /// Something like it exists, or its state does not allow the change. The text is safe to show.
    #[error("{0}")]
    Conflict(&'static str),
    /// The caller would take its own access away. The text is safe to show.
    #[error("{0}")]
    OwnAccess(&'static str),
    /// The record is not at the version that the caller wants to change.
    #[error("the record has changed")]
    PreconditionFailed,
    /// The caller may not do this. The text is safe to show.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The caller may not ask about others.
    #[error("asking about another subject needs `authz:check`")]
    InsufficientPermissions,
    /// The caller lacks a scope.
    #[error("insufficient scope")]
    InsufficientScope {
        /// Any of these would do.
        required: Vec<String>,
        /// What the caller has.
        granted: Vec<String>,
    },
    /// There is nobody by the name that was asked about.
    #[error("no such subject")]
    SubjectNotFound,
    /// A check without anything to check.
    #[error("no permission to check")]
    MissingPermission,
    /// A list of checks that is none, empty or too long.
    #[error("not a list of 1 to 100 permissions")]
    InvalidPermissions,
    /// A question about relations, or a relation, without all of its parts.
    #[error("object, relation or subject is missing")]
    MissingFields,
    /// A question about relations that makes no sense here.
    #[error("malformed, or an unknown namespace or relation")]
    RelationCheckFailed,
    /// The model is not in the budget policy.
    #[error("model not allowed")]
    ModelNotAllowed,
    /// One call that costs this much needs a human's approval.
    #[error("approval required")]
    ApprovalRequired,
    /// A token that was made to try things out.
    #[error("test tokens are not accepted here")]
    TestTokenNotAccepted,
    /// The agent may not act for people.
    #[error("the agent may not act for others")]
    DelegationNotAllowed,
    /// People were asked too often lately.
    #[error("too many questions to people")]
    TooManyQuestions {
        /// Until when no more are admitted.
        admission: Admission,
        /// The instant of the refusal.
        now: Timestamp,
    },
    /// A request for approval reaches nobody.
    #[error("nobody is reached")]
    NotDelivered {
        /// The agent's name for what it is doing.
        task_id: String,
    },
    /// The same, and the person is told by mail that the agent wanted something.
    #[error("nobody is reached but by mail")]
    ToldByMail {
        /// The agent's name for what it is doing.
        task_id: String,
        /// How bad it would be if it went wrong.
        impact: &'static str,
    },
    /// Too many requests of the agent wait for people.
    #[error("too many requests wait")]
    TooManyPending,
    /// The agent has used up its budget.
    #[error(transparent)]
    BudgetExceeded(#[from] Exhausted),
    /// The store cannot answer.
    #[error("store")]
    Store(#[from] StoreError),
    /// The keys cannot be used.
    #[error("keys")]
    Key(#[from] KeyError),
    /// A password could not be hashed now.
    #[error("password hashing")]
    Hash(#[from] super::HashError),
}

/// The refusal of a caller whose token was verified elsewhere: this server verifies its tokens itself.
pub(super) const ELSEWHERE: ApiError = ApiError::Forbidden("This credential is not accepted here.");

impl ApiError {
    /// The error as the client sees it.
    pub fn to_wire(&self) -> WireError {
        use StatusCode as S;
        match self {
            Self::TenantNotFound => {
                WireError::new(S::NOT_FOUND, "tenant_not_found", "There is no such organization.")
            }
            Self::NotFound(what) => WireError::not_found(format!("There is no such {what}.")),
            Self::InvalidRequest(text) => WireError::invalid_request(text),
            Self::Invalid { member, problem } => {
                WireError::new(S::BAD_REQUEST, "validation_error", format!("{member} {problem}."))
                    .with_detail(member, problem.as_str())
            }
            Self::Unprocessable { member, problem } => {
                WireError::new(S::UNPROCESSABLE_ENTITY, "validation_error", format!("{member} {problem}."))
                    .with_detail(member, problem.as_str())
            }
            Self::Conflict(text) => WireError::new(S::CONFLICT, "duplicate_resource", *text),
            Self::OwnAccess(text) => WireError::new(S::CONFLICT, "own_access", *text),
            Self::PreconditionFailed => WireError::new(
                S::PRECONDITION_FAILED,
                "precondition_failed",
                "The record is not at the version that If-Match names.",
            ),
            Self::Forbidden(text) => WireError::forbidden(*text),
            Self::InsufficientPermissions => {
                WireError::forbidden("Asking about another subject needs authz:check.")
                    .with_code(Some("INSUFFICIENT_PERMISSIONS"))
            }
            // Clients look at `error` for this one, so there is no `code` beside it.
            Self::InsufficientScope { required, granted } => {
                WireError::forbidden(format!("Insufficient scope: {} is required.", required.join(" or ")))
                    .with_code(None)
                    .with_detail("required_scopes", required.as_slice())
                    .with_detail("granted_scopes", granted.as_slice())
            }
            Self::SubjectNotFound => {
                WireError::not_found("There is no such subject.").with_code(Some("SUBJECT_NOT_FOUND"))
            }
            Self::MissingPermission => {
                WireError::invalid_request("permission is required.").with_code(Some("MISSING_PERMISSION"))
            }
            Self::InvalidPermissions => {
                WireError::invalid_request("permissions must be a list of 1 to 100 permissions.")
                    .with_code(Some("INVALID_PERMISSIONS"))
            }
            Self::MissingFields => WireError::invalid_request("object, relation and subject are required.")
                .with_code(Some("MISSING_FIELDS")),
            Self::RelationCheckFailed => {
                let text = "A part is malformed, or the namespace or the relation is unknown.";
                WireError::invalid_request(text).with_code(Some("ZANZIBAR_CHECK_FAILED"))
            }
            Self::ModelNotAllowed => {
                WireError::new(S::FORBIDDEN, "model_not_allowed", "This model is not allowed for this agent.")
            }
            Self::ApprovalRequired => WireError::new(
                S::FORBIDDEN,
                "approval_required",
                "A call of this cost needs a human's approval.",
            ),
            Self::TestTokenNotAccepted => WireError::new(
                S::FORBIDDEN,
                "test_token_not_accepted",
                "A test token cannot ask for approvals.",
            ),
            Self::DelegationNotAllowed => WireError::new(
                S::FORBIDDEN,
                "delegation_not_allowed",
                "The agent holds no capability to act for others (delegate:on_behalf or delegate:user).",
            ),
            Self::TooManyQuestions { admission, now } => {
                WireError::rate_limited_until(admission.resets_at, *now)
            }
            Self::NotDelivered { task_id } => WireError::new(
                S::PRECONDITION_REQUIRED,
                "no_enrolled_device",
                "The request cannot be delivered: this user has no approver channel.",
            )
            .with_member("task_id", task_id.as_str()),
            // No error to its reader: transports answer 202 before they look for one.
            Self::ToldByMail { .. } => {
                WireError::new(S::ACCEPTED, "email_fallback_sent", "The person is told by mail.")
            }
            Self::TooManyPending => WireError::new(
                S::TOO_MANY_REQUESTS,
                "rate_limit_exceeded",
                "Too many requests of this agent wait for people.",
            )
            .with_retry_after(60),
            Self::BudgetExceeded(exhausted) => exhausted.to_wire(),
            Self::Store(_) | Self::Key(_) | Self::Hash(_) => WireError::unavailable(),
        }
    }

    /// Whether the fault is ours, so that it must be logged as one.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Key(_) | Self::Hash(_))
    }

    /// The same fault, where the route answers 422.
    pub(super) fn unprocessable(self) -> Self {
        match self {
            Self::Invalid { member, problem } => Self::Unprocessable { member, problem },
            other => other,
        }
    }
}

impl From<InvalidAgent> for ApiError {
    fn from(error: InvalidAgent) -> Self {
        Self::Invalid { member: error.member, problem: error.problem }
    }
}

impl From<Terminal> for ApiError {
    fn from(_: Terminal) -> Self {
        Self::Conflict("A revoked agent cannot be changed.")
    }
}

/// For routes that issue tokens outside the token endpoint: only outages and scopes can go wrong there.
impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Store(error) => Self::Store(error),
            TokenError::Key(error) => Self::Key(error),
            TokenError::BudgetExceeded(exhausted) => Self::BudgetExceeded(exhausted),
            other => Self::InvalidRequest(other.to_wire().description),
        }
    }
}
