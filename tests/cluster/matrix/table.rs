//! Who is in the matrix, and what each client does by its own design. Values only: the test of the documents reads it, too.
//!
//! Out: clients, dialects, selectors, expectations. Invariant: what is not excepted here must work; an exception is the
//! client's, never Lanyard's, and holds the client's own words.

/// How a program finds its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// No variables.
    Imds,
    /// `IDENTITY_ENDPOINT`, `IDENTITY_HEADER`.
    AppService,
    /// `MSI_ENDPOINT`, `MSI_SECRET`.
    AppService2017,
    /// `MSI_ENDPOINT` alone, at the VM extension's address: inside pods only.
    VmExtension,
}

impl Dialect {
    /// Those that are tried, in the order of their columns.
    pub const ALL: [Self; 4] = [
        Self::Imds,
        Self::AppService,
        Self::AppService2017,
        Self::VmExtension,
    ];

    /// As a pod's name.
    pub fn pod(self) -> &'static str {
        match self {
            Self::Imds => "imds",
            Self::AppService => "app-service",
            Self::AppService2017 => "app-service-2017",
            Self::VmExtension => "vm-extension",
        }
    }

    /// As a column.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Imds => "IMDS",
            Self::AppService => "App Service",
            Self::AppService2017 => "App Service 2017",
            Self::VmExtension => "VM extension",
        }
    }

    /// As agents count it.
    pub fn counted(self) -> &'static str {
        match self {
            Self::Imds => "imds",
            Self::AppService => "app_service_2019",
            Self::AppService2017 => "app_service_2017",
            Self::VmExtension => "vm_extension",
        }
    }

    /// The variables that lead there, in the pod's spec.
    pub fn variables(self) -> &'static [(&'static str, &'static str)] {
        const URL: &str = "http://169.254.169.254/msi/token";
        const SECRET: &str = "3q2-7wEjRWeJq83vEjRWeJq83vEjRWeJq83vASNFZ4k";
        match self {
            Self::Imds => &[],
            Self::AppService => &[("IDENTITY_ENDPOINT", URL), ("IDENTITY_HEADER", SECRET)],
            Self::AppService2017 => &[("MSI_ENDPOINT", URL), ("MSI_SECRET", SECRET)],
            Self::VmExtension => &[("MSI_ENDPOINT", "http://localhost:50342/oauth2/token")],
        }
    }

    /// What the pod has to ask for beside its variables.
    pub fn annotations(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::VmExtension => &[
                ("lanyard.dev/mode", "in-pod"),
                ("lanyard.dev/vm-extension-endpoint", "true"),
            ],
            _ => &[],
        }
    }
}

/// How a program names its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Not at all.
    Default,
    /// By client id.
    Client,
    /// By object id.
    Object,
    /// By ARM id.
    Resource,
}

impl Selector {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Default, Self::Client, Self::Object, Self::Resource];

    /// As a word of a cell.
    pub fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Client => "client id",
            Self::Object => "object id",
            Self::Resource => "resource id",
        }
    }

    /// As a flag of every client.
    pub fn flag(self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::Client => Some("--client-id"),
            Self::Object => Some("--object-id"),
            Self::Resource => Some("--resource-id"),
        }
    }
}

impl Client {
    /// What it really speaks with a dialect's variables.
    pub fn speaks(&self, place: Dialect) -> Dialect {
        match (self.command, place) {
            // They do not know these variables.
            ("adal", Dialect::AppService) | ("msal", Dialect::VmExtension) => Dialect::Imds,
            _ => place,
        }
    }

    /// Words of what it says where it cannot name an identity so.
    pub fn refusal(&self, dialect: Dialect, selector: Selector) -> Option<&'static str> {
        let here =
            |(place, selectors, _): &&Refusal| *place == dialect && selectors.contains(&selector);
        self.refuses.iter().find(here).map(|(_, _, words)| *words)
    }

    /// Whether its default chain goes on after a refusal, if it has one.
    pub fn goes_on(&self, dialect: Dialect, with_id: bool) -> Option<bool> {
        match self.chain {
            Chain::None => None,
            Chain::On { without, with } => {
                Some(if with_id { with } else { without }.contains(&dialect))
            }
        }
    }
}

