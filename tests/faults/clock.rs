//! A clock that is moved while programs run by it.

use std::{fs, path::PathBuf, thread, time::Duration};

use lumoauth_tests::{Options, Server, Token, int, unique, unix_now};

use crate::skew::library;

/// A clock that programs see in place of the machine's.
pub(crate) struct Clock(PathBuf);

impl Clock {
    pub(crate) fn new() -> Self {
        let clock = Self(std::env::temp_dir().join(unique("lumoauth-clock")));
        clock.ahead(0);
        clock
    }

    /// Sets it so many seconds ahead of the machine's.
    pub(crate) fn ahead(&self, seconds: i64) {
        // At once: whoever reads half of it would see another time.
        let fresh = self.0.with_extension("new");
        fs::write(&fresh, format!("{seconds:+}s\n")).expect("a file");
        fs::rename(&fresh, &self.0).expect("a file can be moved");
    }

    pub(crate) fn variables(&self) -> [(&'static str, &str); 4] {
        [
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.to_str().expect("a plain path")),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }

    pub(crate) fn on(&self, options: Options) -> Options {
        self.variables().iter().fold(options, |options, (name, value)| options.variable(name, value))
    }

    /// Sets it so that it is `after` seconds past `end`, and waits until the server goes by it.
    pub(crate) fn pass(&self, server: &Server, end: i64, after: i64) {
        let ahead = end + after - unix_now();
        self.ahead(ahead);
        let agent = server.acme().agent(&[]);
        for _ in 0..600 {
            // A server on a database asks it for the time.
            server.request("GET", "/readyz").send();
            let issued = int(&Token::parse(&agent.token()).claims["iat"]);
            if issued >= unix_now() + ahead - 1 {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("the server does not follow the clock");
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
