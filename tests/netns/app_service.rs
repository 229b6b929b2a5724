//! App Service's dialects, asked wherever a pod's requests come to the agent.
//!
//! In: a way to ask as a pod whose spec holds the secret. Out: tokens for it, 401 in the dialects' shape without it. What
//! each client sends is for `tests/wire/app_service.rs`.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cgroups::Said;

/// A pod's secret.
pub const SECRET: &str = "3q2-7wEjRWeJq83vEjRWeJq83vEjRWeJq83vASNFZ4k";
/// Another pod's.
pub const ANOTHER: &str = "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k";
/// A request for a token in the newer dialect.
pub const URL: &str =
    "http://169.254.169.254/msi/token?api-version=2019-08-01&resource=https://vault.azure.net";

/// A pod's manifest, with a secret as a person writes it.
pub fn with_secret(manifest: &str, secret: &str) -> String {
    let variables = format!("image: none, env: [{{name: IDENTITY_HEADER, value: {secret}}}]");
    manifest.replace("image: none", &variables)
}

/// Asks with a header and a URL: both dialects, and each with what is not the secret.
pub async fn is_spoken(
    client_id: &str,
    ask: impl AsyncFn(&str, &str) -> Result<Said>,
) -> Result<()> {
    let older = format!("{URL}&clientid=").replace("2019-08-01", "2017-09-01");
    for (name, url) in [("X-IDENTITY-HEADER", URL), ("secret", &older)] {
        let said = ask(&format!("{name}: {SECRET}"), url).await?;
        let token: Value = serde_json::from_str(&said.body).with_context(|| format!("{said:?}"))?;
        let expires = token["expires_on"].as_str().map(str::parse::<u64>);
        ensure!(
            said.status == 200 && token["client_id"] == client_id && matches!(expires, Some(Ok(_))),
            "{name}: {said:?}"
        );
        let near = &SECRET[1..];
        for wrong in [ANOTHER, near] {
            is_refusal(&ask(&format!("{name}: {wrong}"), url).await?)?;
        }
        is_refusal(&ask("Metadata: true", url).await?)?;
    }
    Ok(())
}

/// Whether it is 401 as App Service says it.
pub fn is_refusal(said: &Said) -> Result<()> {
    let body: Value = serde_json::from_str(&said.body).with_context(|| format!("{said:?}"))?;
    ensure!(
        said.status == 401
            && body["statusCode"] == 401
            && body["message"].is_string()
            && body.as_object().is_some_and(|fields| fields.len() == 2),
        "{said:?}"
    );
    Ok(())
}
