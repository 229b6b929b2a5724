//! The Azure SDK for Rust, as a program in a pod uses it.
//!
//! In: `token [--client-id ID | --object-id ID | --resource-id ID] [--resource R] [--after FILE]`. Out: one JSON object;
//! never a token. A failure is the SDK's own message, how long it took, and exit code 1. Blocks on the SDK's requests,
//! and on FILE until it is there; FILE.PID says that it waits.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use azure_core::credentials::TokenCredential;
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// As Cargo.toml pins it.
const CLIENT: &str = "rust azure_identity 1.0.0";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut began = Instant::now();
    match run(&mut began).await {
        Ok(mut said) => {
            said["milliseconds"] = json!(began.elapsed().as_millis());
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}\nafter {} ms", began.elapsed().as_millis());
            ExitCode::FAILURE
        }
    }
}

/// Sets `began` anew when it starts to ask.
async fn run(began: &mut Instant) -> Result<Value, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [command, flags @ ..] = args.as_slice() else {
        return Err("usage: client rust token [flags]".into());
    };
    if command != "token" || flags.len() % 2 != 0 {
        return Err("usage: client rust token [--flag value]…".into());
    }
    let pairs = flags
        .chunks(2)
        .map(|pair| (pair[0].as_str(), pair[1].clone()));
    let mut flags: HashMap<&str, String> = pairs.collect();
    if let Some(file) = flags.remove("--after") {
        std::fs::write(format!("{file}.{}", std::process::id()), "")?;
        while !Path::new(&file).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    *began = Instant::now();
    let resource = flags.remove("--resource");
    let resource = resource.unwrap_or_else(|| "https://vault.azure.net".to_owned());
    let id = (flags.remove("--client-id").map(UserAssignedId::ClientId))
        .or_else(|| flags.remove("--object-id").map(UserAssignedId::ObjectId))
        .or_else(|| {
            flags
                .remove("--resource-id")
                .map(UserAssignedId::ResourceId)
        });
    let options = ManagedIdentityCredentialOptions {
        user_assigned_id: id,
        ..Default::default()
    };
    let credential = ManagedIdentityCredential::new(Some(options))?;
    let got = credential
        .get_token(&[&format!("{resource}/.default")], None)
        .await?;
    let payload = got
        .token
        .secret()
        .split('.')
        .nth(1)
        .ok_or("the token is no JWT")?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?;
    Ok(json!({
        "client": CLIENT,
        "client_id": claims.get("appid").or(claims.get("azp")),
        "object_id": claims.get("oid"),
        "mi": claims.get("xms_mirid"),
        "expires_on": got.expires_on.unix_timestamp(),
    }))
}
