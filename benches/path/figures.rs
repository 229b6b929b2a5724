//! The agent against the bare server, in the order in which memory tells most: start, 250 tokens, a
//! crowd, late pods, then load.

use lanyard::lab::{Agent, AgentSetup, Lab, Node, Pod, Simulator};

use crate::report::Table;
use crate::rounds::{self, KINDS, median};
use crate::stage::{self, Side};
use crate::{Options, cast, hosts, once, proc};

/// Everything that the table of targets asks for.
pub async fn measure(lab: &mut Lab, options: &Options) -> anyhow::Result<Table> {
    let mut table = Table::default();
    let theirs = lab.add_node().await?;
    let simulator = stage::simulator(lab).await?;
    let pod = stage::pod_with_addresses(lab.node()).await?;
    let agent = timed_once(lab, options, &simulator, &pod, &mut table).await?;
    under_load(lab, options, (&agent, pod), theirs, &mut table).await?;

    let rss = proc::memory_mib(agent.process.pid(), "VmRSS")?;
    table.note(&memory(&agent, "after load")?);
    let what = "resident memory with 250 pods and 250 identities cached, after load";
    table.once(what, rss, "MiB", 16.0);
    table.conditions(options);
    Ok(table)
}

/// What it costs to tell host-network pods apart, beside the usual path.
pub async fn host_network(lab: &Lab, table: &mut Table) -> anyhow::Result<()> {
    let hosts::Lookups { known, new, first } = hosts::lookups(lab, 2000).await?;
    let what = "host-network pod of a connection: conntrack, socket, cgroup";
    table.micros(what, known, 200.0);
    let what = "the same for the first request of a new container, among those of 250 pods, 10 of them on the node's network";
    table.micros(what, new, 200.0);
    let first = median(first.into_iter());
    table.note(&format!(
        "the same where no folder was read before: {first:.0} µs"
    ));
    Ok(())
}

/// What is counted or timed a few times. The agent is left running, with all tokens cached.
async fn timed_once(
    lab: &Lab,
    options: &Options,
    simulator: &Simulator,
    pod: &Pod,
    table: &mut Table,
) -> anyhow::Result<Agent> {
    eprintln!("starting the agent {} times", options.starts);
    let manifests = stage::manifests(lab, "manifests")?;
    let setup = AgentSetup::new(lab.node(), &manifests);
    let (starts, agent) = once::starts(lab, &setup, pod, options.starts).await?;
    table.note(&memory(&agent, "after the start")?);

    eprintln!("one token for each of {} pods, then a crowd", cast::PODS);
    once::fill(pod).await?;
    table.note(&memory(&agent, "with 250 tokens")?);
    let upstream = once::cold_crowd(simulator, pod).await?;
    table.note(&memory(&agent, "after 200 requests at once")?);
    let late = once::late_pods(&manifests, pod).await?;
    let stranger = once::stranger(pod, 300).await?;

    let crowd = "200 pods asking for one identity at the same moment, cold: upstream calls";
    table.once(crowd, upstream as f64, "", 1.0);
    let start = "agent start → first token, rules included, upstream answering at once";
    table.times(start, starts, 300.0);
    table.times(
        "pod's manifest appears → its waiting request answered",
        late,
        20.0,
    );
    table.times("unbound pod's request, new connection", stranger, 5.0);
    Ok(agent)
}

/// Interleaved rounds against the bare server behind the same rules.
async fn under_load(
    lab: &Lab,
    options: &Options,
    (agent, pod): (&Agent, Pod),
    theirs: Node,
    table: &mut Table,
) -> anyhow::Result<()> {
    let from = cast::address(1);
    let target = cast::target("vault.azure.net", None);
    let answer = once::ask_from(&pod, from, &target).await?;
    let their_pod = stage::pod_with_addresses(&theirs).await?;
    let bare = stage::serve_fixed(lab, &theirs, &answer.wire, false).await?;
    stage::same_rules(lab.node(), &theirs).await?;
    let sides = [
        Side {
            name: "bare hyper",
            pod: their_pod,
            pid: bare.pid(),
            from,
        },
        Side {
            name: "lanyard agent",
            pod,
            pid: agent.process.pid(),
            from,
        },
    ];
    let sides: Vec<&Side> = sides.iter().collect();
    for kind in KINDS {
        let rounds = rounds::run(kind, &sides, options.rounds, options.seconds).await?;
        table.loads(&rounds, &sides);
    }
    Ok(())
}

fn memory(agent: &Agent, when: &str) -> anyhow::Result<String> {
    let of = |key| proc::memory_mib(agent.process.pid(), key);
    let (all, own, file) = (of("VmRSS")?, of("RssAnon")?, of("RssFile")?);
    Ok(format!(
        "memory {when}: {all:.1} MiB, of that {own:.1} its own and {file:.1} program text and libraries"
    ))
}
