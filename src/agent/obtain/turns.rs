//! Whose turn it is at a service that takes few calls. Pure: monotonic times in, turns out.
//!
//! Calls that somebody waits for go before renewals; within each, askers take turns, so one that
//! floods delays another's call by one call, not by its whole queue. One identity has at most
//! `per_identity` calls running, and identities whose last call went wrong have one each and half
//! of all together: an identity that IMDS leaves without an answer cannot occupy every place.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use super::key::Applicant;
use crate::agent::rate::{Pace, Rate};
use crate::model::grant::Asker;

/// The limits. IMDS allows 20 requests a second and five at once to a whole node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnLimits {
    /// Calls begun.
    pub rate: Rate,
    /// Calls running.
    pub concurrency: usize,
    /// Calls running for one identity.
    pub per_identity: usize,
    /// Calls waiting.
    pub waiting: usize,
    /// Calls waiting for one asker.
    pub waiting_per_asker: usize,
}

/// Something that waits for its turn.
#[derive(Debug)]
pub struct Waiting<W> {
    /// Whose.
    pub asker: Asker,
    /// For which identity.
    pub applicant: Applicant,
    /// What to wake.
    pub waker: W,
}

/// What to do next.
#[derive(Debug)]
pub enum Turn<W> {
    /// This one's turn has come; it counts as running until [`Turns::end`].
    Go(Waiting<W>),
    /// Nothing before then (monotonic).
    Later(Duration),
    /// Nothing before a call ends or comes.
    Idle,
}

/// Askers take turns; each has a queue.
#[derive(Debug)]
struct Lane<W> {
    ring: VecDeque<Asker>,
    queues: HashMap<Asker, VecDeque<Waiting<W>>>,
}

impl<W> Default for Lane<W> {
    fn default() -> Self {
        Self {
            ring: VecDeque::new(),
            queues: HashMap::new(),
        }
    }
}

/// The state.
#[derive(Debug)]
pub struct Turns<W> {
    limits: TurnLimits,
    pace: Pace,
    paused_until: Duration,
    paused_identities: HashMap<Applicant, Duration>,
    running: HashMap<Applicant, usize>,
    running_total: usize,
    troubled: HashSet<Applicant>,
    foreground: Lane<W>,
    background: Lane<W>,
}

impl<W> Turns<W> {
    /// Identities in trouble that are remembered, and identities that pause.
    const REMEMBERED: usize = 1024;

    /// Nobody waits.
    #[must_use]
    pub fn new(limits: TurnLimits) -> Self {
        Self {
            limits,
            pace: Pace::default(),
            paused_until: Duration::ZERO,
            paused_identities: HashMap::new(),
            running: HashMap::new(),
            running_total: 0,
            troubled: HashSet::new(),
            foreground: Lane::default(),
            background: Lane::default(),
        }
    }

    /// Gets in line; `Err` gives it back: too many wait. Where all places are taken, whoever has most of
    /// them gives his last one up to somebody with fewer; its waker is dropped.
    pub fn wait(&mut self, waiting: Waiting<W>, urgent: bool) -> Result<(), Waiting<W>> {
        let limits = self.limits;
        let full = self.waiting() >= limits.waiting && !self.make_room(&waiting.asker);
        let lane = if urgent {
            &mut self.foreground
        } else {
            &mut self.background
        };
        if full || lane.queue_of(&waiting.asker) >= limits.waiting_per_asker {
            return Err(waiting);
        }
        lane.push(waiting);
        Ok(())
    }

    /// Takes a place from the longest queue for somebody whose own is shorter by two at least, so that
    /// nobody does the same to him next.
    fn make_room(&mut self, asker: &Asker) -> bool {
        let own = self.foreground.queue_of(asker) + self.background.queue_of(asker);
        let lanes = [&mut self.background, &mut self.foreground];
        let longest = lanes.into_iter().max_by_key(|lane| lane.longest().1);
        longest.is_some_and(|lane| match lane.longest() {
            (Some(of), length) if length > own + 1 => {
                let of = of.clone();
                lane.drop_last(&of);
                true
            }
            _ => false,
        })
    }

    /// Whose turn it is at `now`. Those that are not `alive` any more are passed over.
    pub fn next(&mut self, now: Duration, alive: impl Fn(&W) -> bool) -> Turn<W> {
        for lane in [&mut self.foreground, &mut self.background] {
            lane.forget(&alive);
        }
        if self.waiting() == 0 || self.running_total >= self.limits.concurrency {
            return Turn::Idle;
        }
        let ready = self.pace.ready_at(self.limits.rate).max(self.paused_until);
        if ready > now {
            return Turn::Later(ready);
        }
        self.paused_identities.retain(|_, until| *until > now);
        let room = Room {
            running: &self.running,
            troubled: &self.troubled,
            paused: &self.paused_identities,
            limits: &self.limits,
        };
        let next = self
            .foreground
            .pop(&room)
            .or_else(|| self.background.pop(&room));
        let Some(next) = next else {
            // Whoever only waits for a pause's end is woken by time, everybody else by a call's end.
            let resumed = self.paused_identities.values().min();
            return resumed.map_or(Turn::Idle, |until| Turn::Later(*until));
        };
        self.pace.take(self.limits.rate, now);
        *self.running.entry(next.applicant).or_default() += 1;
        self.running_total += 1;
        Turn::Go(next)
    }

