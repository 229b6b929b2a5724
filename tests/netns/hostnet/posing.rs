//! Who poses as another, as the agent, or as many.
//!
//! In: a play, and Python in a pod's cgroup. Out: refusals.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use lanyard::agent::intercept::AGENT_MARK;
use lanyard::lab::{Namespace, Style};

use super::{Play, TOKEN, is_token_of};
use crate::cgroups::command;
use crate::harness::Stage;

/// The port of the listener for host-network pods, as the rules have it.
async fn port(play: &Play, backend: &str) -> Result<String> {
    let program = format!("iptables-{backend}-save");
    let saved = play.node().output(&program, &["-t", "nat"]).await?;
    let rule = saved
        .lines()
        .find(|line| line.starts_with("-A LANYARD-OUTPUT") && line.contains("--to-destination"))
        .context("a way in")?;
    Ok(rule.rsplit(':').next().unwrap_or_default().to_owned())
}

/// Asks for the instance's metadata with a mark on its socket, made as a group, and prints the answer's status.
const MARKED: &str = "
import os, socket, sys
mark, group = int(sys.argv[1]), int(sys.argv[2])
if group: os.setegid(group)
s = socket.socket()
s.settimeout(10)
if mark: s.setsockopt(socket.SOL_SOCKET, 36, mark)
s.connect(('169.254.169.254', 80))
s.sendall(b'GET /metadata/instance?api-version=2021-02-01 HTTP/1.1\\r\\nHost: x\\r\\nMetadata: true\\r\\nConnection: close\\r\\n\\r\\n')
print(s.recv(65536).split()[1].decode())
";

/// The agent's mark can be had by any pod with `NET_RAW`; with it alone nobody comes to the node's IMDS.
pub async fn who_marks_his_sockets_as_the_agents_are_does_not_pass(stage: Stage) -> Result<()> {
    let play = Play::raise(stage).await?;
    let pod = play.pod("one", "payments")?;
    play.until_status(&pod, 200).await?;
    let group = std::fs::read_to_string(play.cast.lab.node().state_dir().join("group"))?;
    let (mark, group) = (AGENT_MARK.to_string(), group.trim());
    // Neither the agent's own status nor its files show the group.
    let pid = play.agent.process.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    ensure!(!status.contains(group), "{status}");
    for file in std::fs::read_dir(play.cast.lab.node().state_dir())? {
        let file = file?;
        let owner = file.metadata()?.gid().to_string();
        ensure!(owner != group, "{}", file.path().display());
    }
    // The last one is what the agent itself is let pass by: the way is open, and only to who knows both.
    for (mark, group, status) in [
        ("0", "0", "403"),
        (&*mark, "0", "403"),
        (&*mark, "3000000000", "403"),
        ("0", group, "403"),
        (&*mark, group, "200"),
    ] {
        let seen = play.seen_by_the_cloud().await?;
        let mut python = command(play.node(), &pod, "python3");
        let output = python.args(["-c", MARKED, mark, group]).output().await?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            said.trim() == status,
            "mark {mark}, group {group}: {output:?}"
        );
        let passed = usize::from(status == "200");
        ensure!(
            play.seen_by_the_cloud().await? == seen + passed,
            "{mark}, {group}"
        );
    }
    Ok(())
}

/// Opens connections, waits for the end of as many as are more than it may have, says how many that are, and keeps the others.
const CROWD: &str = "
import select, socket, sys
address, port, many, own = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split(',')
waiting, closed = {}, 0
poll = select.poll()
for n in range(many):
    s = socket.create_connection((address, port), 10, (own[n % len(own)], 0))
    waiting[s.fileno()] = s
    poll.register(s, select.POLLIN)
due = many - int(sys.argv[5])
while True:
    # Beyond those that are due there should be none: the others have 5 s to ask.
    ready = poll.poll(20000 if closed < due else 100)
    if not ready: break
    for number, _ in ready:
        poll.unregister(number)
        waiting.pop(number).close()
        closed += 1
print(closed, flush=True)
sys.stdin.readline()
";

/// A pod that takes all the connections it can get leaves others theirs, and who is not of the node's network is not heard.
pub async fn one_pods_connections_leave_room_for_anothers(stage: Stage) -> Result<()> {
    let backend = stage.backend.clone();
    let play = Play::raise(stage).await?;
    let (greedy, modest) = (play.pod("one", "payments")?, play.pod("two", "reports")?);
    play.until_status(&greedy, 200).await?;
    play.until_status(&modest, 200).await?;
    let limit = lanyard::serve::Limits::default().connections_per_peer;
    let crowd = async |cgroup: &Path, address: &str, port: &str, many: usize, own: &str| {
        use tokio::io::AsyncBufReadExt as _;
        let limit = limit.to_string();
        let mut python = command(play.node(), cgroup, "python3");
        python.args(["-c", CROWD, address, port, &many.to_string(), own, &limit]);
        python.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.kill_on_drop(true).spawn()?;
        let stdout = child.stdout.take().context("its output")?;
        let said = tokio::io::BufReader::new(stdout)
            .lines()
            .next_line()
            .await?;
        let closed: usize = said.context("a count")?.parse()?;
        anyhow::Ok((child, closed))
    };
    let (crowded, closed) = crowd(&greedy, "169.254.169.254", "80", 3 * limit, "0.0.0.0").await?;
    ensure!(closed == 2 * limit, "{closed} closed of {}", 3 * limit);
    ensure!(play.token(&greedy).await?.status == 0, "one more");
    is_token_of(&play.cast, &play.token(&modest).await?, "reports")?;
    drop(crowded);
    play.until_status(&greedy, 200).await?;
    // Straight to the listener the node's network has many addresses, and they count as one.
    let direct = port(&play, &backend).await?;
    let agents = lanyard::agent::intercept::DEFAULT_AGENT_ADDRESS;
    let many: Vec<_> = (1..=12).map(|n| format!("127.0.0.{n}")).collect();
    let (at, own) = (agents.to_string(), many.join(","));
    let (crowded, closed) = crowd(&greedy, &at, &direct, 4 * limit, &own).await?;
    ensure!(closed == 3 * limit, "{closed} closed of {}", 4 * limit);
    is_token_of(&play.cast, &play.token(&modest).await?, "reports")?;
    drop(crowded);
    // From a pod with a network of its own.
    let url = TOKEN.replace("169.254.169.254", &format!("{agents}:{direct}"));
    let args = ["-s", "-m", "10", "-w", "%{http_code}", &*url];
    let said = play
        .cast
        .payments
        .namespace()
        .command("curl")
        .args(args)
        .output()
        .await?;
    ensure!(said.stdout == b"000", "{said:?}");
    let series = "lanyard_connections_limited_total{limit=\"foreign\",listener=\"hosts\"} 1\n";
    ensure!(play.agent.metrics().await?.contains(series));
    Ok(())
}

