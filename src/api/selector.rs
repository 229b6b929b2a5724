//! Kubernetes label selectors → facts. An operator that Kubernetes does not know is refused here,
//! so that matching cannot fail later.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use super::Malformed;
use crate::model::facts::{LabelSelector, Operator, Requirement};

/// Converts a selector; `field` is where it stands, for the error.
pub fn label_selector(
    field: &str,
    selector: &meta::LabelSelector,
) -> Result<LabelSelector, Malformed> {
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    let expressions = expressions
        .iter()
        .map(|expression| requirement(field, expression))
        .collect::<Result<_, _>>()?;
    Ok(LabelSelector {
        match_labels: selector.match_labels.clone().unwrap_or_default(),
        expressions,
    })
}

fn requirement(
    field: &str,
    from: &meta::LabelSelectorRequirement,
) -> Result<Requirement, Malformed> {
    let field = format!("{field}.matchExpressions[key={}]", from.key);
    let values = from.values.clone().unwrap_or_default();
    let operator = match from.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => {
            let problem = format!("operator `{other}` is none of In, NotIn, Exists, DoesNotExist");
            return Err(Malformed::at(field, problem));
        }
    };
    let takes_values = matches!(operator, Operator::In | Operator::NotIn);
    if takes_values == values.is_empty() {
        let problem = if takes_values {
            "needs values"
        } else {
            "takes no values"
        };
        return Err(Malformed::at(field, problem));
    }
    Ok(Requirement {
        key: from.key.clone(),
        operator,
        values,
    })
}
