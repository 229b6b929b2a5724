//! The program in the demo's pods: plain `curl`, and the requests as they can be typed again.
//!
//! In: a pod and curl's arguments. Out: status, body, time, and the command line. Blocks up to
//! curl's own limit of 20 s. Invariant: a token is shown shortened, never whole.

use std::process::Stdio;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::lab::{IMDS, Pod, VAULT_HOST};

/// What a request came to.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The command line, copyable; a token stands in it as `$TOKEN`.
    pub command: String,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The answer's body.
    pub body: String,
    /// curl's own measure, milliseconds.
    pub milliseconds: f64,
    /// curl's words, if there was no answer.
    pub failure: Option<String>,
}

/// What a token says about itself; not verified here (the vault does).
#[derive(Clone, Debug, Deserialize)]
pub struct Claims {
    /// Whom it is for.
    pub aud: String,
    /// Principal id.
    pub oid: String,
    /// Client id.
    pub appid: String,
}

/// Asks IMDS for a token for `resource`, as every SDK does; `more` is added to the query.
pub async fn token(pod: &Pod, resource: &str, more: &str) -> Result<Asked> {
    let imds = IMDS.ip();
    let path = "metadata/identity/oauth2/token?api-version=2018-02-01";
    let url = format!("http://{imds}/{path}&resource={resource}{more}");
    curl(pod, &["-H", "Metadata: true", &url], None).await
}

/// Asks the vault for a secret with a token.
pub async fn secret(pod: &Pod, ca: &str, name: &str, token: &str) -> Result<Asked> {
    let url = format!("https://{VAULT_HOST}/secrets/{name}?api-version=7.4");
    let authorization = format!("Authorization: Bearer {token}");
    curl(
        pod,
        &["--cacert", ca, "-H", &authorization, &url],
        Some(token),
    )
    .await
}

/// Runs curl in a pod; `token` is what must not be shown.
pub async fn curl(pod: &Pod, args: &[&str], token: Option<&str>) -> Result<Asked> {
    let mut command = pod.namespace().command("curl");
    // -q: a person's own .curlrc is not part of the story.
    command.args([
        "-q",
        "-sS",
        "--max-time",
        "20",
        "--write-out",
        "\n%{http_code} %{time_total}",
    ]);
    let output = command.args(args).stdin(Stdio::null()).output().await;
    let output = output.context("curl did not start")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let (body, figures) = printed.rsplit_once('\n').unwrap_or_default();
    let (status, seconds) = figures.split_once(' ').unwrap_or_default();
    let answered = output.status.success();
    Ok(Asked {
        command: format!("curl -sS {}", shown(args, token)),
        status: status.parse().ok().filter(|_| answered),
        body: body.to_owned(),
        milliseconds: seconds.parse::<f64>().unwrap_or_default() * 1000.0,
        failure: (!answered).then(|| String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    })
}

fn shown(args: &[&str], token: Option<&str>) -> String {
    let quote = |arg: &&str| match token {
        Some(token) if arg.contains(token) => format!("\"{}\"", arg.replace(token, "$TOKEN")),
        _ if arg
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./:".contains(&b)) =>
        {
            (*arg).to_owned()
        }
        _ => format!("'{arg}'"),
    };
    args.iter().map(quote).collect::<Vec<_>>().join(" ")
}

impl Asked {
    /// A field of a JSON body.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        let json: serde_json::Value = serde_json::from_str(&self.body).ok()?;
        json.get(name)?.as_str().map(str::to_owned)
    }

    /// The access token, if the answer has one.
    #[must_use]
    pub fn token(&self) -> Option<String> {
        self.field("access_token")
    }

    /// What the access token says about itself.
    #[must_use]
    pub fn claims(&self) -> Option<Claims> {
        let token = self.token()?;
        let payload = token.split('.').nth(1)?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }

    /// The body with the token shortened.
    #[must_use]
    pub fn shown_body(&self) -> String {
        match self.token() {
            Some(token) => {
                let start: String = token.chars().take(10).collect();
                self.body.replace(&token, &format!("{start}…"))
            }
            None => self.body.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &str) -> Asked {
        Asked {
            command: String::new(),
            status: Some(200),
            body: body.to_owned(),
            milliseconds: 1.0,
            failure: None,
        }
    }

    #[test]
    fn a_command_can_be_typed_again_and_hides_the_token() {
        let args = ["-H", "Authorization: Bearer abc.def", "http://x/y?a=b&c=d"];
        let line = shown(&args, Some("abc.def"));
        assert_eq!(
            line,
            r#"-H "Authorization: Bearer $TOKEN" 'http://x/y?a=b&c=d'"#
        );
    }

    #[test]
    fn a_tokens_claims_are_read_and_the_token_is_shortened() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"aud":"a","oid":"o","appid":"p","exp":1}"#);
        let answer = asked(&format!(
            r#"{{"access_token":"eyJhbGciOiJ.{payload}.c2ln"}}"#
        ));
        assert_eq!(answer.claims().unwrap().oid, "o");
        assert!(
            !answer.shown_body().contains(&payload),
            "{}",
            answer.shown_body()
        );
        assert!(asked("{}").claims().is_none());
    }
}