/// Connects to an address from a given one, says so, waits for a line, asks, and prints what is answered.
const BY_HAND: &str = "
import socket, sys
address, port, own = sys.argv[1], int(sys.argv[2]), sys.argv[3]
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.settimeout(10)
s.bind((own, 33333))
s.connect((address, port))
print('connected', flush=True)
sys.stdin.readline()
s.sendall(b'GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net HTTP/1.1\\r\\nHost: x\\r\\nMetadata: true\\r\\nConnection: close\\r\\n\\r\\n')
text = b''
while True:
    more = s.recv(65536)
    if not more: break
    text += more
print(text.decode(), flush=True)
";

struct Hand {
    child: tokio::process::Child,
    lines: tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStdout>>,
}

impl Hand {
    async fn connect(node: &Namespace, cgroup: &Path, to: (&str, &str), own: &str) -> Result<Self> {
        use tokio::io::AsyncBufReadExt as _;
        let mut python = command(node, cgroup, "python3");
        python.args(["-c", BY_HAND, to.0, to.1, own]);
        python.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn()?;
        let stdout = child.stdout.take().context("its output")?;
        let mut lines = tokio::io::BufReader::new(stdout).lines();
        ensure!(lines.next_line().await?.as_deref() == Some("connected"));
        Ok(Self { child, lines })
    }

    async fn ask(mut self) -> Result<String> {
        use tokio::io::AsyncWriteExt as _;
        let mut stdin = self.child.stdin.take().context("its input")?;
        stdin.write_all(b"go\n").await?;
        let mut text = String::new();
        while let Some(line) = self.lines.next_line().await? {
            text.push_str(&line);
            text.push('\n');
        }
        Ok(text)
    }
}

/// Ways to be taken for somebody else: the port of a connection, the node's address, a socket that goes.
pub async fn nobody_is_taken_for_another(stage: Stage) -> Result<()> {
    let backend = stage.backend.clone();
    let play = Play::raise(stage).await?;
    let pod = play.pod("one", "payments")?;
    let thief = play.pod("two", "stranger")?;
    play.until_status(&pod, 200).await?;
    // Whoever connects to the listener itself may have the port that another one then asks from.
    let direct = port(&play, &backend).await?;
    let agents = lanyard::agent::intercept::DEFAULT_AGENT_ADDRESS.to_string();
    let nodes = play.cast.lab.node().address().to_string();
    let connect = async |cgroup: &Path, address: &str, port: &str| {
        Hand::connect(play.node(), cgroup, (address, port), &nodes).await
    };
    let first = connect(&thief, &agents, &direct).await?;
    let own = connect(&pod, "169.254.169.254", "80").await?;
    let got = first.ask().await?;
    ensure!(got.starts_with("HTTP/1.1 503"), "the thief: {got}");
    let got = own.ask().await?;
    ensure!(got.starts_with("HTTP/1.1 200"), "the owner: {got}");
    // A pod on the bridge claims the node's address, and the node believes what it can.
    let node = play.cast.lab.node();
    for key in ["all/accept_local", "pods0/accept_local"] {
        let _ = node
            .namespace()
            .sysctl(&format!("net/ipv4/conf/{key}"), "1")
            .await;
    }
    for key in ["all/rp_filter", "pods0/rp_filter"] {
        let _ = node
            .namespace()
            .sysctl(&format!("net/ipv4/conf/{key}"), "0")
            .await;
    }
    let attacker = node.add_pod("attacker", Style::Bridge).await?;
    let claimed = node.address();
    attacker
        .namespace()
        .ip(&format!("addr add {claimed}/32 dev eth0\n"))
        .await?;
    for url in [
        TOKEN.to_owned(),
        TOKEN.replace("169.254.169.254", &format!("{agents}:{direct}")),
    ] {
        for interface in [claimed.to_string(), attacker.address().to_string()] {
            let args = [
                "-s",
                "-m",
                "3",
                "--interface",
                &interface,
                "-H",
                "Metadata: true",
                &url,
            ];
            let said = attacker.namespace().output("curl", &args).await;
            let said = said.unwrap_or_default();
            ensure!(!said.contains("access_token"), "{interface} {url}: {said}");
            // By redirection with its own address it is heard, and refused: curl works, and so does the way.
            let heard = interface == attacker.address().to_string() && url == TOKEN;
            ensure!(!heard || said.contains("error_description"), "{said}");
        }
    }
    Ok(())
}
