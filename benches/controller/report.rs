//! What was found, as a table.

use std::fmt::Write as _;

/// Rows and remarks, in order.
#[derive(Default)]
pub struct Table {
    rows: String,
    remarks: String,
}

impl Table {
    /// A figure with its target; `met`: whether it is reached, `None` where there is no target.
    pub fn row(&mut self, what: &str, measured: &str, target: &str, met: Option<bool>) {
        let met = match met {
            Some(true) => "ok",
            Some(false) => "MISSED",
            None => "",
        };
        let row = format!("| {what} | {measured} | {target} | {met} |");
        eprintln!("{row}");
        writeln!(self.rows, "{row}").unwrap();
    }

    /// What helps to understand the figures.
    pub fn remark(&mut self, what: &str) {
        eprintln!("- {what}");
        writeln!(self.remarks, "- {what}").unwrap();
    }

    pub fn print(&self) {
        println!("| what | measured | target | |\n|---|---|---|---|");
        println!("{}\n{}", self.rows, self.remarks);
    }
}

/// Median and greatest of some figures.
pub fn median_and_most(values: &[f64]) -> (f64, f64) {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.last().copied().unwrap_or(f64::NAN);
    (
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN),
        last,
    )
}

/// The figure that 99 of 100 are not above.
pub fn p99(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let at = (values.len() * 99).div_ceil(100).saturating_sub(1);
    values.get(at).copied().unwrap_or(f64::NAN)
}
