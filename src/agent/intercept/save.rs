//! What `iptables-save` prints, as values.
//!
//! In: text of either backend, any version, with or without counters. Out: [`Ruleset`]. Pure, and
//! total: whatever the text, parsing neither fails nor panics; a line that it does not understand
//! is left out, and a rule that it does not understand is kept as words, so that judging it can be
//! conservative. Rules keep their text as printed: that is what `iptables-restore` takes to delete them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Tables by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    tables: BTreeMap<String, Table>,
    /// Tables that the nft backend cannot show, because somebody put native rules into them.
    pub incompatible: Vec<String>,
    /// Tables that this kernel does not have, or that cannot be used: nothing is wanted there.
    pub lacking: Vec<&'static str>,
}

/// Chains by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    chains: BTreeMap<String, Chain>,
}

/// A chain's rules in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Whether the kernel calls it (it has a policy), not another rule.
    pub built_in: bool,
    /// The rules, first one first.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As printed, without `-A CHAIN`.
    pub text: String,
    words: Vec<String>,
}

/// Traffic that a rule may match: tcp to a port of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Destination.
    pub address: Ipv4Addr,
    /// Destination port.
    pub port: u16,
}

impl Ruleset {
    /// Reads a listing; what stands before its first `*table` line is left out.
    pub fn parse(text: &str) -> Self {
        let mut ruleset = Self::default();
        let mut current: Option<String> = None;
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('*') {
                ruleset.tables.entry(name.to_owned()).or_default();
                current = Some(name.to_owned());
            } else if line.starts_with('#') {
                ruleset
                    .incompatible
                    .extend(incompatible(line).map(str::to_owned));
            } else if let Some(name) = &current {
                ruleset.tables.entry(name.clone()).or_default().line(line);
            }
        }
        ruleset
    }

    /// An empty listing of a kernel that lacks a table.
    pub fn without(table: &'static str) -> Self {
        Self {
            lacking: vec![table],
            ..Self::default()
        }
    }

    /// A table, if the listing had it.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    /// All tables with their names.
    pub fn tables(&self) -> impl Iterator<Item = (&str, &Table)> {
        self.tables
            .iter()
            .map(|(name, table)| (name.as_str(), table))
    }

    /// This listing with the tables of another.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.tables.extend(other.tables);
        self.incompatible.extend(other.incompatible);
        self.lacking.extend(other.lacking);
        self
    }
}

/// ``# Table `nat' is incompatible, use 'nft' tool.``
fn incompatible(line: &str) -> Option<&str> {
    let (name, rest) = line.strip_prefix("# Table `")?.split_once('\'')?;
    rest.contains("incompatible").then_some(name)
}

impl Table {
    /// A chain, if the table has it.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.get(name)
    }

    /// All chains with their names.
    pub fn chains(&self) -> impl Iterator<Item = (&str, &Chain)> {
        self.chains
            .iter()
            .map(|(name, chain)| (name.as_str(), chain))
    }

    fn line(&mut self, line: &str) {
        // `iptables-save -c` puts `[packets:bytes]` before each rule.
        let line = match line
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("] "))
        {
            Some((_, rest)) => rest,
            None => line,
        };
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (name, rest) = rest
            .trim_start()
            .split_once(' ')
            .unwrap_or((rest.trim_start(), ""));
        match verb {
            "-A" if !name.is_empty() => {
                self.chains
                    .entry(name.to_owned())
                    .or_default()
                    .rules
                    .push(Rule::parse(rest));
            }
            _ => {
                if let Some(chain) = verb.strip_prefix(':').filter(|chain| !chain.is_empty()) {
                    self.chains.entry(chain.to_owned()).or_default().built_in = name != "-";
                }
            }
        }
    }
}

impl Rule {
    /// Reads a rule's text (without `-A CHAIN`).
    pub fn parse(text: &str) -> Self {
        let text = text.trim().to_owned();
        Self {
            words: words(&text),
            text,
        }
    }

