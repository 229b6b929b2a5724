//! The demo's scenes, in the order they are told.
//!
//! In: the cast. Out: what each pod got, checked against what was expected. Every wait is bounded.
//! Invariant: each claim compares something observed (an answer, a token's claims, the simulator's
//! journal, the kernel's rules) with what should be so.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Play;
use super::cast::{NAMESPACE, VAULT_RESOURCE};
use super::curl::{self, Asked};
use crate::lab::{Get, IMDS, WIRE_SERVER};

/// How often each pod asks in vain while the agent is dead, before the story goes on.
const TRIES: u64 = 50;
const SECRET: &str = "db-password";

impl Play {
    pub(super) async fn without_lanyard(&mut self) -> Result<()> {
        self.story.step("The problem: a node without Lanyard");
        let client_id = self.cast.world.identity("payments")?.client_id.clone();
        self.story.say(
            "The VM has two managed identities, for two programs. Its metadata service cannot tell\n\
             pods apart: `stranger`, an unrelated pod, asks for the identity of payments.",
        );
        let more = format!("&client_id={client_id}");
        let asked = curl::token(&self.cast.stranger, VAULT_RESOURCE, &more).await?;
        self.story.asked("stranger", &asked);
        let got = asked
            .claims()
            .is_some_and(|claims| claims.appid == client_id);
        self.story.expect(
            got,
            "stranger holds a token of payments: that is the problem",
        );
        let seen = self.cast.leaks(0).await?;
        let address = self.cast.stranger.address().to_string();
        self.story.expect(
            seen.iter().any(|entry| entry.source.starts_with(&address)),
            format!("Azure's journal shows the request with the pod's own address {address}"),
        );
        Ok(())
    }

    pub(super) async fn the_agent_starts(&mut self) -> Result<()> {
        self.story.step("Lanyard's agent starts on the node");
        let start = Instant::now();
        let setup = self.cast.agent(&self.backend);
        self.agent = Some(self.cast.lab.start_agent(&setup)?);
        self.agent()?.ready(Duration::from_secs(20)).await?;
        let took = start.elapsed().as_secs_f64() * 1000.0;
        self.guarded_since = self.cast.now().await?;
        self.story.say(format!(
            "Ready after {took:.0} ms. It reads Pods, AzureIdentities, bindings and a policy (here:\n\
             from a folder; in a cluster: from the API server) and has laid these rules:"
        ));
        let rules = self.rules().await;
        self.story.quote(&rules);
        self.story.expect(
            rules.contains("169.254.169.254") && rules.contains("DNAT"),
            "the kernel sends the pods' metadata requests to the agent",
        );
        Ok(())
    }

    /// Lanyard's rules in the node, of whichever backend holds them.
    async fn rules(&self) -> String {
        let node = self.cast.lab.node().namespace();
        let mut rules = String::new();
        for (program, table) in [
            ("iptables-nft", "nat"),
            ("iptables-nft", "filter"),
            ("iptables-legacy", "nat"),
            ("iptables-legacy", "filter"),
        ] {
            let listed = node
                .output(program, &["-t", table, "-S"])
                .await
                .unwrap_or_default();
            for line in listed.lines().filter(|line| line.contains("LANYARD-")) {
                // Writing to a String does not fail.
                let _ = writeln!(rules, "{table:6} {line}");
            }
        }
        rules
    }

    pub(super) async fn payments(&mut self) -> Result<()> {
        self.story
            .step("Pod payments asks as any program does, and reads its secret");
        let pod = self.cast.payments.clone();
        let asked = curl::token(&pod, VAULT_RESOURCE, "").await?;
        self.story.asked("payments", &asked);
        let wanted = self.cast.world.identity("payments")?.clone();
        self.expect_token(&asked, &wanted.principal_id, "payments");
        let vault = self.read_secret("payments", &asked).await?;
        self.story.expect(
            vault
                .as_ref()
                .is_some_and(|v| v.status == Some(200) && v.field("value").is_some()),
            "the vault checked the token's signature, audience and owner and gave the secret",
        );
        self.seen.payments.token = Some(asked);
        self.seen.payments.vault = vault;
        Ok(())
    }

    pub(super) async fn reports(&mut self) -> Result<()> {
        self.story
            .step("Pod reports sends the same request and is somebody else");
        let pod = self.cast.reports.clone();
        let asked = curl::token(&pod, VAULT_RESOURCE, "").await?;
        self.story.asked("reports", &asked);
        let wanted = self.cast.world.identity("reports")?.clone();
        self.expect_token(&asked, &wanted.principal_id, "reports");
        let vault = self.read_secret("reports", &asked).await?;
        self.story.expect(
            vault
                .as_ref()
                .is_some_and(|vault| vault.status == Some(403)),
            "the vault knows reports and refuses it: its access list has payments only",
        );
        let other = self.cast.world.identity("payments")?.client_id.clone();
        let stolen = curl::token(&pod, VAULT_RESOURCE, &format!("&client_id={other}")).await?;
        self.story.asked("reports", &stolen);
        self.story.expect(
            stolen.status == Some(400) && stolen.token().is_none(),
            "asking for payments' identity by its client id does not help reports",
        );
        self.seen.reports.token = Some(asked);
        self.seen.reports.vault = vault;
        Ok(())
    }

