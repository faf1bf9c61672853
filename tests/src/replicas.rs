//! Two servers on one database, as an operator runs them.

use std::fs;

use crate::{Backend, ServeOptions, Server};

/// Two replicas.
#[derive(Debug)]
pub struct Replicas {
    /// The one that made the organizations.
    pub a: Server,
    /// The other one.
    pub b: Server,
    options: [ServeOptions; 2],
}

impl Replicas {
    /// Starts them, without limits on how often they are asked, on databases of their own.
    ///
    /// # Panics
    /// When one does not come up.
    pub fn start(backend: Backend) -> Self {
        Self::with(backend, |options| options)
    }

    /// Starts them with options that `more` adds.
    ///
    /// # Panics
    /// When one does not come up.
    pub fn with(backend: Backend, more: impl FnOnce(ServeOptions) -> ServeOptions) -> Self {
        let first = more(ServeOptions::new().on(backend).line("rate_limits = false"));
        first.migrate();
        let options = [first.replica(), first];
        let [a, b] = [&options[1], &options[0]].map(Server::serve);
        Self { a, b, options }
    }

    /// The URL of their databases.
    pub fn store(&self) -> &str {
        self.options[1].store()
    }

    /// Stops them.
    ///
    /// # Panics
    /// When one has panicked, or does not stop in order.
    pub fn end(self) {
        for server in [self.a, self.b] {
            assert!(!server.log().contains("panicked"), "{}", server.log());
            assert_eq!(server.terminate(), Some(0));
        }
        for options in self.options {
            fs::remove_dir_all(options.dir()).expect("the directory can go");
        }
    }
}