    /// The word after `flag`; values of comments are never taken for flags.
    pub fn value(&self, flag: &str) -> Option<&str> {
        let mut words = self.words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            if word == flag {
                return words.next();
            }
            if word == "--comment" {
                words.next();
            }
        }
        None
    }

    /// What happens to a packet that matches: the name after `-j` or `-g`.
    pub fn leads_to(&self) -> Option<&str> {
        self.value("-j").or_else(|| self.value("-g"))
    }

    /// Whether it is a goto: its target chain does not come back here.
    pub fn is_goto(&self) -> bool {
        self.value("-g").is_some()
    }

    /// Whether both say the same, whatever the order of matches and the way of writing them.
    pub fn same_as(&self, other: &Self) -> bool {
        self.clauses() == other.clauses()
    }

    fn clauses(&self) -> Vec<Vec<String>> {
        let mut clauses: Vec<Vec<String>> = Vec::new();
        let mut words = self.words.iter().peekable();
        let mut negated = false;
        while let Some(word) = words.next() {
            match word.as_str() {
                "!" => negated = true,
                // Only loads the match; what it matches follows.
                "-m" => drop(words.next()),
                flag => {
                    let mut clause: Vec<String> =
                        negated.then(|| "!".to_owned()).into_iter().collect();
                    negated = false;
                    clause.push(flag.to_owned());
                    if flag == "--comment" {
                        clause.extend(words.next().cloned());
                    }
                    while let Some(value) = words.next_if(|w| !w.starts_with('-') && *w != "!") {
                        clause.push(if flag == "-d" || flag == "-s" {
                            with_mask(value)
                        } else {
                            value.clone()
                        });
                    }
                    clauses.push(clause);
                }
            }
        }
        clauses.sort();
        clauses
    }

    /// Whether a packet of this flow might match. `false` only where it surely does not.
    pub fn may_match(&self, flow: Flow) -> bool {
        let clauses = self.clauses();
        let excluded = |clause: &Vec<String>| {
            let (negated, clause) = match clause.split_first() {
                Some((first, rest)) if first == "!" => (true, rest),
                _ => (false, clause.as_slice()),
            };
            let [flag, value] = clause else { return false };
            let holds = match flag.as_str() {
                "-d" => network_contains(value, flow.address),
                "-p" => protocol_is_tcp(value),
                "--dport" => range_contains(value, flow.port),
                _ => None,
            };
            holds.is_some_and(|holds| holds == negated)
        };
        !clauses.iter().any(excluded)
    }
}

fn with_mask(address: &str) -> String {
    if address.contains('/') {
        address.to_owned()
    } else {
        format!("{address}/32")
    }
}

fn network_contains(network: &str, address: Ipv4Addr) -> Option<bool> {
    let (base, mask) = network.split_once('/')?;
    let base = u32::from(base.parse::<Ipv4Addr>().ok()?);
    let mask = match mask.parse::<u32>() {
        Ok(0) => 0,
        Ok(length @ 1..=32) => u32::MAX << (32 - length),
        _ => u32::from(mask.parse::<Ipv4Addr>().ok()?),
    };
    Some(u32::from(address) & mask == base & mask)
}

fn protocol_is_tcp(protocol: &str) -> Option<bool> {
    match protocol {
        "tcp" | "6" | "all" | "0" => Some(true),
        "udp" | "17" | "icmp" | "1" | "sctp" | "132" => Some(false),
        _ => None,
    }
}

fn range_contains(range: &str, port: u16) -> Option<bool> {
    let (first, last) = range.split_once(':').unwrap_or((range, range));
    Some((first.parse().ok()?..=last.parse().ok()?).contains(&port))
}

/// Splits as iptables quotes: blanks separate, double quotes hold together, a backslash in quotes
/// takes the next character as it is.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    let mut chars = text.chars();
    while let Some(next) = chars.next() {
        match next {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(chars.next()),
            blank if blank.is_whitespace() && !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests;