    pub(super) fn expect_token(&mut self, asked: &Asked, oid: &str, name: &str) {
        let claims = asked.claims();
        if let Some(claims) = &claims {
            let (oid, appid, aud) = (&claims.oid, &claims.appid, &claims.aud);
            self.story
                .quote(format!("the token says: oid={oid} appid={appid} aud={aud}"));
        }
        self.story.expect(
            claims.is_some_and(|claims| claims.oid == oid && claims.aud == VAULT_RESOURCE),
            format!("the token is for the identity `{name}`"),
        );
    }

    async fn read_secret(&mut self, name: &str, asked: &Asked) -> Result<Option<Asked>> {
        let Some(token) = asked.token() else {
            return Ok(None);
        };
        let ca = self.cast.simulator.ca.to_string_lossy().into_owned();
        let pod = if name == "payments" {
            &self.cast.payments
        } else {
            &self.cast.reports
        };
        let vault = curl::secret(pod, &ca, SECRET, &token).await?;
        self.story.asked(name, &vault);
        Ok(Some(vault))
    }

    pub(super) async fn stranger(&mut self) -> Result<()> {
        self.story
            .step("Pod stranger, bound to nothing, is refused and cannot get around the agent");
        let pod = self.cast.stranger.clone();
        let client_id = self.cast.world.identity("payments")?.client_id.clone();
        let more = format!("&client_id={client_id}");
        let asked = curl::token(&pod, VAULT_RESOURCE, &more).await?;
        self.story.asked("stranger", &asked);
        self.story.expect(
            asked.status == Some(400) && asked.body.contains("Identity not found"),
            "the request that worked in step 1 is refused, in the words SDKs understand",
        );
        let imds = format!("http://{}", IMDS.ip());
        for url in [
            format!("{imds}/metadata/instance?api-version=2021-02-01"),
            format!(
                "{imds}/metadata\\identity\\oauth2\\token?api-version=2018-02-01&resource=x{more}"
            ),
            format!(
                "{imds}/metadata/instance/%2e%2e/identity/oauth2/token?api-version=2018-02-01&resource=x{more}"
            ),
            format!("http://{WIRE_SERVER}/machine?comp=goalstate"),
            format!("http://{WIRE_SERVER}:32526/vmSettings"),
        ] {
            let args = ["--path-as-is", "-H", "Metadata: true", "--globoff", &url];
            let tried = curl::curl(&pod, &args, None).await?;
            self.story.asked("stranger", &tried);
            let refused = tried
                .status
                .is_none_or(|status| (400..500).contains(&status));
            self.story
                .expect(refused && tried.token().is_none(), "refused");
        }
        let leaks = self.cast.leaks(self.guarded_since).await?;
        let claim = format!(
            "Azure saw {} requests with a pod's address since the agent is there",
            leaks.len()
        );
        self.story.expect(leaks.is_empty(), claim);
        self.seen.stranger.token = Some(asked);
        Ok(())
    }

