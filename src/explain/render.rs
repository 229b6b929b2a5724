//! An explanation as text for a terminal, and as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Explanation, Mark, Outcome, Section, Verdict};

/// The text. ASCII, no colours: it is pasted into tickets.
#[must_use]
pub fn text(explanation: &Explanation) -> String {
    let mut out = format!("{}\n", explanation.headline);
    for section in &explanation.sections {
        write_section(&mut out, section);
    }
    if !explanation.outcomes.is_empty() {
        out.push_str("\nA request that …\n");
        let width = explanation
            .outcomes
            .iter()
            .map(|o| o.request.len())
            .max()
            .unwrap_or_default();
        for outcome in &explanation.outcomes {
            let _ = writeln!(out, "      {:width$}  {}", outcome.request, ends(outcome));
        }
    }
    if let Some(kind) = explanation.kind {
        let _ = writeln!(
            out,
            "\nThe program sees the error {kind}: see TROUBLESHOOTING.md#{kind}"
        );
    }
    if explanation.verdict == Verdict::Granted {
        let pod = &explanation.pod;
        let _ = writeln!(
            out,
            "\nAzure was not asked. Is the program refused all the same, the pod's Events say why:\n\nkubectl describe pod -n {} {}",
            pod.namespace, pod.name
        );
    }
    for (at, remedy) in explanation.remedies.iter().enumerate() {
        let lead = if at == 0 { "To change this" } else { "Or" };
        let _ = writeln!(out, "\n{lead}: {}\n", remedy.what);
        // Not indented: a here-document is pasted as it stands.
        let _ = writeln!(out, "{}", remedy.how.trim_end());
    }
    out
}

fn write_section(out: &mut String, section: &Section) {
    let _ = writeln!(out, "\n{}", section.title);
    for step in &section.steps {
        let _ = writeln!(out, "  {}  {}", mark(step.mark), step.text);
        for detail in &step.details {
            let _ = writeln!(out, "        {detail}");
        }
    }
}

fn mark(mark: Mark) -> &'static str {
    match mark {
        Mark::Fine => "ok",
        Mark::Wrong => "NO",
        Mark::Note => "--",
        Mark::Unknown => "??",
    }
}

fn ends(outcome: &Outcome) -> String {
    match &outcome.identity {
        Some(identity) => format!("gets {identity}: {}", outcome.why),
        None => format!("is refused: {}", outcome.why),
    }
}

/// The JSON. Names are stable; fields may be added.
#[must_use]
pub fn json(explanation: &Explanation) -> Value {
    let step = |step: &super::Step| json!({"result": word(step.mark), "text": step.text, "details": step.details});
    let section = |section: &Section| json!({"title": section.title, "steps": section.steps.iter().map(step).collect::<Vec<_>>()});
    let outcome = |outcome: &Outcome| json!({"request": outcome.request, "identity": outcome.identity.as_ref().map(ToString::to_string), "why": outcome.why});
    json!({
        "pod": explanation.pod.to_string(),
        "verdict": explanation.verdict.as_str(),
        "headline": explanation.headline,
        "error": explanation.kind,
        "sections": explanation.sections.iter().map(section).collect::<Vec<_>>(),
        "requests": explanation.outcomes.iter().map(outcome).collect::<Vec<_>>(),
        "remedies": explanation.remedies.iter().map(|remedy| json!({"what": remedy.what, "how": remedy.how})).collect::<Vec<_>>(),
    })
}

fn word(mark: Mark) -> &'static str {
    match mark {
        Mark::Fine => "ok",
        Mark::Wrong => "wrong",
        Mark::Note => "note",
        Mark::Unknown => "unknown",
    }
}
