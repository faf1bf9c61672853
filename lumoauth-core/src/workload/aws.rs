//! How AWS names roles and the hosts of its Security Token Service.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The ARN of an IAM role: `arn:aws:iam::123456789012:role/path/name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoleArn {
    partition: String,
    account: String,
    /// Empty, or text that ends with a slash.
    path: String,
    name: String,
}

/// The text is not the ARN of one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the ARN of a role")]
#[non_exhaustive]
pub struct InvalidArn;

impl RoleArn {
    /// Reads the ARN of a role.
    ///
    /// # Errors
    /// [`InvalidArn`] for anything that does not name exactly one role of one account.
    pub fn parse(text: &str) -> Result<Self, InvalidArn> {
        let arn = Arn::parse(text).filter(|arn| arn.service == "iam").ok_or(InvalidArn)?;
        let rest = arn.resource.strip_prefix("role/").ok_or(InvalidArn)?;
        let name_at = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (path, name) = rest.split_at_checked(name_at).ok_or(InvalidArn)?;
        let path_fits = path.split_terminator('/').all(is_name);
        if text.len() > 512 || !path_fits || !is_name(name) {
            return Err(InvalidArn);
        }
        Ok(Self {
            partition: arn.partition.to_owned(),
            account: arn.account.to_owned(),
            path: path.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The partition: `aws`, `aws-cn` or `aws-us-gov`.
    pub fn partition(&self) -> &str {
        &self.partition
    }

    /// The account.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The same role without its path. An account never has two roles of one name, whatever their paths, and the ARN of an
    /// assumed role has no path.
    pub fn without_path(&self) -> String {
        format!("arn:{}:iam::{}:role/{}", self.partition, self.account, self.name)
    }

    /// Whether `caller`, the ARN that AWS gives of a caller, is this role or a session of it.
    pub fn is_caller(&self, caller: &str) -> bool {
        match Self::parse(caller) {
            Ok(role) => role == *self,
            Err(_) => role_of_caller(caller).is_some_and(|role| role.without_path() == self.without_path()),
        }
    }
}

impl fmt::Display for RoleArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arn:{}:iam::{}:role/{}{}", self.partition, self.account, self.path, self.name)
    }
}

impl TryFrom<String> for RoleArn {
    type Error = InvalidArn;

    fn try_from(text: String) -> Result<Self, InvalidArn> {
        Self::parse(&text)
    }
}

impl From<RoleArn> for String {
    fn from(arn: RoleArn) -> Self {
        arn.to_string()
    }
}

/// The role of a caller: of a role, itself; of `arn:aws:sts::123456789012:assumed-role/name/session`, the role that was
/// assumed. `None` for users, roots and everything else.
pub(crate) fn role_of_caller(caller: &str) -> Option<RoleArn> {
    if let Ok(role) = RoleArn::parse(caller) {
        return Some(role);
    }
    let arn = Arn::parse(caller).filter(|arn| arn.service == "sts")?;
    let (role, session) = arn.resource.strip_prefix("assumed-role/")?.split_once('/')?;
    (is_name(role) && is_name(session)).then(|| RoleArn {
        partition: arn.partition.to_owned(),
        account: arn.account.to_owned(),
        path: String::new(),
        name: role.to_owned(),
    })
}

/// Names of roles, of sessions and of the parts of a path: no colon, slash or wildcard.
fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@-_".contains(&b))
}

/// The parts of an ARN of a global service.
struct Arn<'a> {
    partition: &'a str,
    service: &'a str,
    account: &'a str,
    resource: &'a str,
}

impl<'a> Arn<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next();
        let ("arn", partition, service, "", account, resource) =
            (next()?, next()?, next()?, next()?, next()?, next()?)
        else {
            return None;
        };
        let fits = matches!(partition, "aws" | "aws-cn" | "aws-us-gov")
            && account.len() == 12
            && account.bytes().all(|b| b.is_ascii_digit());
        fits.then_some(Self { partition, service, account, resource })
    }
}

/// A host of the Security Token Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StsHost<'a> {
    /// The region that requests to it are signed for.
    pub(crate) region: &'a str,
    /// Whose roles it knows.
    pub(crate) partition: &'static str,
    /// Whether it is the host of that region alone.
    pub(crate) regional: bool,
}

impl<'a> StsHost<'a> {
    /// The host of this name: `sts.amazonaws.com`, or `sts.`, a region and the domain of its partition; nothing that only
    /// looks like one of them.
    pub(crate) fn parse(host: &'a str) -> Option<Self> {
        if host == "sts.amazonaws.com" {
            return Some(Self { region: "us-east-1", partition: "aws", regional: false });
        }
        let rest = host.strip_prefix("sts.")?;
        let (region, chinese) = match rest.strip_suffix(".amazonaws.com.cn") {
            Some(region) => (region, true),
            None => (rest.strip_suffix(".amazonaws.com")?, false),
        };
        let partition = partition_of_region(region)?;
        ((partition == "aws-cn") == chinese).then_some(Self { region, partition, regional: true })
    }
}

