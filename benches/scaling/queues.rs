//! The queues of a synchronous step: workers and servers, each with a core and a link of its own.

/// Seconds, alone on a core.
#[derive(Debug)]
pub(crate) struct Costs {
    /// Of a worker: forward, and what backward needs for the last shard.
    pub(crate) begin: f64,
    /// By shard, which are computed from the last one on.
    pub(crate) shards: Vec<Shard>,
    /// One way, of any message.
    pub(crate) latency: f64,
    /// Of a byte through a socket, on either side.
    pub(crate) socket: f64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Shard {
    pub(crate) bytes: f64,
    /// Of a worker: its gradient.
    pub(crate) gradient: f64,
    /// Of a worker: what came, put to its place.
    pub(crate) place: f64,
    /// Of a server: a push to the sum.
    pub(crate) add: f64,
    /// Of a server: from the sum to the next version.
    pub(crate) apply: f64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    pub(crate) bytes_a_second: f64,
}

/// Steps until all queues are as they stay, and steps that are measured.
const WARM_UP: usize = 5;
const STEPS: usize = 10;

impl Costs {
    /// Of a step without any exchange.
    pub(crate) fn alone(&self) -> f64 {
        self.begin + self.shards.iter().map(|shard| shard.gradient).sum::<f64>()
    }
}

/// When something that serves one after the other is free again.
type Free = f64;

/// A worker, or a server with its shard: a core, and a link that carries both ways at once.
#[derive(Clone, Default)]
struct Machine {
    core: Free,
    from: Free,
    to: Free,
}

/// A push or an answer: when it could leave, the worker, the shard.
type Leaves = (f64, usize, usize);

/// Seconds of a step, in the long run.
pub(crate) fn step(costs: &Costs, workers: usize, network: Network) -> f64 {
    let mut all = vec![Machine::default(); workers];
    let mut servers = vec![Machine::default(); costs.shards.len()];
    let mut began = 0.0;
    for number in 0..WARM_UP + STEPS {
        let pushes = compute(costs, &mut all);
        let versions = push(costs, network, pushes, &mut all, &mut servers);
        answer(costs, network, versions, &mut all, &mut servers);
        let ended = all.iter().map(|worker| worker.core).fold(0.0, f64::max);
        if number + 1 == WARM_UP {
            began = ended;
        } else if number + 1 == WARM_UP + STEPS {
            return (ended - began) / STEPS as f64;
        }
    }
    unreachable!("the last step returns")
}

/// A worker's connections are on its own thread: what it sends, it does not compute meanwhile.
fn compute(costs: &Costs, workers: &mut [Machine]) -> Vec<Leaves> {
    let mut pushes = Vec::new();
    for (number, worker) in workers.iter_mut().enumerate() {
        worker.core += costs.begin;
        for (place, shard) in costs.shards.iter().enumerate().rev() {
            worker.core += shard.gradient;
            pushes.push((worker.core, number, place));
            worker.core += costs.socket * shard.bytes;
        }
    }
    pushes.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    pushes
}

/// Returns when which shard's next version was there.
fn push(
    costs: &Costs,
    network: Network,
    pushes: Vec<Leaves>,
    workers: &mut [Machine],
    servers: &mut [Machine],
) -> Vec<(f64, usize)> {
    let (mut came, mut versions) = (vec![0; servers.len()], Vec::new());
    for (ready, worker, place) in pushes {
        let (shard, server) = (costs.shards[place], &mut servers[place]);
        let from = &mut workers[worker].from;
        let arrived = send(costs, network, shard.bytes, ready, from, &mut server.to);
        server.core = server.core.max(arrived);
        came[place] += 1;
        // The last addition is part of the update.
        if came[place] == workers.len() {
            server.core += shard.apply;
            versions.push((server.core, place));
        } else if came[place] > 1 {
            server.core += shard.add;
        }
    }
    versions.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    versions
}

fn answer(
    costs: &Costs,
    network: Network,
    versions: Vec<(f64, usize)>,
    workers: &mut [Machine],
    servers: &mut [Machine],
) {
    for (ready, place) in versions {
        let (shard, server) = (costs.shards[place], &mut servers[place]);
        for worker in workers.iter_mut() {
            let from = &mut server.from;
            let arrived = send(costs, network, shard.bytes, ready, from, &mut worker.to);
            worker.core = worker.core.max(arrived) + costs.socket * shard.bytes + shard.place;
        }
    }
}

/// Both links are taken while the bytes pass. Returns when they have come.
fn send(
    costs: &Costs,
    network: Network,
    bytes: f64,
    ready: f64,
    from: &mut Free,
    to: &mut Free,
) -> f64 {
    let lasts = bytes / network.bytes_a_second.min(1.0 / costs.socket);
    let end = ready.max(*from).max(*to) + lasts;
    (*from, *to) = (end, end);
    end + costs.latency
}
