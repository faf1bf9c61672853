//! How an agent may prove who it is, and from where.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Agent, IdentityType, InvalidAgent};
use crate::network::Network;

/// How an agent proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "every method must be handled where agents authenticate")]
pub enum AuthMethod {
    /// A client id and secret, by HTTP Basic or in the body (RFC 6749 section 2.3.1).
    ClientCredentials,
    /// A JWT that it signed with a registered key (RFC 7523 section 2.2).
    PrivateKeyJwt,
    /// An agent API key.
    ApiKey,
    /// Its platform vouches for it.
    WorkloadIdentity,
    /// It signs its requests (RFC 9421), as a party of AAuth.
    Aauth,
}

impl AuthMethod {
    /// All there are.
    pub const ALL: [Self; 5] =
        [Self::ClientCredentials, Self::PrivateKeyJwt, Self::ApiKey, Self::WorkloadIdentity, Self::Aauth];

    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::ApiKey => "api_key",
            Self::WorkloadIdentity => "workload_identity",
            Self::Aauth => "aauth",
        }
    }
}

/// Why an agent is refused although its credential is good. For the log; whoever presents it learns only that it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(clippy::exhaustive_enums, reason = "there is how, and there is from where")]
pub enum Barred {
    /// It may not prove itself like that.
    #[error("the agent may not authenticate by this method")]
    Method,
    /// It may not be there, or nobody knows where it is.
    #[error("the address is none of those that the agent may come from")]
    Address,
}

impl IdentityType {
    /// Whether agents of this type may prove themselves by `method`. Registered keys are for all of them: they are what those
    /// without a secret have.
    pub const fn may_use(self, method: AuthMethod) -> bool {
        match method {
            AuthMethod::ClientCredentials => matches!(self, Self::ClientCredentials | Self::Custom),
            AuthMethod::WorkloadIdentity => matches!(self, Self::WorkloadIdentity | Self::Custom),
            AuthMethod::ApiKey => matches!(self, Self::ApiKey | Self::Custom | Self::ClientCredentials),
            AuthMethod::PrivateKeyJwt | AuthMethod::Aauth => true,
        }
    }
}

impl Agent {
    /// Whether it may prove itself by `method`: its type allows it, and so does its list, if there is one.
    pub fn may_use(&self, method: AuthMethod) -> bool {
        self.identity_type.may_use(method)
            && (self.auth_methods.is_empty() || self.auth_methods.contains(&method))
    }

    /// Whether it may prove itself by `method`, and do so `from` there.
    ///
    /// # Errors
    /// [`Barred`] if not.
    pub fn check(&self, method: AuthMethod, from: Option<IpAddr>) -> Result<(), Barred> {
        if !self.may_use(method) {
            return Err(Barred::Method);
        }
        self.check_address(from)
    }

    /// Whether it may be `there`. Where that is not known, an agent with a list is nowhere.
    ///
    /// # Errors
    /// [`Barred::Address`] if not.
    pub fn check_address(&self, there: Option<IpAddr>) -> Result<(), Barred> {
        let listed = |address| self.allowed_ips.iter().any(|network| network.contains(address));
        if self.allowed_ips.is_empty() || there.is_some_and(listed) { Ok(()) } else { Err(Barred::Address) }
    }
}

