//! All identities of a cluster or namespace with their ids, for people and for programs: what
//! `lanyard identities` prints. Pure: `AzureIdentity`s as documents in, text or JSON out.
//!
//! Ids are those that the controller found in Azure, else those that the spec states. What a status
//! says of an older spec is not told.

use serde_json::{Value, json};

/// One identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Client (application) id.
    pub client_id: Option<String>,
    /// Principal (object) id.
    pub principal_id: Option<String>,
    /// Tenant.
    pub tenant_id: Option<String>,
    /// ARM id.
    pub resource_id: Option<String>,
    /// Where its tokens come from, in the order to try.
    pub sources: Vec<String>,
    /// Whether Lanyard creates and removes it.
    pub managed: bool,
    /// Nodes that have it, and nodes that are to have it.
    pub nodes: Option<(i64, i64)>,
    /// `AzureAssignment`s where it is assigned.
    pub assigned_to: Vec<String>,
    /// Whether pods can get its tokens; `None`: no controller has said.
    pub ready: Option<bool>,
    /// Why, in one word.
    pub reason: Option<String>,
    /// Why, and what to do.
    pub message: Option<String>,
}

/// The rows, in order of namespace and name.
#[must_use]
pub fn rows(documents: &[Value]) -> Vec<Row> {
    let mut rows: Vec<Row> = documents.iter().map(row).collect();
    rows.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    rows
}

fn row(document: &Value) -> Row {
    let (metadata, spec) = (&document["metadata"], &document["spec"]);
    let of_now = document["status"]["observedGeneration"] == metadata["generation"];
    let status = if of_now {
        &document["status"]
    } else {
        &Value::Null
    };
    let text = |of: &Value, field: &str| of[field].as_str().map(str::to_owned);
    let id = |found: &str, stated: &str| text(status, found).or_else(|| text(spec, stated));
    let conditions = status["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let ready = conditions.find(|one| one["type"] == "Ready");
    let ready = ready.unwrap_or(&Value::Null);
    let nodes = status["assignedNodes"].as_i64();
    let listed = status["assignedTo"].as_array().into_iter().flatten();
    Row {
        namespace: text(metadata, "namespace").unwrap_or_default(),
        name: text(metadata, "name").unwrap_or_default(),
        client_id: id("clientID", "clientID"),
        principal_id: id("principalID", "objectID"),
        tenant_id: id("tenantID", "tenantID"),
        resource_id: id("resourceID", "resourceID"),
        sources: sources(spec),
        managed: !spec["managed"].is_null(),
        nodes: nodes.zip(status["wantedNodes"].as_i64()),
        assigned_to: listed
            .filter_map(|one| Some(one.as_str()?.to_owned()))
            .collect(),
        ready: ready["status"].as_str().map(|status| status == "True"),
        reason: text(ready, "reason"),
        message: text(ready, "message"),
    }
}

fn sources(spec: &Value) -> Vec<String> {
    match spec["tokenSources"].as_array() {
        None => vec!["imds".to_owned()],
        Some(sources) => {
            let names = sources.iter().filter_map(Value::as_object);
            names.flat_map(|one| one.keys().cloned()).collect()
        }
    }
}

/// The rows as a table with a heading, as wide as its words.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    const HEADING: [&str; 10] = [
        "NAMESPACE",
        "NAME",
        "CLIENT-ID",
        "PRINCIPAL-ID",
        "TENANT",
        "RESOURCE-ID",
        "SOURCES",
        "NODES",
        "READY",
        "REASON",
    ];
    let cells: Vec<[String; 10]> = rows.iter().map(cells).collect();
    let mut widths = HEADING.map(str::len);
    for line in &cells {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in std::iter::once(&HEADING.map(str::to_owned)).chain(&cells) {
        let padded = line.iter().zip(widths);
        let padded: Vec<String> = padded
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(padded.join("   ").trim_end());
        text.push('\n');
    }
    text
}

fn cells(row: &Row) -> [String; 10] {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let nodes = row
        .nodes
        .map(|(assigned, wanted)| format!("{assigned}/{wanted}"));
    let ready = row.ready.map(|ready| if ready { "True" } else { "False" });
    [
        row.namespace.clone(),
        row.name.clone(),
        or_dash(&row.client_id),
        or_dash(&row.principal_id),
        or_dash(&row.tenant_id),
        or_dash(&row.resource_id),
        row.sources.join(","),
        or_dash(&nodes),
        or_dash(&ready.map(str::to_owned)),
        or_dash(&row.reason),
    ]
}

/// The rows as a JSON list; what is not known is `null`.
#[must_use]
pub fn json(rows: &[Row]) -> Value {
    let all = rows.iter().map(|row| {
        json!({
            "namespace": row.namespace,
            "name": row.name,
            "clientID": row.client_id,
            "principalID": row.principal_id,
            "tenantID": row.tenant_id,
            "resourceID": row.resource_id,
            "sources": row.sources,
            "managed": row.managed,
            "assignedNodes": row.nodes.map(|(assigned, _)| assigned),
            "wantedNodes": row.nodes.map(|(_, wanted)| wanted),
            "assignedTo": row.assigned_to,
            "ready": row.ready,
            "reason": row.reason,
            "message": row.message,
        })
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(name: &str, observed: i64) -> Value {
        json!({"metadata": {"namespace": "shop", "name": name, "generation": 2},
            "spec": {"clientID": "stated", "tokenSources": [{"federated": {}}, {"imds": {}}]},
            "status": {"observedGeneration": observed, "clientID": "found", "principalID": "p",
                "assignedNodes": 1, "wantedNodes": 3, "assignedTo": ["vmss-a-00000000"],
                "conditions": [{"type": "Ready", "status": "False", "reason": "Pending", "message": "on 1 of 3 nodes"}]}})
    }

    #[test]
    fn what_was_found_in_azure_is_told_and_what_is_of_an_older_spec_is_not() {
        let rows = rows(&[document("new", 2), document("changed", 1)]);
        let names: Vec<&str> = rows.iter().map(|row| &*row.name).collect();
        assert_eq!(names, ["changed", "new"]);
        assert_eq!(rows[0].client_id.as_deref(), Some("stated"));
        assert_eq!((rows[0].ready, rows[0].nodes), (None, None));
        assert_eq!(rows[1].client_id.as_deref(), Some("found"));
        assert_eq!((rows[1].ready, rows[1].nodes), (Some(false), Some((1, 3))));
    }

    #[test]
    fn the_table_is_for_people_and_the_list_for_programs() {
        let rows = rows(&[document("payments", 2)]);
        let table = table(&rows);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].find("REASON"), lines[1].find("Pending"));
        assert!(
            lines[1].contains("federated,imds   1/3     False   Pending"),
            "{table}"
        );
        let list = json(&rows);
        assert_eq!(list[0]["principalID"], "p");
        assert_eq!(list[0]["tenantID"], Value::Null);
        assert_eq!(list[0]["ready"], false);
    }
}