/// The partition of a region such as `eu-west-1`; `None` if no region can have this name.
pub(super) fn partition_of_region(region: &str) -> Option<&'static str> {
    const AREAS: [&str; 10] = ["us", "eu", "ap", "sa", "ca", "af", "me", "il", "mx", "cn"];
    const DIRECTIONS: [&str; 9] =
        ["north", "south", "east", "west", "central", "northeast", "northwest", "southeast", "southwest"];
    let (area, partition) = match region.strip_prefix("us-gov-") {
        Some(rest) => (rest, "aws-us-gov"),
        None => {
            let (area, rest) = region.split_once('-')?;
            let partition = if area == "cn" { "aws-cn" } else { "aws" };
            (AREAS.contains(&area).then_some(rest)?, partition)
        }
    };
    let (direction, number) = area.split_once('-')?;
    let fits = DIRECTIONS.contains(&direction) && matches!(number.as_bytes(), [b'1'..=b'9']);
    fits.then_some(partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_named_in_full_or_not_at_all() {
        for good in [
            "arn:aws:iam::123456789012:role/bot",
            "arn:aws-cn:iam::123456789012:role/team/x/bot",
            "arn:aws-us-gov:iam::123456789012:role/a+b=c,d.e@f-g_h",
        ] {
            assert_eq!(RoleArn::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "bot",
            "arn:aws:iam::123456789012:role/*",
            "arn:aws:iam::*:role/bot",
            "arn:aws:iam:::role/bot",
            "arn:aws:iam::12345678901:role/bot",
            "arn:aws:iam::1234567890123:role/bot",
            "arn:aws:iam::12345678901a:role/bot",
            "arn:aws:iam:us-east-1:123456789012:role/bot",
            "arn:*:iam::123456789012:role/bot",
            "arn:aws-other:iam::123456789012:role/bot",
            "arn:aws:sts::123456789012:role/bot",
            "arn:aws:iam::123456789012:user/bot",
            "arn:aws:iam::123456789012:root",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:role//bot",
            "arn:aws:iam::123456789012:role/team/",
            "arn:aws:iam::123456789012:role/bot:x",
            "ARN:aws:iam::123456789012:role/bot",
            "arn:aws:iam::123456789012:Role/bot",
            " arn:aws:iam::123456789012:role/bot",
        ] {
            assert_eq!(RoleArn::parse(bad), Err(InvalidArn), "{bad}");
        }
    }

    #[test]
    fn a_session_is_the_role_it_assumed_and_nothing_else_is() {
        let role = RoleArn::parse("arn:aws:iam::123456789012:role/bot").unwrap();
        assert!(role.is_caller("arn:aws:sts::123456789012:assumed-role/bot/i-0abc"));
        assert!(role.is_caller("arn:aws:iam::123456789012:role/bot"));
        for other in [
            "arn:aws:sts::999999999999:assumed-role/bot/i-0abc",
            "arn:aws-cn:sts::123456789012:assumed-role/bot/i-0abc",
            "arn:aws:sts::123456789012:assumed-role/other/bot",
            "arn:aws:sts::123456789012:assumed-role/Bot/i-0abc",
            "arn:aws:sts::123456789012:assumed-role/bot",
            "arn:aws:sts::123456789012:assumed-role/bot/",
            "arn:aws:sts::123456789012:assumed-role/bot/x/y",
            "arn:aws:sts::123456789012:assumed-role/x/bot/y",
            "arn:aws:sts::123456789012:federated-user/bot",
            "arn:aws:sts::123456789012:role/bot",
            "arn:aws:iam::123456789012:assumed-role/bot/x",
            "arn:aws:iam::123456789012:role/team/bot",
            "arn:aws:iam::123456789012:user/bot",
            "arn:aws:iam::123456789012:root",
        ] {
            assert!(!role.is_caller(other), "{other}");
        }
    }

    #[test]
    fn a_path_counts_wherever_there_is_one() {
        let role = RoleArn::parse("arn:aws:iam::123456789012:role/team/bot").unwrap();
        assert!(role.is_caller("arn:aws:sts::123456789012:assumed-role/bot/s"));
        assert!(role.is_caller("arn:aws:iam::123456789012:role/team/bot"));
        assert!(!role.is_caller("arn:aws:iam::123456789012:role/bot"));
        assert!(!role.is_caller("arn:aws:iam::123456789012:role/other/bot"));
    }

    #[test]
    fn only_hosts_of_the_service_are_hosts_of_the_service() {
        for (host, region, partition) in [
            ("sts.amazonaws.com", "us-east-1", "aws"),
            ("sts.eu-west-1.amazonaws.com", "eu-west-1", "aws"),
            ("sts.ap-southeast-2.amazonaws.com", "ap-southeast-2", "aws"),
            ("sts.us-gov-west-1.amazonaws.com", "us-gov-west-1", "aws-us-gov"),
            ("sts.cn-north-1.amazonaws.com.cn", "cn-north-1", "aws-cn"),
        ] {
            let known = StsHost::parse(host).unwrap();
            assert_eq!((known.region, known.partition), (region, partition));
        }
        for bad in [
            "",
            "sts.amazonaws.com.evil",
            "sts.amazonaws.com.",
            "sts.amazonaws.com:443",
            "STS.amazonaws.com",
            "sts.evil.amazonaws.com",
            "sts.eu-west-1.amazonaws.com.evil",
            "sts.eu-west-1.amazonaws.com.cn",
            "sts.cn-north-1.amazonaws.com",
            "sts.amazonaws.com.cn",
            "evil.sts.amazonaws.com",
            "xsts.amazonaws.com",
            "sts.eu-west-1.evil.amazonaws.com",
            "sts.eu-west-10.amazonaws.com",
            "sts.eu-west-.amazonaws.com",
            "sts..amazonaws.com",
            "sts.eu-west-1-amazonaws.com",
            "sts.us-gov-.amazonaws.com",
            "s3.eu-west-1.amazonaws.com",
            "sts.\u{ff41}mazonaws.com",
        ] {
            assert_eq!(StsHost::parse(bad), None, "{bad}");
        }
    }
}