/// The `allowedIps` of an agent: at most 100 networks and addresses.
pub(super) fn networks(texts: &[String]) -> Result<Vec<Network>, InvalidAgent> {
    const MOST: usize = 100;
    const MEMBER: &str = "allowedIps";
    if texts.len() > MOST {
        return Err(InvalidAgent { member: MEMBER, problem: format!("has more than {MOST} items") });
    }
    let mut networks = Vec::with_capacity(texts.len());
    for text in texts {
        let network: Network = text.parse().map_err(|_| InvalidAgent {
            member: MEMBER,
            problem: "must be networks such as `10.0.0.0/8` and `2001:db8::/32`, or addresses".to_owned(),
        })?;
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    Ok(networks)
}

/// The `authMethods` of an agent, each once.
pub(super) fn auth_methods(names: &[String]) -> Result<Vec<AuthMethod>, InvalidAgent> {
    let mut methods = Vec::new();
    for name in names {
        let method = AuthMethod::ALL.into_iter().find(|method| method.as_str() == name);
        let method = method.ok_or_else(|| {
            let known = AuthMethod::ALL.map(AuthMethod::as_str).join(", ");
            InvalidAgent { member: "authMethods", problem: format!("must be of {known}") }
        })?;
        if !methods.contains(&method) {
            methods.push(method);
        }
    }
    Ok(methods)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent::AgentPatch, clock::Timestamp, id::Slug};

    fn agent(members: &str) -> Result<Agent, InvalidAgent> {
        let mut agent = Agent::new("A", Slug::parse("a").unwrap(), Timestamp::default());
        serde_json::from_str::<AgentPatch>(members).unwrap().apply(&mut agent).map(|()| agent)
    }

    fn from(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn names_are_those_of_the_wire() {
        for method in AuthMethod::ALL {
            assert_eq!(serde_json::to_value(method).unwrap(), method.as_str());
        }
    }

    #[test]
    fn without_a_list_the_type_says_how_and_everywhere_is_good() {
        use AuthMethod::{Aauth, ApiKey, ClientCredentials, PrivateKeyJwt, WorkloadIdentity};
        for (identity, methods) in [
            (IdentityType::ClientCredentials, &[ClientCredentials, PrivateKeyJwt, ApiKey, Aauth][..]),
            (IdentityType::ApiKey, &[PrivateKeyJwt, ApiKey, Aauth]),
            (IdentityType::WorkloadIdentity, &[PrivateKeyJwt, WorkloadIdentity, Aauth]),
            (IdentityType::Aauth, &[PrivateKeyJwt, Aauth]),
            (IdentityType::Custom, &AuthMethod::ALL),
        ] {
            let agent = agent(&format!(r#"{{"identityType":"{}"}}"#, identity.as_str())).unwrap();
            for method in AuthMethod::ALL {
                let expected = if methods.contains(&method) { Ok(()) } else { Err(Barred::Method) };
                assert_eq!(agent.check(method, from("192.0.2.1")), expected, "{identity:?} {method:?}");
                assert_eq!(agent.check(method, None), expected, "{identity:?} {method:?}");
            }
        }
    }

    #[test]
    fn with_a_list_only_what_is_listed() {
        // Every combination.
        for chosen in 1_u32..1 << AuthMethod::ALL.len() {
            let listed: Vec<_> = (0..AuthMethod::ALL.len())
                .filter(|n| chosen & (1 << n) != 0)
                .map(|n| AuthMethod::ALL[n])
                .collect();
            let names = serde_json::to_string(&listed).unwrap();
            let custom = agent(&format!(r#"{{"identityType":"custom","authMethods":{names}}}"#)).unwrap();
            assert_eq!(custom.auth_methods, listed);
            for method in AuthMethod::ALL {
                assert_eq!(custom.may_use(method), listed.contains(&method), "{names} {method:?}");
            }
        }
    }

    #[test]
    fn lists_are_within_the_type_also_after_a_change() {
        let refused = |members: &str| agent(members).unwrap_err().member;
        assert_eq!(refused(r#"{"authMethods":["workload_identity"]}"#), "authMethods");
        assert_eq!(refused(r#"{"identityType":"aauth","authMethods":["aauth","api_key"]}"#), "authMethods");
        assert_eq!(
            refused(r#"{"identityType":"custom","authMethods":["client_secret_basic"]}"#),
            "authMethods"
        );
        assert_eq!(refused(r#"{"authMethods":[""]}"#), "authMethods");
        let mut one = agent(r#"{"authMethods":["private_key_jwt","client_credentials"]}"#).unwrap();
        let before = one.clone();
        let change = |text: &str| serde_json::from_str::<AgentPatch>(text).unwrap();
        assert!(change(r#"{"identityType":"api_key"}"#).apply(&mut one).is_err());
        assert_eq!(one, before);
        change(r#"{"identityType":"api_key","auth_methods":["api_key","api_key"]}"#).apply(&mut one).unwrap();
        assert_eq!(one.auth_methods, [AuthMethod::ApiKey]);
        change(r#"{"authMethods":null,"allowedIps":null}"#).apply(&mut one).unwrap();
        assert_eq!(one.auth_methods, [AuthMethod::ApiKey]);
        change(r#"{"authMethods":[]}"#).apply(&mut one).unwrap();
        assert!(one.auth_methods.is_empty() && one.may_use(AuthMethod::PrivateKeyJwt));
    }

    #[test]
    fn addresses_are_those_listed_and_unknown_is_none() {
        let agent = agent(r#"{"allowedIps":["192.0.2.0/30","2001:db8::1"]}"#).unwrap();
        for good in ["192.0.2.0", "192.0.2.3", "::ffff:192.0.2.3", "2001:db8::1"] {
            assert_eq!(agent.check(AuthMethod::ClientCredentials, from(good)), Ok(()), "{good}");
        }
        for bad in [
            "192.0.1.255",
            "192.0.2.4",
            "::ffff:192.0.2.4",
            "::192.0.2.3",
            "2001:db8::",
            "2001:db8::2",
            "::1",
        ] {
            assert_eq!(agent.check_address(from(bad)), Err(Barred::Address), "{bad}");
        }
        assert_eq!(agent.check_address(None), Err(Barred::Address));
        assert_eq!(agent.check(AuthMethod::WorkloadIdentity, from("192.0.2.0")), Err(Barred::Method));
    }

    #[test]
    fn lists_of_addresses_are_bounded_and_each_is_kept_once() {
        let many = |n: u8| (0..n).map(|n| format!("192.0.2.{n}")).collect::<Vec<_>>();
        assert_eq!(networks(&many(100)).unwrap().len(), 100);
        assert!(networks(&many(101)).is_err());
        let same = ["10.0.0.0/8", "10.1.1.1/8", "::ffff:10.0.0.0/104"].map(str::to_owned);
        assert_eq!(networks(&same).unwrap().len(), 1);
        for bad in ["", "*", "10.0.0.0/33", "a.test"] {
            assert_eq!(
                networks(&["10.0.0.0/8".to_owned(), bad.to_owned()]).unwrap_err().member,
                "allowedIps"
            );
        }
    }
}
