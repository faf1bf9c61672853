//! The routes that there are, as the router's own table has them: a list by hand would not know of a new one.

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServedRoute {
    /// Method.
    pub method: &'static str,
    prefix: &'static str,
    pattern: &'static str,
    /// Who may enter, as the table writes it.
    pub access: &'static str,
}

impl ServedRoute {
    /// All of them.
    ///
    /// # Panics
    /// When the table is not written as it was.
    pub fn all() -> Vec<Self> {
        let mut prefix = "";
        let mut all = Vec::new();
        for line in include_str!("../../lumoauth-tower/src/route.rs").lines() {
            if let Some((_, rest)) = line.split_once("= routes! { \"") {
                prefix = rest.split('"').next().unwrap_or_default();
            }
            let Some((row, _)) = line.trim().split_once(" => ") else { continue };
            let Some((method, row)) = row.split_once(" \"") else { continue };
            let Some((pattern, access)) = row.split_once("\" ") else { continue };
            all.push(Self { method, prefix, pattern, access });
        }
        let below = |prefix: &str| all.iter().filter(|route| route.prefix == prefix).count();
        assert!(below("/orgs/{}/api/v1") > 100 && below("/api/v1") > 3, "{all:?}");
        all
    }

    /// Its path below the prefix, with `{}` for what a caller chooses.
    pub fn pattern(&self) -> String {
        format!("/{}", self.pattern)
    }

    /// A path of it in this organization.
    pub fn path_in(&self, slug: &str) -> String {
        format!("{}{}", self.prefix.replace("{}", slug), self.pattern().replace("{}", "x"))
    }

    /// Whether this is a path of it.
    pub fn is_at(&self, path: &str) -> bool {
        let pattern = self.pattern();
        let (path, pattern): (Vec<_>, Vec<_>) = (path.split('/').collect(), pattern.split('/').collect());
        let same = |(part, wanted): (&&str, &&str)| part == wanted || *wanted == "{}";
        path.len() == pattern.len() && path.iter().zip(&pattern).all(same)
    }
}
