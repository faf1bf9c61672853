//! SIGKILL under load, many times over (security ST-09, issue 2).

use std::{
    env,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use lumoauth_tests::{Backend, Connection, Options, Request, Response, Server, text, unique};
use serde_json::{Value, json};

use crate::ledger::{Agent, Ledger};

/// Every writer stops at the first request whose fate it does not know, and writes that down.
#[test]
fn nothing_acknowledged_is_lost_across_kills_of_the_server_under_load() {
    let kills: u64 =
        env::var("LUMOAUTH_KILLS").map_or(50, |count| count.parse().expect("LUMOAUTH_KILLS is a number"));
    let dir = env::temp_dir().join(unique("lumoauth-kill"));
    let mut server = start(&dir, "127.0.0.1:0");
    let address = server.authority().to_owned();
    let variables = server.variables().clone();
    let ledger = Mutex::new(Ledger::default());
    let spender = spender(&server);

    for round in 0..kills {
        let steps = AtomicU64::new(0);
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (server, ledger, spender, steps) = (&server, &ledger, &spender, &steps);
                scope.spawn(move || write_until_it_dies(server, ledger, spender, writer, steps));
            }
            // Different moments of a batch are hit in different rounds; a prime avoids a beat with anything.
            thread::sleep(Duration::from_millis(150 + round * 37 % 400));
            kill(server.pid());
        });
        assert!(steps.load(Ordering::Relaxed) > 0, "round {round} made no progress: {}", server.log());
        server.kill();

        server = start(&dir, &address);
        assert_eq!(server.variables(), &variables, "the same credentials after kill {round}");
        let mut ledger = ledger.lock().expect("no panic");
        ledger.settle_unknown_charges(&server, &spender);
        ledger.check_newest(&server, &spender);
    }

    let ledger = ledger.into_inner().expect("no panic");
    eprintln!("{kills} kills: {}", ledger.summary());
    ledger.check_everything(&server, &spender);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    drop(server);
    std::fs::remove_dir_all(&dir).expect("the directory can go");
}

const WRITERS: u64 = 6;

fn start(dir: &Path, address: &str) -> Server {
    Server::start(&Options::new(Backend::Embedded).dir(dir).listen(address))
}

fn kill(pid: u32) {
    let status = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    assert!(status.expect("kill runs").success());
}

/// The agent whose budget the charges go to. It has limits, so that use is shown, and never reaches them.
fn spender(server: &Server) -> Agent {
    let policy = json!({ "max_cost_per_month_usd": 1_000_000 });
    let agent = server.acme().create_agent(json!({ "capabilities": ["read:a"], "budgetPolicy": policy }));
    let token = agent.token();
    Agent { agent_id: agent.agent_id, client_id: agent.client_id, secret: agent.secret, token }
}

fn write_until_it_dies(
    server: &Server,
    ledger: &Mutex<Ledger>,
    spender: &Agent,
    writer: u64,
    steps: &AtomicU64,
) {
    let Ok(mut connection) = Connection::open(server.authority()) else { return };
    let mut kind = writer;
    loop {
        // Every writer does every kind of write, each from another start.
        let alive = match kind % 5 {
            0 => create(server, ledger, &mut connection),
            1 => charge_with_key(server, ledger, spender, &mut connection),
            2 => charge_without_key(server, ledger, spender, &mut connection),
            3 => authenticate(server, ledger, spender, &mut connection),
            _ => ask(server, ledger, spender, &mut connection),
        };
        if !alive {
            return;
        }
        kind += 1;
        steps.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends, and gives the answer unless the server died first.
fn sent(connection: &mut Connection, request: &Request, wanted: u16) -> Option<Response> {
    let response = connection.send(request).ok()?;
    assert_eq!(response.status, wanted, "{response}");
    Some(response)
}

fn create(server: &Server, ledger: &Mutex<Ledger>, connection: &mut Connection) -> bool {
    let name = unique("Survivor");
    ledger.lock().expect("no panic").attempted_agents.push(name.clone());
    let body = json!({ "name": name, "capabilities": ["read:a"] });
    let Some(response) = sent(connection, &server.acme().admin("POST", "/agents").json(body), 201) else {
        return false;
    };
    let data: Value = response.json()["data"].clone();
    ledger.lock().expect("no panic").agents.push(Agent {
        agent_id: text(&data["agentId"]).to_owned(),
        client_id: text(&data["clientId"]).to_owned(),
        secret: text(&data["clientSecret"]).to_owned(),
        token: String::new(),
    });
    true
}

fn charge_with_key(
    server: &Server,
    ledger: &Mutex<Ledger>,
    spender: &Agent,
    connection: &mut Connection,
) -> bool {
    let key = unique("charge");
    ledger.lock().expect("no panic").keys.push(key.clone());
    let request = Ledger::charge(server, spender, Some(&key));
    let alive = sent(connection, &request, 200).is_some();
    if !alive {
        ledger.lock().expect("no panic").unknown_keys.push(key);
    }
    alive
}

fn charge_without_key(
    server: &Server,
    ledger: &Mutex<Ledger>,
    spender: &Agent,
    connection: &mut Connection,
) -> bool {
    ledger.lock().expect("no panic").attempted_charges += 1;
    let alive = sent(connection, &Ledger::charge(server, spender, None), 200).is_some();
    ledger.lock().expect("no panic").charges += u64::from(alive);
    alive
}

fn authenticate(
    server: &Server,
    ledger: &Mutex<Ledger>,
    spender: &Agent,
    connection: &mut Connection,
) -> bool {
    ledger.lock().expect("no panic").attempted_tokens += 1;
    let alive = sent(connection, &Ledger::token_request(server, spender), 200).is_some();
    ledger.lock().expect("no panic").tokens += u64::from(alive);
    alive
}

fn ask(server: &Server, ledger: &Mutex<Ledger>, spender: &Agent, connection: &mut Connection) -> bool {
    ledger.lock().expect("no panic").attempted_questions += 1;
    let body = json!({ "action": "read:a" });
    let request = server.acme().post("/agents/ask").bearer(&spender.token).json(body);
    let Some(response) = sent(connection, &request, 200) else { return false };
    let id = text(&response.json()["audit_id"]).to_owned();
    ledger.lock().expect("no panic").questions.push(id);
    true
}