    pub(super) async fn the_agent_is_killed(&mut self) -> Result<()> {
        self.story
            .step("The agent is killed (SIGKILL), and nothing leaks");
        let request = Get::token(VAULT_RESOURCE).within(Duration::from_secs(2));
        let client_id = self.cast.world.identity("payments")?.client_id.clone();
        let path = "/metadata/identity/oauth2/token?api-version=2018-02-01";
        let greedy = Get::new(format!(
            "{path}&resource={VAULT_RESOURCE}&client_id={client_id}"
        ));
        let greedy = greedy
            .header("Metadata", "true")
            .within(Duration::from_secs(2));
        let payments = self.cast.payments.namespace().knock(IMDS, request);
        let stranger = self.cast.stranger.namespace().knock(IMDS, greedy);
        Self::wait("both pods to be answered", async || {
            payments.tally().status(200) > 0 && stranger.tally().status(400) > 0
        })
        .await?;
        let (pid, before) = (self.agent()?.process.pid(), self.cast.now().await?);
        self.agent()?.process.kill9().await?;
        self.story.say(format!(
            "payments and stranger ask on and on; kill -9 {pid} …"
        ));
        Self::wait("both pods to have asked in vain", async || {
            payments.tally().failures() >= TRIES && stranger.tally().failures() >= TRIES
        })
        .await?;
        let (payments, stranger) = (payments.stop().await?, stranger.stop().await?);
        for (name, tally) in [("payments", &payments), ("stranger", &stranger)] {
            self.story.quote(format!(
                "{name}: {:?} then {:?}",
                tally.by_status, tally.failed
            ));
        }
        self.story.expect(
            stranger.status(200) == 0,
            format!("stranger got no token in {} attempts", stranger.attempts()),
        );
        let leaks = self.cast.leaks(self.guarded_since).await?;
        let news = self.cast.journal(before).await?.len();
        self.story.expect(
            leaks.is_empty(),
            format!(
                "Azure's journal: {} requests from pods ({news} in all since the kill)",
                leaks.len()
            ),
        );
        let rules = self.rules().await;
        self.story.expect(
            rules.contains("DNAT"),
            "the rules stand without the agent: closed, not open",
        );
        self.seen.payments.while_dead = payments.failed.keys().next().cloned();
        self.seen.stranger.while_dead = stranger.failed.keys().next().cloned();
        let asked = curl::token(&self.cast.reports, VAULT_RESOURCE, "").await?;
        self.story.asked("reports", &asked);
        self.story.expect(
            asked.status.is_none(),
            "an SDK sees a refused connection and tries again",
        );
        self.seen.reports.while_dead = Some("connection refused".to_owned()).filter(|_| {
            asked
                .failure
                .as_deref()
                .is_some_and(|words| words.contains("onnect"))
        });
        Ok(())
    }

    pub(super) async fn the_agent_comes_back(&mut self) -> Result<()> {
        self.story.step("The agent comes back and serves");
        let start = Instant::now();
        let setup = self.cast.agent(&self.backend);
        self.agent = Some(self.cast.lab.start_agent(&setup)?);
        self.agent()?.ready(Duration::from_secs(20)).await?;
        self.story.say(format!(
            "Ready after {:.0} ms.",
            start.elapsed().as_secs_f64() * 1000.0
        ));
        let asked = curl::token(&self.cast.payments, VAULT_RESOURCE, "").await?;
        self.story.asked("payments", &asked);
        let oid = self.cast.world.identity("payments")?.principal_id.clone();
        self.expect_token(&asked, &oid, "payments");
        let asked = curl::token(&self.cast.stranger, VAULT_RESOURCE, "").await?;
        self.story.asked("stranger", &asked);
        self.story
            .expect(asked.status == Some(400), "stranger is refused as before");
        Ok(())
    }

    pub(super) async fn who_got_what(&mut self) -> Result<()> {
        self.story.step("Who got what");
        let header = ["pod", "address", "token for", "vault says", "agent dead"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        let observed = [&self.seen.payments, &self.seen.reports, &self.seen.stranger];
        for (pod, row) in self.cast.pods().into_iter().zip(observed) {
            let claims = row.token.as_ref().and_then(Asked::claims);
            let identity = claims.and_then(|claims| {
                let all = &self.cast.world.identities;
                all.iter()
                    .find(|identity| identity.principal_id == claims.oid)
            });
            let refusal = || {
                row.token
                    .as_ref()
                    .and_then(|t| t.field("error_description"))
            };
            rows.push(vec![
                format!("{NAMESPACE}/{}", pod.name()),
                pod.address().to_string(),
                identity
                    .map(|i| i.name.clone())
                    .or_else(refusal)
                    .unwrap_or_default(),
                row.vault.as_ref().map_or_else(|| "-".to_owned(), verdict),
                row.while_dead.clone().unwrap_or_default(),
            ]);
        }
        self.story.table(&rows);
        let logs = self.cast.lab.logs().join("agent.log");
        let log = std::fs::read_to_string(logs).context("the agent's log")?;
        let audit: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("token decision"))
            .collect();
        self.story
            .say("\nThe agent's audit lines (first and changed decisions; never a token):");
        self.story.quote(audit.join("\n"));
        self.story.expect(
            audit.iter().any(|line| line.contains("stranger")) && !log.contains("eyJ"),
            "the audit names the pods, and no token is in the agent's log",
        );
        let metrics = self.agent()?.metrics().await?;
        let told = [
            "lanyard_tokens_served_total",
            "lanyard_refusals_total",
            "lanyard_pods",
            "lanyard_rules",
        ];
        let lines = metrics
            .lines()
            .filter(|line| told.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0"));
        self.story.say("Some of its metrics:");
        self.story.quote(lines.collect::<Vec<_>>().join("\n"));
        Ok(())
    }
}

fn verdict(asked: &Asked) -> String {
    match (asked.status, asked.field("value")) {
        (Some(200), Some(secret)) => format!("200, the secret ({} characters)", secret.len()),
        (Some(status), _) => status.to_string(),
        (None, _) => "no answer".to_owned(),
    }
}
