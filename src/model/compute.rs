//! The compute resource behind a node: the virtual machine or scale set that Azure assigns
//! identities to, read from the node's `spec.providerID`. Pure; gives the one name by which agent
//! and controller know that resource's `AzureAssignment`.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};

use super::ids::ArmId;

/// What kind of compute resource it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ComputeKind {
    /// A virtual machine of its own (or of a scale set with flexible orchestration).
    VirtualMachine,
    /// A scale set: all its instances have the same identities.
    ScaleSet,
}

/// A virtual machine or scale set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compute {
    /// Which of the two.
    pub kind: ComputeKind,
    /// Its ARM id; of a scale set's instance, the scale set's.
    pub id: ArmId,
    name: String,
}

/// A text that names no virtual machine or scale set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no virtual machine or scale set of Azure (expected azure:///subscriptions/…/providers/Microsoft.Compute/virtualMachines/…, or …/virtualMachineScaleSets/…)"
)]
pub struct NoCompute(pub String);

impl Compute {
    /// The name of the resource's `AzureAssignment`: `<vm or vmss>-<name>-<8 hex>`, the hex being
    /// the start of the SHA-256 of the ARM id in lower case. At most 97 characters: Azure's names
    /// have at most 80 and longer ones are cut.
    #[must_use]
    pub fn assignment_name(&self) -> String {
        let kind = match self.kind {
            ComputeKind::VirtualMachine => "vm",
            ComputeKind::ScaleSet => "vmss",
        };
        // Azure takes `_`, `.` and capitals, an object's name does not (or not everywhere).
        let plain = |c: char| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => c,
            _ => '-',
        };
        let name: String = self.name.chars().take(80).map(plain).collect();
        let folded = self
            .id
            .as_written()
            .trim_end_matches('/')
            .to_ascii_lowercase();
        let hash = digest(&SHA256, folded.as_bytes());
        let mut name = format!("{kind}-{}-", name.trim_matches('-'));
        for byte in &hash.as_ref()[..4] {
            // Writing to a String does not fail.
            let _ = write!(name, "{byte:02x}");
        }
        name
    }
}

impl FromStr for Compute {
    type Err = NoCompute;

    /// Takes a node's `spec.providerID`, or the ARM id itself, in any case.
    fn from_str(text: &str) -> Result<Self, NoCompute> {
        let bad = || NoCompute(text.chars().take(256).collect());
        let scheme = "azure://";
        let path = match text.get(..scheme.len()) {
            Some(start) if start.eq_ignore_ascii_case(scheme) => &text[scheme.len()..],
            _ => text,
        };
        let segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        let is = |at: usize, word: &str| {
            let segment = segments.get(at);
            segment.is_some_and(|segment| segment.eq_ignore_ascii_case(word))
        };
        let of_compute = is(0, "")
            && is(1, "subscriptions")
            && is(3, "resourceGroups")
            && is(5, "providers")
            && is(6, "Microsoft.Compute");
        let instance = is(9, "virtualMachines") && segments.len() == 11;
        let kind = match segments.len() {
            9 if is(7, "virtualMachines") => ComputeKind::VirtualMachine,
            9 | 11 if is(7, "virtualMachineScaleSets") && (segments.len() == 9 || instance) => {
                ComputeKind::ScaleSet
            }
            _ => return Err(bad()),
        };
        if !of_compute {
            return Err(bad());
        }
        let id = segments[..9].join("/");
        Ok(Self {
            kind,
            id: id.parse().map_err(|_| bad())?,
            name: segments[8].to_owned(),
        })
    }
}

impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.id, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = "/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/MC_Shop/providers/Microsoft.Compute/virtualMachineScaleSets/aks-Pool1-vmss";

    fn name(text: &str) -> String {
        text.parse::<Compute>().unwrap().assignment_name()
    }

    #[test]
    fn all_instances_of_a_scale_set_have_the_scale_sets_assignment() {
        let first = name(&format!("azure://{SET}/virtualMachines/0"));
        // sha256sum of the lower-case id, worked out with coreutils.
        assert_eq!(first, "vmss-aks-pool1-vmss-a3e85007");
        assert_eq!(first, name(&format!("azure://{SET}/virtualMachines/17")));
        assert_eq!(first, name(SET));
        assert_eq!(
            first,
            name(&SET.to_ascii_uppercase()),
            "case does not matter"
        );
        let compute: Compute = format!("azure://{SET}/virtualMachines/0").parse().unwrap();
        assert_eq!(compute.id, SET.parse().unwrap());
        assert_eq!(compute.kind, ComputeKind::ScaleSet);
    }

    #[test]
    fn a_virtual_machine_has_its_own_and_odd_names_become_object_names() {
        let vm = |name: &str| {
            format!(
                "azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/{name}"
            )
        };
        assert_eq!(name(&vm("db_1")), "vm-db-1-80871355");
        assert_ne!(
            name(&vm("db_1")),
            name(&vm("db-1")),
            "the hash tells them apart"
        );
        assert_eq!(name(&vm(&"x".repeat(300))).len(), 3 + 80 + 9);
    }

    #[test]
    fn what_is_no_compute_resource_is_refused() {
        for text in [
            "",
            "azure://",
            "kind://docker/kind/node",
            "aws:///eu-west-1a/i-0abc",
            "azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/d",
            "azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualMachines/v",
            "azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/",
            "azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/v/virtualMachines",
            "azure:///subscriptions/s/resourceGroups/../providers/Microsoft.Compute/virtualMachines/v",
        ] {
            assert!(text.parse::<Compute>().is_err(), "{text}");
        }
    }
}
