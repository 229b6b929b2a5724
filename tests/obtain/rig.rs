//! The rig: a broker as the agent composes it in front of the simulator. Secrets and service-account tokens
//! are what a test says they are.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use lanyard::agent::credentials::{Credentials, Seen};
use lanyard::agent::events::Events;
use lanyard::agent::obtain::{
    self, AccountAnswer, AccountTokens, Broker, EntraSetup, Ground, ObtainConfig, Request, Sources,
};
use lanyard::azure::https::{ProxyRules, Roots};
use lanyard::azure::imds::ImdsClient;
use lanyard::kubernetes::{SecretData, TokenError};
use lanyard::model::facts::{
    CredentialFacts, CredentialForm, IdentityFacts, PolicyScope, SourceFacts,
};
use lanyard::model::fault::Fault;
use lanyard::model::grant::{Asker, Grant};
use lanyard::model::ids::ObjectName;
use lanyard::serve::clock;
use lanyard::sim::faults::{Effect, Fault as Trouble, Target};
use lanyard::sim::{Entry, Listen, Simulator, World};
use parking_lot::Mutex;
use secrecy::SecretString;
use tokio_util::task::TaskTracker;

pub const IDENTITIES: usize = 12;
pub const VAULT: &str = "https://vault.azure.net";
pub const TENANT: &str = "72f988bf-0000-4000-8000-00000000000a";
/// The application, by number beyond the identities'.
pub const APP: usize = 99;
/// Its first secret.
pub const SECRET: &str = "s3cr3t-value-1";
static ASKS: AtomicUsize = AtomicUsize::new(0);

pub fn client_id(n: usize) -> String {
    format!("{n:08x}-1111-4111-8111-111111111111")
}

fn resource_id(n: usize) -> String {
    format!(
        "/subscriptions/s/resourceGroups/team-{n}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-{n}"
    )
}

/// A machine that carries identities 1..; identity 0 exists and is not assigned. One application.
fn world(app: &str, more: &str) -> World {
    let identities: Vec<_> = (0..IDENTITIES)
        .map(|n| {
            let (client, arm) = (client_id(n), resource_id(n));
            format!("  - {{name: id-{n}, clientID: {client}, principalID: {client}, resourceID: {arm}}}\n")
        })
        .collect();
    let names: Vec<_> = (1..IDENTITIES).map(|n| format!("id-{n}")).collect();
    let yaml = format!(
        "tenant: {{id: {TENANT}}}\nidentities:\n{}vms:\n  - {{name: node-1, identities: [{}]}}\napplications:\n  - {{name: app, clientID: {client}, principalID: {client}, {app}}}\n{more}",
        identities.concat(),
        names.join(", "),
        client = client_id(APP),
    );
    World::from_yaml(&yaml).unwrap()
}

/// What a `TokenRequest` brings.
pub type Account = Result<String, fn(String) -> TokenError>;

/// Service accounts' tokens as a test wants them.
#[derive(Debug)]
struct Accounts(Arc<Mutex<Account>>);

impl AccountTokens for Accounts {
    fn token<'a>(&'a self, _: &'a Asker, _: Duration) -> AccountAnswer<'a> {
        let said = self.0.lock().clone();
        let said = said
            .map(SecretString::from)
            .map_err(|kind| kind("test".to_owned()));
        Box::pin(ready(said))
    }
}

pub struct Rig {
    pub broker: Arc<Broker<Sources>>,
    pub azure: Simulator,
    pub credentials: Credentials,
    pub registry: prometheus::Registry,
    pub account: Arc<Mutex<Account>>,
}

/// The usual rig; `more` are further keys of the simulator's world.
pub async fn rig_with(more: &str) -> Rig {
    rig_of(&format!("secrets: [{SECRET}]"), more).await
}

pub async fn rig() -> Rig {
    rig_with("").await
}

/// A rig whose application has these credentials.
pub async fn rig_of(app: &str, more: &str) -> Rig {
    let azure = Simulator::start(world(app, more), Listen::loopback())
        .await
        .unwrap();
    let imds = format!("http://{}", azure.addresses().imds.unwrap());
    let authority_host = format!("http://{}", azure.addresses().entra.unwrap());
    let registry = prometheus::Registry::new();
    let events = Events::register(&registry).unwrap();
    let credentials = Credentials::register(&registry, events, clock::since_epoch).unwrap();
    let account: Arc<Mutex<Account>> = Arc::new(Mutex::new(Err(TokenError::Forbidden)));
    let ground = Ground {
        imds: ImdsClient::new(&imds).unwrap(),
        entra: EntraSetup {
            authority_host,
            tenant: Some(TENANT.parse().unwrap()),
            roots: Roots::Only(azure.ca_pem().to_owned()),
            proxies: ProxyRules::default(),
        },
        credentials: credentials.clone(),
        accounts: Some(Arc::new(Accounts(account.clone()))),
    };
    let tasks = TaskTracker::new();
    let config = ObtainConfig::default();
    let broker = obtain::compose(config, ground, clock::since_epoch, &registry, tasks).unwrap();
    let renewing = Arc::downgrade(&broker);
    credentials.on_new(move |identity| {
        if let Some(broker) = renewing.upgrade() {
            broker.renew(|key| key.owner() == Some(&identity.name));
        }
    });
    Rig {
        broker,
        azure,
        credentials,
        registry,
        account,
    }
}

