//! Interleaved rounds: A B, B A, A B …, so that what disturbs the machine disturbs both sides.

use crate::load::Measured;
use crate::proc::Cpu;
use crate::stage::Side;

/// A way to load a server.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// For the table.
    pub name: &'static str,
    /// Connections at once.
    pub workers: usize,
    /// A new connection for each request.
    pub fresh: bool,
}

/// The three that the table asks for.
pub const KINDS: [Kind; 3] = [
    Kind {
        name: "keep-alive, 1 connection",
        workers: 1,
        fresh: false,
    },
    Kind {
        name: "keep-alive, 16 connections",
        workers: 16,
        fresh: false,
    },
    Kind {
        name: "new connection each, 16 at once",
        workers: 16,
        fresh: true,
    },
];

/// One side in one round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Answers in a second.
    pub throughput: f64,
    /// Latencies in microseconds.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// Processor time of the server for each answer, in microseconds.
    pub cpu: f64,
    /// The kernel's part of that.
    pub system: f64,
    /// Errors.
    pub errors: usize,
}

/// All rounds of one kind.
pub struct Rounds {
    /// What was done.
    pub kind: Kind,
    /// For each side its samples, in the order of the rounds.
    pub sides: Vec<Vec<Sample>>,
}

/// Runs `rounds` rounds of `seconds` for each side.
pub async fn run(
    kind: Kind,
    sides: &[&Side],
    rounds: usize,
    seconds: f64,
) -> anyhow::Result<Rounds> {
    let mut all = vec![Vec::new(); sides.len()];
    for side in sides {
        side.load(kind.workers, kind.fresh, 0.3).await?; // warm: caches, tables, the processor's clock
    }
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..sides.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let side = sides[index];
            let before = Cpu::of(side.pid)?;
            let measured = side.load(kind.workers, kind.fresh, seconds).await?;
            let used = Cpu::of(side.pid)?.since(before);
            all[index].push(Sample::new(&measured, used));
        }
        eprintln!("  {}: round {} of {rounds}", kind.name, round + 1);
    }
    Ok(Rounds { kind, sides: all })
}

impl Sample {
    fn new(measured: &Measured, used: Cpu) -> Self {
        let requests = measured.requests.max(1) as f64;
        Sample {
            throughput: requests / measured.seconds,
            p50: measured.p50,
            p99: measured.p99,
            cpu: used.all.as_secs_f64() * 1e6 / requests,
            system: used.system.as_secs_f64() * 1e6 / requests,
            errors: measured.errors,
        }
    }
}

impl Rounds {
    /// The median over the rounds of one figure of one side.
    pub fn median(&self, side: usize, figure: fn(&Sample) -> f64) -> f64 {
        median(self.sides[side].iter().map(figure))
    }

    /// Ratio of the medians (second side ÷ first), and the least and greatest ratio in one round.
    pub fn ratio(&self, figure: fn(&Sample) -> f64) -> (f64, f64, f64) {
        let pairs = self.sides[1].iter().zip(&self.sides[0]);
        let mut each: Vec<f64> = pairs
            .map(|(ours, bare)| figure(ours) / figure(bare))
            .collect();
        each.sort_by(f64::total_cmp);
        (
            self.median(1, figure) / self.median(0, figure),
            each.first().copied().unwrap_or(f64::NAN),
            each.last().copied().unwrap_or(f64::NAN),
        )
    }

    /// Errors of one side, all rounds together.
    pub fn errors(&self, side: usize) -> usize {
        self.sides[side].iter().map(|sample| sample.errors).sum()
    }
}

/// The median; of an even number, the mean of the middle two.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}