/// What a default chain does after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// The library has none.
    None,
    /// It goes on where these dialects refuse: without a client id, with one.
    On {
        /// `AZURE_CLIENT_ID` is not set.
        without: &'static [Dialect],
        /// It is.
        with: &'static [Dialect],
    },
}

/// What a client does while nobody answers, or answers "try again"; one of these words is in what it says when it gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It asks once.
    None(&'static [&'static str]),
    /// It asks again, for two seconds.
    Short(&'static [&'static str]),
    /// It asks again for long enough.
    Long,
}

/// A client of the image.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// `client COMMAND …`.
    pub command: &'static str,
    /// Its row in the documents.
    pub name: &'static str,
    /// What it cannot do by its own design, and words of what it says then.
    pub refuses: &'static [Refusal],
    /// Its default chain.
    pub chain: Chain,
    /// When connections break or are refused.
    pub broken: Patience,
    /// When it is told to try again.
    pub told: Patience,
}

/// A dialect, selectors of it, words of what the client says then.
pub type Refusal = (Dialect, &'static [Selector], &'static str);

const ML: &str = "Only client id is supported";
const GO_ML: &str = "by client ID only";
const CLOUD_SHELL: &str = "not supported";
const NO_OBJECT_ID: &str = "cannot name an identity by its object id";

/// Both SDKs for JavaScript take the old pair for Azure Machine Learning, which knows client ids only.
const NODE_REFUSES: &[Refusal] = &[
    (
        Dialect::AppService2017,
        &[Selector::Object, Selector::Resource],
        ML,
    ),
    (Dialect::VmExtension, NAMED, CLOUD_SHELL),
];
const MSAL_NODE_REFUSES: &[Refusal] = &[
    NODE_REFUSES[0],
    (Dialect::VmExtension, NAMED, "can only be system assigned"),
];
/// `MSI_ENDPOINT` alone is Azure Cloud Shell to all of them, where nothing can be named.
const PYTHON_REFUSES: &[Refusal] = &[
    (
        Dialect::VmExtension,
        &[Selector::Client],
        "should not be set",
    ),
    (
        Dialect::VmExtension,
        &[Selector::Object, Selector::Resource],
        "must not contain the following keys",
    ),
];
/// So do both for Go.
const GO_REFUSES: &[Refusal] = &[
    (
        Dialect::AppService2017,
        &[Selector::Object, Selector::Resource],
        GO_ML,
    ),
    (Dialect::VmExtension, NAMED, "doesn't support user-assigned"),
];
/// Its functions have no parameter for it.
const ADAL_REFUSES: &[Refusal] = &[
    (Dialect::Imds, &[Selector::Object], NO_OBJECT_ID),
    (Dialect::AppService, &[Selector::Object], NO_OBJECT_ID),
    (Dialect::AppService2017, &[Selector::Object], NO_OBJECT_ID),
    (Dialect::VmExtension, &[Selector::Object], NO_OBJECT_ID),
];
/// `MSI_ENDPOINT` is Cloud Shell to it, also beside `MSI_SECRET`: it sends no secret, and names no identity.
const JAVA_REFUSES: &[Refusal] = &[
    (
        Dialect::AppService2017,
        &[Selector::Default],
        "authentication failed",
    ),
    (Dialect::AppService2017, NAMED, CLOUD_SHELL),
    (Dialect::VmExtension, NAMED, CLOUD_SHELL),
];
const MSAL4J_REFUSES: &[Refusal] = &[
    (
        Dialect::AppService2017,
        &[Selector::Default],
        "header is missing or wrong",
    ),
    (Dialect::AppService2017, NAMED, CLOUD_SHELL),
    (Dialect::VmExtension, NAMED, CLOUD_SHELL),
];
const RUST_REFUSES: &[Refusal] = &[
    (
        Dialect::AppService,
        &[Selector::Resource],
        "resource IDs aren't supported for App Service",
    ),
    (Dialect::AppService2017, &Selector::ALL, "isn't supported"),
    (Dialect::VmExtension, &Selector::ALL, "isn't supported"),
];
const NAMED: &[Selector] = &[Selector::Client, Selector::Object, Selector::Resource];

