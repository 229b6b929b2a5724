//! Azure's clouds: where each has its Entra ID and its Resource Manager (ARM). Pure.
//!
//! Sources: "National clouds" of the Microsoft identity platform; the endpoints that `az cloud show`
//! lists for each cloud.

/// One of Azure's clouds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Cloud {
    /// Azure.
    #[default]
    Public,
    /// Azure Government.
    Government,
    /// Azure operated by 21Vianet in China.
    China,
}

impl Cloud {
    /// Its Entra ID, `https://HOST`.
    #[must_use]
    pub const fn authority_host(self) -> &'static str {
        match self {
            Self::Public => "https://login.microsoftonline.com",
            Self::Government => "https://login.microsoftonline.us",
            Self::China => "https://login.partner.microsoftonline.cn",
        }
    }

    /// Its Resource Manager, `https://HOST`.
    #[must_use]
    pub const fn arm_endpoint(self) -> &'static str {
        match self {
            Self::Public => "https://management.azure.com",
            Self::Government => "https://management.usgovcloudapi.net",
            Self::China => "https://management.chinacloudapi.cn",
        }
    }

    /// What a token for its Resource Manager is for (App ID URI).
    #[must_use]
    pub const fn arm_audience(self) -> &'static str {
        match self {
            Self::Public => "https://management.azure.com",
            Self::Government => "https://management.core.usgovcloudapi.net",
            Self::China => "https://management.core.chinacloudapi.cn",
        }
    }
}
