//! The harness of the black-box tests.
//!
//! Tests start the built `lumoauth-server` as a child process and talk HTTP to it, as a deployer would. One
//! server per backend serves a whole test binary ([`shared`]); every test makes its own agents with names of its
//! own, so tests run in parallel and in any order. A test that needs the server to itself starts one with
//! [`Server::start`].
//!
//! The client is hand-written on a socket: it can send what a polite library refuses to, it never follows a
//! redirect, and it treats every status as an answer.

mod aauth;
mod at_once;
mod auditor;
mod dpop;
mod exchange;
mod forge;
mod http;
mod https;
mod issuer;
mod jwt;
mod key_site;
mod org;
mod people;
mod replicas;
mod routes;
mod serve;
mod server;
pub mod services;
mod sts;
mod time;
mod values;
mod watchdog;

pub use aauth::{AAuthAgent, AAuthResource, Call, Ed25519, Sent};
pub use at_once::at_once;
pub use auditor::Auditor;
pub use dpop::DpopKey;
pub use exchange::{ACCESS_TOKEN, EXCHANGE, ID_TOKEN, JWT, REFRESH_TOKEN, acted_by, exchanging};
pub use forge::{AttackerKey, forged, forms_of_public_key, unsigned};
pub use http::{Connection, Request, Response, percent_encode, raw_exchange};
pub use issuer::Issuer;
pub use jwt::{Jwks, Token, b64, unb64};
pub use key_site::{KeyPage, KeySite, Posted};
pub use org::{Agent, Org};
pub use people::{App, CALLBACK, Person, UserTokens, asking, told};
pub use replicas::Replicas;
pub use routes::ServedRoute;
pub use serve::ServeOptions;
pub use server::{Backend, Options, Server, run_server, shared};
pub(crate) use sts::STS_HOSTS;
pub use sts::{AwsCaller, Sts, altered, signature_in, sts_token};
pub use time::{Stopwatch, avoid_hour_edge, avoid_minute_edge, rfc3339, unix_now};
pub use values::{int, list, strings, text, unique};

/// Makes one `#[test]` per backend out of each function that is named.
///
/// Each function takes the shared [`Server`] of the backend. A function that is not listed is dead code, which the
/// lints refuse, so nothing is forgotten.
#[macro_export]
macro_rules! on_each_backend {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $name() { super::$name($crate::shared($crate::Backend::Memory)); })*
        }
        mod embedded {
            $(#[test] fn $name() { super::$name($crate::shared($crate::Backend::Embedded)); })*
        }
        mod postgres {
            $(#[test] fn $name() { super::$name($crate::shared($crate::Backend::Postgres)); })*
        }
        mod postgres_redis {
            $(#[test] fn $name() { super::$name($crate::shared($crate::Backend::PostgresRedis)); })*
        }
    };
}

/// Makes one `#[test]` per backend that replicas can share out of each function that is named.
///
/// Each function takes the [`Backend`].
#[macro_export]
macro_rules! on_shared_backends {
    ($($name:ident),* $(,)?) => {
        mod postgres {
            $(#[test] fn $name() { super::$name($crate::Backend::Postgres); })*
        }
        mod postgres_redis {
            $(#[test] fn $name() { super::$name($crate::Backend::PostgresRedis); })*
        }
    };
}
