//! The scripts: one per operation.

use std::sync::LazyLock;

use redis::{Cmd, cmd};

/// A script that is sent by its hash, and whole where the server does not know it.
///
/// `redis::Script` would load it everywhere first, which fails while one node of a cluster is down.
#[derive(Debug)]
pub(crate) struct Script {
    code: &'static str,
    sha: String,
}

/// One call of a script. All keys are in one slot.
#[derive(Debug)]
pub(crate) struct Call {
    script: &'static Script,
    keys: Vec<Vec<u8>>,
    args: Vec<Vec<u8>>,
}

impl Script {
    fn new(code: &'static str) -> Self {
        Self { code, sha: redis::Script::new(code).get_hash().to_owned() }
    }

    pub(crate) fn call(&'static self, keys: Vec<Vec<u8>>, args: Vec<Vec<u8>>) -> Call {
        Call { script: self, keys, args }
    }
}

impl Call {
    pub(crate) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", self.script.sha.as_bytes())
    }

    pub(crate) fn whole(&self) -> Cmd {
        self.command("EVAL", self.script.code.as_bytes())
    }

    fn command(&self, name: &str, script: &[u8]) -> Cmd {
        let mut command = cmd(name);
        command.arg(script).arg(self.keys.len());
        for part in self.keys.iter().chain(&self.args) {
            command.arg(part.as_slice());
        }
        command
    }
}

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident: $($file:literal)+;)+) => {
        $($(#[$doc])* pub(crate) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($(include_str!(concat!("scripts/", $file, ".lua")), "\n"),+)));)+
    };
}

scripts! {
    /// Counts a request.
    TAKE: "take";
    /// Establishes the births of buckets.
    READY: "memory" "ready";
    /// Remembers a single-use value.
    REMEMBER: "memory" "birth" "remember";
    /// Spends from the pools, and brings slices into them.
    CHARGE: "memory" "charge";
    /// What is left in a pool.
    LEFT: "memory" "left";
    /// Reads holds.
    RECORDS: "memory" "records";
    /// Names in an index.
    NAMED: "named";
    /// Lists an organization that parks something.
    LIST: "list";
    /// Takes organizations off that list.
    UNLIST: "unlist";
}
