//! Hosts, the switch between them, and what cuts them off. Nothing of it is seen outside, and the
//! kernel removes it with the last process in it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// Hosts 1 to 3 are 10.77.0.1 to 10.77.0.3.
pub(crate) const HOSTS: [u8; 3] = [1, 2, 3];

/// Of the host with the coordination store, a second one: the store can be cut off alone.
pub(crate) const STORE: (u8, &str) = (3, "10.77.0.4");

/// Nobody's: what is sent there is dropped by whoever gets it.
const NOBODY: &str = "02:00:00:00:00:99";

/// Ends with its standard input, thus with this process.
const SET_UP: &str = "
set -e
mount -t tmpfs none /run
ip netns add switch
ip -n switch link add bridge type bridge
ip -n switch link set bridge up
for host in 1 2 3; do
  ip netns add host-$host
  ip -n switch link add port-$host type veth peer name net netns host-$host
  ip -n switch link set port-$host master bridge up
  ip -n host-$host address add 10.77.0.$host/24 dev net
  ip -n host-$host link set net up
  ip -n host-$host link set lo up
done
ip -n host-3 address add 10.77.0.4/24 dev net
echo ready
exec cat
";

/// Which packets don't arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// None from or to this host.
    Both(u8),
    /// None that this host sends.
    From(u8),
    /// None that are sent to this host.
    To(u8),
    /// None from this host to the coordination store; servers and workers hear it.
    #[cfg(feature = "etcd")]
    Store(u8),
}

pub(crate) fn address(host: u8) -> String {
    format!("10.77.0.{host}")
}

#[derive(Debug)]
pub(crate) struct Network {
    /// Holds the namespaces.
    holder: Child,
}

impl Network {
    /// `None`, after a word on standard error, where this machine doesn't let this user.
    pub(crate) fn new() -> Option<Self> {
        hold("network", &["--net", "--mount"], &[SET_UP]).map(|holder| Self { holder })
    }

    /// A program in the network of a host; its process is that of the child.
    pub(crate) fn on(&self, host: u8, program: &str) -> Command {
        let mut command = self.enter("ip");
        command.args(["netns", "exec", &format!("host-{host}"), program]);
        command
    }

    fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.holder.id().to_string());
        command.args(["--user", "--preserve-credentials", "--net", "--mount", program]);
        command
    }

    pub(crate) fn cut(&self, cut: Cut) {
        self.change(cut, true);
    }

    pub(crate) fn heal(&self, cut: Cut) {
        self.change(cut, false);
    }

    /// One way is cut by a wrong address in the sender's table of neighbours.
    fn change(&self, cut: Cut, cuts: bool) {
        let others = |own: u8| HOSTS.into_iter().filter(move |host| *host != own);
        match cut {
            Cut::Both(host) => {
                let state = if cuts { "down" } else { "up" };
                self.ip(&format!("-n switch link set port-{host} {state}"));
            }
            Cut::From(host) => {
                others(host).for_each(|to| self.block(host, &address(to), cuts));
                self.block(host, STORE.1, cuts);
            }
            Cut::To(host) => {
                others(host).for_each(|from| self.block(from, &address(host), cuts));
            }
            #[cfg(feature = "etcd")]
            Cut::Store(host) => self.block(host, STORE.1, cuts),
        }
    }

    fn block(&self, from: u8, to: &str, cuts: bool) {
        if from == STORE.0 && to == STORE.1 {
            return;
        }
        let neighbour = format!("{to} dev net");
        if cuts {
            let wrong = format!("{neighbour} lladdr {NOBODY} nud permanent");
            self.ip(&format!("-n host-{from} neighbour replace {wrong}"));
        } else {
            self.ip(&format!("-n host-{from} neighbour del {neighbour}"));
        }
    }

    #[track_caller]
    fn ip(&self, arguments: &str) {
        let output = self.enter("ip").args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {output:?}");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A process that holds namespaces of its own, which `sh -c` of these words has made ready. `None`,
/// after a word on standard error, where this machine doesn't let this user.
pub(crate) fn hold(what: &str, kinds: &[&str], words: &[&str]) -> Option<Child> {
    let mut why = Vec::new();
    // With a user namespace nobody needs rights; some systems only let root make any.
    for user in [&["--user", "--map-root-user"][..], &[]] {
        match hold_as(user, kinds, words) {
            Ok(holder) => return Some(holder),
            Err(cause) => why.push(cause),
        }
    }
    // Not with eprintln: a test that passes shows nothing of that.
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED: {what} namespaces can't be made here ({}); allow them, or run as root",
        why.join("; ")
    );
    None
}

fn hold_as(user: &[&str], kinds: &[&str], words: &[&str]) -> Result<Child, String> {
    let mut command = Command::new("unshare");
    command.args(user).args(kinds).args(["sh", "-c"]).args(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut holder = command.spawn().map_err(|error| format!("unshare: {error}"))?;
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line.trim() == "ready" {
        return Ok(holder);
    }
    let said = holder.wait_with_output().unwrap().stderr;
    Err(String::from_utf8_lossy(&said).trim().replace('\n', ", "))
}
