//! Whether a world makes sense: names that are unique, references that lead somewhere, GUIDs.
//!
//! In: a [`World`] as it was written. Out: nothing, or the first field that is wrong. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{World, WorldError};
use crate::sim::certificate::{Certificate, CertificateError};
use crate::sim::entra::authorities;

impl World {
    /// Says whether names are unique and references lead somewhere.
    pub fn check(&self) -> Result<(), WorldError> {
        if self.vms.is_empty() && self.scale_sets.is_empty() {
            return Err(invalid(
                "vms",
                "empty; IMDS needs at least one machine to speak for",
            ));
        }
        guid("tenant.id", &self.tenant.id)?;
        unique(
            "identities",
            self.identities.iter().map(|identity| &identity.name),
        )?;
        unique(
            "applications",
            self.applications
                .iter()
                .map(|application| &application.name),
        )?;
        let both = |name: &&String| self.identity(name).is_some();
        let mut names = self.applications.iter().map(|one| &one.name);
        if let Some(name) = names.find(both) {
            let problem = format!("`{name}` is the name of an identity, too; commands need one");
            return Err(invalid("applications", &problem));
        }
        let instances = self.scale_sets.iter().flat_map(|set| {
            let own = set.instances.iter().map(|instance| &instance.name);
            own.chain([&set.name])
        });
        let machines = self.vms.iter().map(|vm| &vm.name);
        unique("vms and scaleSets", machines.chain(instances))?;
        unique("vaults", self.vaults.iter().map(|vault| &vault.name))?;
        for (index, identity) in self.identities.iter().enumerate() {
            guid(
                &format!("identities[{index}].clientID"),
                &identity.client_id,
            )?;
            guid(
                &format!("identities[{index}].principalID"),
                &identity.principal_id,
            )?;
        }
        for (index, application) in self.applications.iter().enumerate() {
            guid(
                &format!("applications[{index}].clientID"),
                &application.client_id,
            )?;
            guid(
                &format!("applications[{index}].principalID"),
                &application.principal_id,
            )?;
        }
        for (index, vm) in self.vms.iter().enumerate() {
            for name in &vm.identities {
                if self.identity(name).is_none() {
                    let field = format!("vms[{index}].identities");
                    return Err(invalid(&field, &format!("no identity is named `{name}`")));
                }
            }
        }
        for (index, set) in self.scale_sets.iter().enumerate() {
            for name in &set.identities {
                if self.identity(name).is_none() {
                    let field = format!("scaleSets[{index}].identities");
                    return Err(invalid(&field, &format!("no identity is named `{name}`")));
                }
            }
        }
        self.check_roles()?;
        self.check_vaults()?;
        self.check_credentials()?;
        self.check_entra()?;
        if self.tokens.lifetime < Duration::from_secs(1) {
            return Err(invalid(
                "tokens.lifetime",
                "shorter than a second; say `24h` or `90s`",
            ));
        }
        Ok(())
    }

    fn check_credentials(&self) -> Result<(), WorldError> {
        let refuse = |field: String, error: CertificateError| invalid(&field, &error.to_string());
        let identities = self.identities.iter().enumerate();
        let identities = identities.map(|(index, one)| {
            let field = format!("identities[{index}].federatedCredentials");
            (field, &one.federated_credentials)
        });
        let applications = self.applications.iter().enumerate();
        let applications = applications.map(|(index, one)| {
            let field = format!("applications[{index}].federatedCredentials");
            (field, &one.federated_credentials)
        });
        for (field, credentials) in identities.chain(applications) {
            unique(&field, credentials.iter().map(|one| &one.name))?;
        }
        for (index, application) in self.applications.iter().enumerate() {
            for (number, pem) in application.certificates.iter().enumerate() {
                let field = format!("applications[{index}].certificates[{number}]");
                Certificate::from_pem(pem.text()).map_err(|error| refuse(field, error))?;
            }
            for (number, subject) in application.certificate_subjects.iter().enumerate() {
                let field =
                    format!("applications[{index}].certificateSubjects[{number}].authority");
                authorities(subject.authority.text()).map_err(|error| refuse(field, error))?;
            }
        }
        Ok(())
    }

    fn check_entra(&self) -> Result<(), WorldError> {
        unique("issuers", self.issuers.iter().map(|one| &one.issuer))?;
        for (index, issuer) in self.issuers.iter().enumerate() {
            if let Some(pem) = &issuer.ca_pem {
                let field = format!("issuers[{index}].caPem");
                let bad = |error: CertificateError| invalid(&field, &error.to_string());
                authorities(pem).map_err(bad)?;
            }
        }
        if self.entra.assertion_algorithms.is_empty() {
            let problem = "empty; no assertion could be accepted. Leave it out for both";
            return Err(invalid("entra.assertionAlgorithms", problem));
        }
        if !self.entra.authority_host.contains("://") {
            let problem = "not a URL; say `https://login.microsoftonline.com`";
            return Err(invalid("entra.authorityHost", problem));
        }
        if let Some(rate) = &self.entra.throttle
            && !(rate.per_second > 0.0 && rate.burst > 0)
        {
            let problem = "perSecond and burst must be more than nothing";
            return Err(invalid("entra.throttle", problem));
        }
        Ok(())
    }

    fn check_roles(&self) -> Result<(), WorldError> {
        for (index, one) in self.role_assignments.iter().flatten().enumerate() {
            let field = format!("roleAssignments[{index}]");
            let known = self.principal_id(&one.principal).is_some();
            if !known && guid(&field, &one.principal).is_err() {
                let who = &one.principal;
                let problem =
                    format!("`{who}` is neither an identity, an application nor an object id");
                return Err(invalid(&field, &problem));
            }
            if one.role.is_some() != one.actions.is_empty() {
                return Err(invalid(&field, "give `role` or `actions`, one of them"));
            }
            if !one.scope.starts_with('/') {
                return Err(invalid(
                    &field,
                    "`scope` is a resource id, `/subscriptions/…`",
                ));
            }
        }
        Ok(())
    }

    fn check_vaults(&self) -> Result<(), WorldError> {
        for (index, vault) in self.vaults.iter().enumerate() {
            let lists = [
                ("get", Some(&vault.allow.get)),
                ("list", vault.allow.list.as_ref()),
            ];
            for (action, entries) in lists {
                for entry in entries.into_iter().flatten() {
                    let field = format!("vaults[{index}].allow.{action}");
                    let known = entry == "*" || self.principal_id(entry).is_some();
                    if !known && guid(&field, entry).is_err() {
                        let problem = format!("`{entry}` is neither an identity nor an object id");
                        return Err(invalid(&field, &problem));
                    }
                }
            }
        }
        Ok(())
    }
}

fn unique<'a>(field: &str, names: impl Iterator<Item = &'a String>) -> Result<(), WorldError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(invalid(
                field,
                &format!("`{name}` is there twice; names are unique"),
            ));
        }
    }
    Ok(())
}

fn guid(field: &str, value: &str) -> Result<(), WorldError> {
    let groups: Vec<&str> = value.split('-').collect();
    let right = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups
            .iter()
            .all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if right {
        Ok(())
    } else {
        Err(invalid(field, &format!("`{value}` is not a GUID")))
    }
}

fn invalid(field: &str, problem: &str) -> WorldError {
    WorldError::Invalid {
        field: field.to_owned(),
        problem: problem.to_owned(),
    }
}
