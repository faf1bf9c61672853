//! SIGKILL of the server on its embedded store under load, many times over (security ST-09).

use std::{env, path::Path, thread, time::Duration};

use lumoauth_tests::{Backend, Options, Server, unique};

use crate::{
    counts::count,
    ledger::Agent,
    writers::{Books, Expect, Writer},
};

/// Every writer stops at the first request whose fate it does not know, and writes that down.
#[test]
fn nothing_acknowledged_is_lost_across_kills_of_the_server_under_load() {
    let kills = count("FAULT_SERVER_KILLS", 25);
    let dir = env::temp_dir().join(unique("lumoauth-kill"));
    let mut server = start(&dir, "127.0.0.1:0");
    let address = server.authority().to_owned();
    let variables = server.variables().clone();
    let books = Books::default();
    let spender = Agent::spender(&server);

    for round in 0..kills {
        thread::scope(|scope| {
            let writing = books.open();
            for number in 0..WRITERS {
                let (server, books, spender) = (&server, &books, &spender);
                let writer = Writer { server, books, spender, expect: Expect::ServerDies };
                scope.spawn(move || writer.write(number));
            }
            // Different moments of a batch are hit in different rounds; a prime avoids a beat with anything.
            thread::sleep(Duration::from_millis(150 + round * 37 % 400));
            kill(server.pid());
            drop(writing);
        });
        assert!(books.take_steps() > 0, "round {round} made no progress: {}", server.log());
        server.kill();

        server = start(&dir, &address);
        assert_eq!(server.variables(), &variables, "the same credentials after kill {round}");
        let mut ledger = books.ledger();
        ledger.settle_unknown_charges(&server, &spender);
        ledger.check_newest(&server, &spender);
        ledger.auditor.keep_head(&server.acme());
    }

    let ledger = books.into_ledger();
    eprintln!("{kills} kills of a server on its file: {}", ledger.summary());
    ledger.check_everything(&server, &spender);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    drop(server);
    std::fs::remove_dir_all(&dir).expect("the directory can go");
}

const WRITERS: u64 = 6;

pub(crate) fn start(dir: &Path, address: &str) -> Server {
    Server::start(&Options::new(Backend::Embedded).dir(dir).listen(address))
}

/// SIGKILL, while others still hold the server.
pub(crate) fn kill(pid: u32) {
    let status = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    assert!(status.expect("kill runs").success());
}
