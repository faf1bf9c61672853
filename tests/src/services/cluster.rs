//! A private Redis Cluster.

use std::{process::Command, thread, time::Duration};

use super::{Redis, free_port_in, output_of, password, program};
use crate::Stopwatch;

/// Three Redis nodes that share the slots among them, without replicas; dropping it kills them.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Makes a new one and waits until every node answers for its slots.
    ///
    /// # Panics
    /// When Redis is not installed, or the cluster does not come up.
    pub fn start() -> Self {
        let password = password();
        // Nodes talk to each other on a second port, 10000 above the first.
        let port = || free_port_in(11_000..19_000, &[0, 10_000]);
        let lines = ["cluster-enabled yes", "cluster-node-timeout 2000"];
        let nodes: Vec<Redis> = (0..3).map(|_| Redis::start_on(port, &password, &lines)).collect();
        let mut create = Command::new(program("redis-cli", "redis-tools"));
        create.args(["--cluster", "create"]).args(nodes.iter().map(|node| node.address().to_string()));
        create.args(["--cluster-replicas", "0", "--cluster-yes"]);
        output_of(create.env("REDISCLI_AUTH", &password));
        let cluster = Self { nodes };
        cluster.wait();
        cluster
    }

    /// Its URL, which names all nodes: `redis://:password@host:port,host:port,host:port`.
    pub fn url(&self) -> String {
        let (first, others) = self.nodes.split_first().expect("three nodes");
        let others: String = others.iter().map(|node| format!(",{}", node.address())).collect();
        first.url() + &others
    }

    /// Its nodes.
    pub fn nodes(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }

    fn wait(&self) {
        let watch = Stopwatch::start();
        let settled = |node: &Redis| node.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
        while !self.nodes.iter().all(settled) {
            assert!(watch.elapsed() < Duration::from_secs(60), "the cluster does not come up");
            thread::sleep(Duration::from_millis(50));
        }
    }
}
