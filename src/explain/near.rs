//! Names that look like a name: what somebody probably meant. Pure.

/// Those of `names` that could be meant by `name`, the likeliest first, at most three.
pub fn near_names<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let allowed = (name.len() / 3).clamp(1, 4);
    let mut near: Vec<(usize, &str)> = names
        .into_iter()
        .filter(|other| *other != name)
        .filter_map(|other| {
            let part = name.len() >= 3 && other.len() >= 3;
            let distance = if part && (other.starts_with(name) || name.starts_with(other)) {
                1
            } else {
                distance(name, other)
            };
            (distance <= allowed).then_some((distance, other))
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    near.truncate(3);
    near.into_iter().map(|(_, name)| name).collect()
}

/// How many characters must be put in, taken out or changed (Levenshtein's distance).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_found_and_strangers_are_not() {
        let names = ["payments", "orders", "payments-v2", "web"];
        assert_eq!(near_names("paymets", names), ["payments"]);
        assert_eq!(near_names("payments", names), ["payments-v2"]);
        assert!(near_names("shipping", names).is_empty());
        assert!(near_names("wxyz", ["ab"]).is_empty());
    }
}
