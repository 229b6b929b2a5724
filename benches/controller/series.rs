//! The controller's own series, as text over HTTP → figures.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// Values by name with labels.
#[derive(Debug, Default)]
pub struct Series(BTreeMap<String, f64>);

/// What a histogram counted between two looks.
pub struct Counted {
    pub count: f64,
    pub mean: f64,
    /// Upper bound of the bucket in which half and 99 of 100 are.
    pub p50: f64,
    pub p99: f64,
    pub most: f64,
}

impl Series {
    pub fn read(address: &str) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let values = text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Ok(Self(values.collect()))
    }

    fn value(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// What a histogram without labels counted since `before`, in the unit of the series.
    pub fn counted_since(&self, before: &Self, name: &str) -> Counted {
        let since = |what: &str| self.value(what) - before.value(what);
        let count = since(&format!("{name}_count"));
        let prefix = format!("{name}_bucket{{le=\"");
        let mut buckets: Vec<(f64, f64)> = self
            .0
            .keys()
            .filter_map(|key| {
                let bound = key.strip_prefix(&prefix)?.strip_suffix("\"}")?;
                let bound = bound.replace("+Inf", "inf").parse().ok()?;
                Some((bound, since(key)))
            })
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let at = |part: f64| {
            let bucket = buckets.iter().find(|(_, below)| *below >= part * count);
            bucket.map_or(f64::INFINITY, |(bound, _)| *bound)
        };
        Counted {
            count,
            mean: since(&format!("{name}_sum")) / count,
            p50: at(0.5),
            p99: at(0.99),
            most: at(1.0),
        }
    }
}