pub fn asker(name: &str) -> Asker {
    Asker {
        uid: name.into(),
        pod: ObjectName::new(name, name),
        service_account: name.into(),
    }
}

/// A pod that nobody has seen: no share of a pod's is used up.
pub fn fresh_pod() -> Asker {
    asker(&format!("pod-{}", ASKS.fetch_add(1, Relaxed)))
}

pub fn grant(n: usize) -> Grant {
    grant_by(n, vec![SourceFacts::Imds])
}

/// A grant of identity or application `n`, by these sources.
pub fn grant_by(n: usize, sources: Vec<SourceFacts>) -> Grant {
    let client_id = client_id(n).parse().unwrap();
    Grant {
        identity: Arc::new(IdentityFacts {
            name: ObjectName::new(format!("team-{n}"), "app"),
            uid: format!("uid-{n}").into(),
            generation: 1,
            client_id,
            tenant_id: Some(TENANT.parse().unwrap()),
            object_id: None,
            resource_id: (n < IDENTITIES).then(|| resource_id(n).parse().unwrap()),
            sources,
            authority_host: None,
            allowed_resources: vec![],
        }),
        binding: ObjectName::new(format!("team-{n}"), "binding"),
        default: false,
        scopes: Arc::new([Arc::new(PolicyScope {
            resource_id_prefixes: vec![format!("/subscriptions/s/resourceGroups/team-{n}")],
            client_ids: vec![client_id],
            ..PolicyScope::default()
        })]),
        first_seen: Duration::ZERO,
    }
}

/// The source `servicePrincipal` with a client secret.
pub fn by_secret() -> SourceFacts {
    by(CredentialForm::Secret {
        key: "clientSecret".into(),
    })
}

/// The same with a certificate as cert-manager writes it.
pub fn by_certificate() -> SourceFacts {
    by(CredentialForm::Pem {
        certificate: "tls.crt".into(),
        private_key: "tls.key".into(),
        send_chain: false,
    })
}

fn by(form: CredentialForm) -> SourceFacts {
    SourceFacts::ServicePrincipal(Arc::new(CredentialFacts {
        secret: "app".into(),
        form,
    }))
}

impl Rig {
    pub async fn ask(&self, n: usize) -> Result<obtain::Obtained, Fault> {
        self.ask_for(&grant(n), VAULT).await
    }

    pub async fn ask_for(&self, grant: &Grant, resource: &str) -> Result<obtain::Obtained, Fault> {
        let pod = fresh_pod();
        let request = Request::new(grant, resource, &pod);
        match self.broker.try_cached(request) {
            Some(obtained) => Ok(obtained),
            None => self.broker.obtain(request).await,
        }
    }

    pub fn trouble(&self, n: usize, effect: Effect) {
        let trouble = Trouble::new(Target::Imds, effect);
        self.azure.add_fault(trouble.for_client(&client_id(n)));
    }

    /// This grant's Secret is needed.
    pub fn need(&self, grant: &Grant) {
        let needed = grant.identity.sources.iter();
        let needed = needed.filter_map(|source| match source {
            SourceFacts::ServicePrincipal(facts) => Some((&grant.identity, facts)),
            _ => None,
        });
        self.credentials.need(needed);
    }

    /// The Secret of a grant holds this from now on.
    pub fn secret(&self, grant: &Grant, values: &[(&str, &str)]) {
        let mut data = SecretData::default();
        for (key, value) in values {
            data.insert((*key).to_owned(), value.as_bytes().to_vec().into());
        }
        self.seen(grant, &Seen::There(&data));
    }

    /// This became of reading the Secret of a grant.
    pub fn seen(&self, grant: &Grant, seen: &Seen<'_>) {
        let namespace = grant.identity.name.namespace.clone();
        let name = ObjectName::new(namespace, "app");
        self.credentials.take(&name, seen);
    }

    /// The token requests that Entra saw.
    pub fn exchanges(&self) -> Vec<Entry> {
        let mut entries = self.azure.journal();
        entries.retain(|entry| entry.exchange.is_some());
        entries
    }

    /// A series' value.
    pub fn metric(&self, series: &str) -> String {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap_or("absent").trim().to_owned()
    }
}
