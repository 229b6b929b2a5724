//! The query string: parameters that decide are read strictly (once each, known forms), all
//! others are ignored as IMDS does.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::model::fault::{Fault, FaultKind};
use crate::model::query::{Dialect, Selector, TokenQuery};

/// Longest query that is looked at; SDKs send less than 1 KiB.
const MAX_QUERY: usize = 8 * 1024;
/// Longest `resource`: audiences are short URLs or GUIDs.
const MAX_RESOURCE: usize = 1024;
/// Longest `claims`: a challenge names one or two claims.
const MAX_CLAIMS: usize = 4 * 1024;
/// Oldest accepted version: scripts of 2017 still ask with it.
const OLDEST_VERSION: &str = "2017-12-01";

/// The parameters that matter, decoded; each at most once.
#[derive(Debug, Default)]
pub(super) struct Query<'a> {
    api_version: Option<Cow<'a, str>>,
    resource: Option<Cow<'a, str>>,
    format: Option<Cow<'a, str>>,
    claims: Option<Cow<'a, str>>,
    bypass_cache: Option<Cow<'a, str>>,
    selector: Option<(Name, Cow<'a, str>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Client,
    Object,
    Arm,
}

fn bad(public: impl Into<Cow<'static, str>>) -> Fault {
    Fault::new(FaultKind::BadRequest, public)
}

impl<'a> Query<'a> {
    pub(super) fn parse(raw: &'a str) -> Result<Self, Fault> {
        Self::parse_with(raw, false)
    }

    /// The same in App Service's dialects: their older one calls a client id `clientid`, and a client of
    /// it sends that also where it has none.
    pub(super) fn parse_app_service(raw: &'a str) -> Result<Self, Fault> {
        Self::parse_with(raw, true)
    }

    fn parse_with(raw: &'a str, app_service: bool) -> Result<Self, Fault> {
        if raw.len() > MAX_QUERY {
            return Err(bad("The query is too long"));
        }
        let mut query = Self::default();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            match &*name {
                "api-version" => once("api-version", &mut query.api_version, value)?,
                "resource" => once("resource", &mut query.resource, value)?,
                "format" => once("format", &mut query.format, value)?,
                "claims" => once("claims", &mut query.claims, value)?,
                "bypass_cache" => once("bypass_cache", &mut query.bypass_cache, value)?,
                "client_id" => query.select(Name::Client, value)?,
                "clientid" if app_service && value.is_empty() => {}
                "clientid" if app_service => query.select(Name::Client, value)?,
                "object_id" | "principal_id" => query.select(Name::Object, value)?,
                "msi_res_id" | "mi_res_id" | "resource_id" => query.select(Name::Arm, value)?,
                _ => {} // unknown to IMDS, too
            }
        }
        Ok(query)
    }

    fn select(&mut self, name: Name, value: &'a str) -> Result<(), Fault> {
        let value = decode(value)?;
        if value.is_empty() {
            return Err(bad(
                "A client_id, object_id or msi_res_id is empty: leave it out or give a value",
            ));
        }
        if self.selector.is_some() {
            return Err(bad(
                "Only one of client_id, object_id and msi_res_id may be given, once",
            ));
        }
        self.selector = Some((name, value));
        Ok(())
    }

    /// The version, checked: a date that is not older than the protocol.
    pub(super) fn api_version(&self) -> Result<Cow<'a, str>, Fault> {
        let version = self
            .api_version
            .clone()
            .filter(|version| !version.is_empty());
        let version =
            version.ok_or_else(|| bad("Required query variable 'api-version' is missing"))?;
        let is_date = version.len() == 10
            && version.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            });
        if !is_date || *version < *OLDEST_VERSION {
            return Err(bad("Invalid api-version: use 2018-02-01 or later"));
        }
        Ok(version)
    }

    /// The dialect of App Service that the version names.
    pub(super) fn app_service(&self) -> Option<Dialect> {
        match self.api_version.as_deref()? {
            "2019-08-01" => Some(Dialect::AppService2019),
            "2017-09-01" => Some(Dialect::AppService2017),
            _ => None,
        }
    }

    pub(super) fn format(&self) -> Result<Option<Cow<'a, str>>, Fault> {
        match self.format.as_deref() {
            None => Ok(None),
            Some(format)
                if format.eq_ignore_ascii_case("json") || format.eq_ignore_ascii_case("text") =>
            {
                Ok(self.format.clone())
            }
            Some(_) => Err(bad("Invalid format: use json or text")),
        }
    }

    pub(super) fn token(self) -> Result<TokenQuery, Fault> {
        self.api_version()?;
        self.token_in(Dialect::Imds)
    }

    pub(super) fn vm_extension_token(self) -> Result<TokenQuery, Fault> {
        self.token_in(Dialect::VmExtension)
    }

    pub(super) fn host_token(self) -> Result<TokenQuery, Fault> {
        self.token_in(Dialect::HostToken)
    }

    pub(super) fn app_service_token(self) -> Result<TokenQuery, Fault> {
        let dialect = self.app_service().ok_or_else(|| {
            bad("Invalid api-version: use 2019-08-01, or 2017-09-01 with MSI_ENDPOINT and MSI_SECRET")
        })?;
        self.token_in(dialect)
    }

    fn token_in(self, dialect: Dialect) -> Result<TokenQuery, Fault> {
        let resource = self.resource.filter(|resource| !resource.is_empty());
        let resource =
            resource.ok_or_else(|| bad("Required query variable 'resource' is missing"))?;
        if resource.len() > MAX_RESOURCE || resource.chars().any(char::is_control) {
            return Err(bad("Invalid resource"));
        }
        let selector = match self.selector {
            None => Selector::Default,
            Some((Name::Client, id)) => {
                id.parse().map_or(Selector::Unmatchable, Selector::ClientId)
            }
            Some((Name::Object, id)) => {
                id.parse().map_or(Selector::Unmatchable, Selector::ObjectId)
            }
            Some((Name::Arm, id)) => id
                .parse()
                .map_or(Selector::Unmatchable, Selector::ResourceId),
        };
        Ok(TokenQuery {
            dialect,
            resource: resource.into_owned(),
            selector,
            claims: claims(self.claims)?,
            bypass_cache: flag("bypass_cache", self.bypass_cache.as_deref())?,
        })
    }
}

