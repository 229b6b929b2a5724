//! Azure's clouds: where each has its Entra ID. Pure.
//!
//! Source: "National clouds" of the Microsoft identity platform.

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
}
