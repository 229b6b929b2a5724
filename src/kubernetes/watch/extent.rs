//! How large the objects may be that teams write. Pure.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::Malformed;
use crate::api::kind::Kind;

/// Bytes of a spec. The schema's bounds multiply to megabytes, whoever follows a kind keeps all of its
/// objects, and teams write these: without a bound a few hundred objects of one team would end every
/// agent.
const LARGEST_BINDING: usize = 64 << 10;
/// An identity may carry a few CA bundles of 64 KiB.
const LARGEST_IDENTITY: usize = 288 << 10;

/// How much an object says, whatever it says.
#[derive(Debug, Deserialize)]
struct Extent<'a> {
    #[serde(borrow, default)]
    spec: Option<&'a RawValue>,
}

/// An error for an object whose spec is too large to be kept.
pub fn check_size(kind: Kind, text: &RawValue) -> Result<(), Malformed> {
    let largest = match kind {
        Kind::Bindings => LARGEST_BINDING,
        Kind::Identities => LARGEST_IDENTITY,
        _ => return Ok(()),
    };
    let extent: Extent<'_> =
        serde_json::from_str(text.get()).map_err(|error| Malformed::at("object", error))?;
    let length = extent.spec.map_or(0, |spec| spec.get().len());
    if length > largest {
        let problem = format!("has {length} bytes, more than {largest}: split it");
        return Err(Malformed::at("spec", problem));
    }
    Ok(())
}
