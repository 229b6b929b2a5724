//! What stands in a client's row of each trial's table. Values only: the test of the documents reads it, too.
//!
//! In: a client, a table's name, the cells of its row. Out: whether these are the words that follow from the table of clients.

use super::table::{Client, Dialect, Patience, Selector};

/// Whether the cells of a client's row say what they should, whatever the figures are.
pub fn stand(client: &Client, table: &str, cells: &[impl AsRef<str>]) -> bool {
    let expected = row(client, table);
    let says = |(may, cell): (&String, &str)| {
        let words = figures(cell);
        may.split('|').any(|may| may == cell || may == words)
    };
    let cells = cells.iter().map(AsRef::as_ref);
    expected.len() == cells.len() && expected.iter().zip(cells).all(says)
}

/// What may stand in each cell: `#` is a figure, `|` is between one and the other.
fn row(client: &Client, table: &str) -> Vec<String> {
    let chain = |dialect, with_id| match client.goes_on(dialect, with_id) {
        None => "no chain",
        Some(true) => "# ms",
        Some(false) => "stops (SDK), # ms",
    };
    match table {
        "dialects" => Dialect::ALL
            .map(|dialect| expected(client, dialect))
            .to_vec(),
        "refusals" => {
            let cells = |dialect| ["# ms", chain(dialect, false), chain(dialect, true)];
            let cells = [Dialect::Imds, Dialect::AppService].map(cells);
            cells.concat().into_iter().map(str::to_owned).collect()
        }
        // No call fails under a rollout.
        "broken" => {
            let [calls, failed, longest] = ["#", "0", "# s"].map(str::to_owned);
            vec![calls, failed, longest, ends(client.broken, "error")]
        }
        "pending" => vec![ends(client.told, "\"try again\"")],
        _ => Vec::new(),
    }
}

fn ends(patience: Patience, gives_up: &str) -> String {
    let (token, error) = ("token after # s", format!("{gives_up} after # ms"));
    match patience {
        Patience::None(_) => error,
        // Without words for it, it has to last.
        Patience::Long | Patience::Short([]) => token.to_owned(),
        Patience::Short(_) => format!("{token}|{error}"),
    }
}

fn expected(client: &Client, dialect: Dialect) -> String {
    let works = |selector: &Selector| client.refusal(dialect, *selector).is_none();
    let works: Vec<Selector> = Selector::ALL.into_iter().filter(works).collect();
    selectors(client, dialect, &works)
}

/// By which selectors a client gets its token in a dialect.
pub fn selectors(client: &Client, dialect: Dialect, works: &[Selector]) -> String {
    let speaks = client.speaks(dialect);
    if speaks != dialect {
        return format!("– (asks {})", speaks.heading());
    }
    if works == Selector::ALL {
        return "all".to_owned();
    }
    if works.is_empty() {
        return "– (SDK)".to_owned();
    }
    works
        .iter()
        .map(|selector| selector.word())
        .collect::<Vec<_>>()
        .join(", ")
}

fn figures(cell: &str) -> String {
    let words = cell.split(' ').map(|word| match word.parse::<f64>() {
        Ok(_) => "#",
        Err(_) => word,
    });
    words.collect::<Vec<_>>().join(" ")
}