const IMDS: &[Dialect] = &[Dialect::Imds];
const BOTH: &[Dialect] = &[Dialect::Imds, Dialect::AppService];

/// Every client, in the documents' order.
pub const CLIENTS: &[Client] = &[
    Client {
        command: "python",
        name: "Python azure-identity",
        refuses: PYTHON_REFUSES,
        chain: Chain::On {
            without: BOTH,
            with: BOTH,
        },
        broken: Patience::Long,
        told: Patience::Long,
    },
    Client {
        command: "aio",
        name: "Python azure-identity, aio",
        refuses: PYTHON_REFUSES,
        chain: Chain::On {
            without: IMDS,
            with: IMDS,
        },
        broken: Patience::Long,
        told: Patience::Long,
    },
    Client {
        command: "msal",
        name: "Python MSAL",
        refuses: &[],
        chain: Chain::None,
        broken: Patience::None(&["Connection aborted", "Connection refused"]),
        told: Patience::None(&["service_unavailable: The identity is being assigned to this node"]),
    },
    Client {
        command: "node",
        name: "JavaScript @azure/identity",
        refuses: NODE_REFUSES,
        chain: Chain::On {
            without: BOTH,
            with: BOTH,
        },
        broken: Patience::Long,
        told: Patience::Long,
    },
    Client {
        command: "msal-node",
        name: "JavaScript MSAL Node",
        refuses: MSAL_NODE_REFUSES,
        chain: Chain::None,
        broken: Patience::None(&["network_error: Network request failed"]),
        told: Patience::Long,
    },
    Client {
        command: "go",
        name: "Go azidentity",
        refuses: GO_REFUSES,
        chain: Chain::On {
            without: IMDS,
            with: &[],
        },
        broken: Patience::Long,
        told: Patience::Long,
    },
    Client {
        command: "msal-go",
        name: "Go MSAL",
        refuses: GO_REFUSES,
        chain: Chain::None,
        broken: Patience::Short(&["connection refused", "connection reset by peer", ": EOF"]),
        told: Patience::Short(&[]),
    },
    Client {
        command: "adal",
        name: "Go adal (go-autorest)",
        refuses: ADAL_REFUSES,
        chain: Chain::None,
        broken: Patience::Long,
        told: Patience::Long,
    },
    Client {
        command: "java",
        name: "Java azure-identity",
        refuses: JAVA_REFUSES,
        chain: Chain::On {
            without: IMDS,
            with: IMDS,
        },
        broken: Patience::Long,
        told: Patience::Long,
    },
    Client {
        command: "msal4j",
        name: "Java MSAL4J",
        refuses: MSAL4J_REFUSES,
        chain: Chain::None,
        broken: Patience::None(&[
            "java.net.SocketException: ",
            "java.net.ConnectException: Connection refused",
        ]),
        told: Patience::Long,
    },
    Client {
        command: "rust",
        name: "Rust azure_identity",
        refuses: RUST_REFUSES,
        chain: Chain::None,
        broken: Patience::Long,
        told: Patience::Long,
    },
    Client {
        command: "curl",
        name: "curl",
        refuses: &[],
        chain: Chain::None,
        broken: Patience::None(&["curl: (7)", "curl: (52)", "curl: (56)"]),
        told: Patience::None(&[
            "\"error_description\":\"The identity is being assigned to this node\"",
        ]),
    },
];