/// A challenge as Entra writes it ("Claims challenges" of the Microsoft identity platform).
fn claims(text: Option<Cow<'_, str>>) -> Result<Option<String>, Fault> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let is_object = serde_json::from_str::<Map<String, Value>>(&text).is_ok();
    if text.len() > MAX_CLAIMS || !is_object {
        return Err(bad("Invalid claims: they must be a JSON object"));
    }
    Ok(Some(text.into_owned()))
}

fn flag(name: &'static str, text: Option<&str>) -> Result<bool, Fault> {
    match text {
        None | Some("") => Ok(false),
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(bad(format!("Invalid {name}: use true or false"))),
    }
}

fn once<'a>(
    name: &'static str,
    slot: &mut Option<Cow<'a, str>>,
    value: &'a str,
) -> Result<(), Fault> {
    if slot.is_some() {
        return Err(bad(format!(
            "Query variable '{name}' is given more than once"
        )));
    }
    *slot = Some(decode(value)?);
    Ok(())
}

fn decode(text: &str) -> Result<Cow<'_, str>, Fault> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    percent_decode(text, true)
        .map(Cow::Owned)
        .ok_or_else(|| bad("The query is not valid URL encoding of UTF-8 text"))
}

/// `%41` → `A`, and in queries `+` → space. `None` for a cut-off or non-hexadecimal escape, or
/// bytes that are not UTF-8.
pub(super) fn percent_decode(text: &str, plus_is_space: bool) -> Option<String> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    while let Some((first, rest)) = bytes.split_first() {
        bytes = rest;
        let byte = match first {
            b'%' => {
                let value = digit(rest.first())? << 4 | digit(rest.get(1))?;
                bytes = &rest[2..];
                u8::try_from(value).ok()?
            }
            b'+' if plus_is_space => b' ',
            plain => *plain,
        };
        decoded.push(byte);
    }
    String::from_utf8(decoded).ok()
}
