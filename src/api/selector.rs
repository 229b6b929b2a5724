//! Label selectors, as in Kubernetes' own kinds, → facts. What Kubernetes would not take is refused
//! here, so that matching cannot fail later.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Malformed;
use super::formats::LABEL_KEY;
use super::rules::{List, Rule, Rules};
use crate::model::facts::{LabelSelector, Operator, Requirement};

/// Chooses by labels: all of `matchLabels` and all of `matchExpressions` must hold. An empty
/// selector (`{}`) chooses everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// Labels with exactly these values, for example `{app: payments}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = LABELS))]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Requirements on labels, for example `{key: team, operator: In, values: [shop, bank]}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = EXPRESSIONS.schema())]
    pub match_expressions: Option<Vec<Expression>>,
}

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = Rules(&[OPERATOR, NEEDS_VALUES, TAKES_NO_VALUES]))]
pub struct Expression {
    /// The label's key, for example `app.kubernetes.io/name`.
    #[schemars(transform = LABEL_KEY.schema())]
    pub key: String,
    /// `In` (the label has one of the values), `NotIn` (it is absent or has another one), `Exists` or
    /// `DoesNotExist`.
    #[schemars(length(max = 12))]
    pub operator: String,
    /// The values for `In` and `NotIn`; none for the other two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = VALUES.schema())]
    pub values: Option<Vec<String>>,
}

const LABELS: usize = 32;
const EXPRESSIONS: List = List::at_most(16);
const VALUES: List = List::at_most(64);

const OPERATOR: Rule = Rule::new(
    "self.operator in ['In', 'NotIn', 'Exists', 'DoesNotExist']",
    "operator is none of In, NotIn, Exists, DoesNotExist",
);
const NEEDS_VALUES: Rule = Rule::new(
    "!(self.operator in ['In', 'NotIn']) || (has(self.values) && size(self.values) > 0)",
    "needs values: In and NotIn compare the label with them",
);
const TAKES_NO_VALUES: Rule = Rule::new(
    "!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || size(self.values) == 0",
    "takes no values: Exists and DoesNotExist look at the label's key alone",
);

/// Converts a selector; `field` is where it stands, for the error.
pub fn label_selector(field: &str, selector: &Selector) -> Result<LabelSelector, Malformed> {
    let match_labels = selector.match_labels.clone().unwrap_or_default();
    List::at_most(LABELS).check_size(&format!("{field}.matchLabels"), match_labels.len())?;
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    EXPRESSIONS.check_size(&format!("{field}.matchExpressions"), expressions.len())?;
    let expressions = expressions
        .iter()
        .map(|expression| requirement(field, expression))
        .collect::<Result<_, _>>()?;
    Ok(LabelSelector {
        match_labels,
        expressions,
    })
}

fn requirement(field: &str, from: &Expression) -> Result<Requirement, Malformed> {
    let field = format!("{field}.matchExpressions[key={}]", from.key);
    LABEL_KEY.check(field.as_str(), &from.key)?;
    let values = from.values.clone().unwrap_or_default();
    VALUES.check_size(&format!("{field}.values"), values.len())?;
    let operator = match from.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        _ => return Err(Malformed::at(field, OPERATOR.message)),
    };
    let takes_values = matches!(operator, Operator::In | Operator::NotIn);
    NEEDS_VALUES.check(!takes_values || !values.is_empty(), field.as_str())?;
    TAKES_NO_VALUES.check(takes_values || values.is_empty(), field)?;
    Ok(Requirement {
        key: from.key.clone(),
        operator,
        values,
    })
}