    /// A running call ended, well or not.
    pub fn end(&mut self, applicant: Applicant, well: bool) {
        self.running_total = self.running_total.saturating_sub(1);
        if let Some(running) = self.running.get_mut(&applicant) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(&applicant);
            }
        }
        if well {
            self.troubled.remove(&applicant);
        } else if self.troubled.len() < Self::REMEMBERED {
            self.troubled.insert(applicant);
        }
    }

    /// Nothing begins before then (monotonic).
    pub fn pause(&mut self, until: Duration) {
        self.paused_until = self.paused_until.max(until);
    }

    /// Nothing begins for this identity before then (monotonic).
    pub fn pause_identity(&mut self, applicant: Applicant, until: Duration) {
        let known = self.paused_identities.len();
        if known < Self::REMEMBERED || self.paused_identities.contains_key(&applicant) {
            let paused = self.paused_identities.entry(applicant).or_default();
            *paused = until.max(*paused);
        }
    }

    /// How long nothing may begin for this identity yet.
    #[must_use]
    pub fn paused(&self, applicant: Applicant, now: Duration) -> Duration {
        let own = self.paused_identities.get(&applicant);
        let until = own.map_or(self.paused_until, |own| self.paused_until.max(*own));
        until.saturating_sub(now)
    }

    /// How many pauses there are: everything's counts as one, each identity's as one.
    #[must_use]
    pub fn pauses(&self, now: Duration) -> usize {
        let all = usize::from(self.paused_until > now);
        let own = self.paused_identities.values();
        all + own.filter(|until| **until > now).count()
    }

    /// Other limits from now on.
    pub const fn limit(&mut self, limits: TurnLimits) {
        self.limits = limits;
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.foreground.len() + self.background.len()
    }
}

/// Which identities may have another call running.
struct Room<'a> {
    running: &'a HashMap<Applicant, usize>,
    troubled: &'a HashSet<Applicant>,
    paused: &'a HashMap<Applicant, Duration>,
    limits: &'a TurnLimits,
}

impl Room<'_> {
    fn has(&self, applicant: Applicant) -> bool {
        if self.paused.contains_key(&applicant) {
            return false;
        }
        let running = self.running.get(&applicant).copied().unwrap_or_default();
        if !self.troubled.contains(&applicant) {
            return running < self.limits.per_identity;
        }
        let troubled: usize = self
            .running
            .iter()
            .filter(|(id, _)| self.troubled.contains(id))
            .map(|(_, count)| count)
            .sum();
        running == 0 && troubled < self.limits.concurrency.div_ceil(2)
    }
}

impl<W> Lane<W> {
    fn len(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum()
    }

    fn queue_of(&self, asker: &Asker) -> usize {
        self.queues.get(asker).map_or(0, VecDeque::len)
    }

    /// Who has the longest queue, and its length.
    fn longest(&self) -> (Option<&Asker>, usize) {
        let lengths = self
            .queues
            .iter()
            .map(|(asker, queue)| (asker, queue.len()));
        let longest = lengths.max_by_key(|(_, length)| *length);
        longest.map_or((None, 0), |(asker, length)| (Some(asker), length))
    }

    /// The last one of this asker's queue, which has more, goes.
    fn drop_last(&mut self, asker: &Asker) {
        if let Some(queue) = self.queues.get_mut(asker).filter(|queue| queue.len() > 1) {
            queue.pop_back();
        }
    }

    fn push(&mut self, waiting: Waiting<W>) {
        let queue = self.queues.entry(waiting.asker.clone()).or_default();
        if queue.is_empty() {
            self.ring.push_back(waiting.asker.clone());
        }
        queue.push_back(waiting);
    }

    /// The first asker in turn with a call that has room; that asker goes to the end of the ring.
    fn pop(&mut self, room: &Room<'_>) -> Option<Waiting<W>> {
        for at in 0..self.ring.len() {
            let queue = self.queues.get_mut(self.ring.get(at)?)?;
            let Some(fit) = queue.iter().position(|waiting| room.has(waiting.applicant)) else {
                continue;
            };
            let next = queue.remove(fit)?;
            let rest = !queue.is_empty();
            let asker = self.ring.remove(at)?;
            if rest {
                self.ring.push_back(asker);
            } else {
                self.queues.remove(&asker);
            }
            return Some(next);
        }
        None
    }

    fn forget(&mut self, alive: &impl Fn(&W) -> bool) {
        let mut emptied = false;
        self.queues.retain(|_, queue| {
            queue.retain(|waiting| alive(&waiting.waker));
            emptied |= queue.is_empty();
            !queue.is_empty()
        });
        if emptied {
            self.ring.retain(|asker| self.queues.contains_key(asker));
        }
    }
}

#[cfg(test)]
mod tests;
