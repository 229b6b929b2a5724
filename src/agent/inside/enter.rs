//! Into a pod's network namespace and out again: a thread of its own, which ends.
//!
//! In: a namespace, work. Out: what the work gave; sockets that it opened live in the namespace. Holds that no thread
//! that does anything else is ever in a pod's namespace, that few are at a time, and that a pod whose thread does not end
//! keeps no other pod waiting for long: such a thread cannot be ended, so it is counted, and its pod is not entered again
//! before it has ended by itself.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::namespace::{Namespace, Number};
use crate::serve::series::value;

/// Bounds on entering. With every place taken by such as do not end, the next waits for three deadlines.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Threads at once.
    places: usize,
    /// Threads beside them that did not end in time; further ones keep their places.
    spare: usize,
    /// How long one waits for a place.
    wait: Duration,
    /// How long work may take. It takes milliseconds.
    work: Duration,
}

const BOUNDS: Bounds = Bounds {
    places: 8,
    spare: 16,
    wait: Duration::from_secs(10),
    work: Duration::from_secs(3),
};

/// The way in. Clones are the same.
#[derive(Clone, Debug)]
pub struct Door(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    places: Arc<Semaphore>,
    /// The namespace of each thread that did not end in time: one may have two, one for each face.
    stuck: Mutex<Vec<Number>>,
    /// How many.
    gauge: IntGauge,
}

impl Door {
    /// Nobody is inside. `stuck` tells of threads that did not end in time, and still have not.
    pub fn new(stuck: IntGauge) -> Self {
        Self::with(BOUNDS, stuck)
    }

    fn with(bounds: Bounds, gauge: IntGauge) -> Self {
        Self(Arc::new(Shared {
            bounds,
            places: Arc::new(Semaphore::new(bounds.places)),
            stuck: Mutex::default(),
            gauge,
        }))
    }

    /// Does `work` inside. What it gave too late is dropped, and `late` is done with it inside.
    pub async fn enter<T, W, L>(&self, namespace: Namespace, work: W, late: L) -> io::Result<T>
    where
        T: Send + 'static,
        W: AsyncFnOnce() -> io::Result<T> + Send + 'static,
        L: AsyncFnOnce() + Send + 'static,
    {
        let number = namespace.number();
        let work = move || {
            setns(namespace.into_file(), CloneFlags::CLONE_NEWNET)?;
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build()?;
            let given = runtime.block_on(work())?;
            Ok((given, move || runtime.block_on(late())))
        };
        self.thread(number, work).await
    }

    /// Does `work` on a thread of its own. What it gives beside is done where nobody waits for it any more.
    async fn thread<T, W, L>(&self, number: Number, work: W) -> io::Result<T>
    where
        T: Send + 'static,
        W: FnOnce() -> io::Result<(T, L)> + Send + 'static,
        L: FnOnce(),
    {
        let Shared { bounds, places, .. } = &*self.0;
        if self.0.stuck.lock().contains(&number) {
            return Err(timed_out("a thread that entered before has not ended yet"));
        }
        let place = timeout(bounds.wait, places.clone().acquire_owned()).await;
        let place = place.map_err(|_| timed_out("others took too long: no turn came"))?;
        let stay = Stay::new(self.0.clone(), number, place.map_err(io::Error::other)?);
        let (sender, receiver) = oneshot::channel();
        let thread = std::thread::Builder::new().name("inside".to_owned());
        let held = Held(stay.clone());
        thread.spawn(move || {
            let _held = held;
            match work() {
                Ok((given, late)) => {
                    if sender.send(Ok(given)).is_err() {
                        late();
                    }
                }
                // Where nobody waits any more the answer has no reader.
                Err(error) => drop(sender.send(Err(error))),
            }
        })?;
        match timeout(bounds.work, receiver).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(io::Error::other("the thread inside ended badly")),
            Err(_) => {
                stay.give_up();
                Err(timed_out("it took too long"))
            }
        }
    }
}

fn timed_out(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

/// A thread's place, from its start to its end.
#[derive(Debug)]
struct Stay {
    shared: Arc<Shared>,
    number: Number,
    now: Mutex<Now>,
}

#[derive(Debug)]
enum Now {
    Runs(OwnedSemaphorePermit),
    /// Longer than it may; with its place where too many others do, too.
    IsStuck {
        _place: Option<OwnedSemaphorePermit>,
    },
    Ended,
}

impl Stay {
    fn new(shared: Arc<Shared>, number: Number, place: OwnedSemaphorePermit) -> Arc<Self> {
        let now = Mutex::new(Now::Runs(place));
        Arc::new(Self {
            shared,
            number,
            now,
        })
    }

    /// Nobody waits for it any more: its place is another's, unless too many are stuck.
    fn give_up(&self) {
        let mut now = self.now.lock();
        let Now::Runs(place) = std::mem::replace(&mut *now, Now::Ended) else {
            return;
        };
        let mut stuck = self.shared.stuck.lock();
        stuck.push(self.number);
        self.shared.gauge.set(value(stuck.len()));
        let keeps = stuck.len() > self.shared.bounds.spare;
        *now = Now::IsStuck {
            _place: keeps.then_some(place),
        };
    }
}

/// Held by the thread itself; also a panic ends it.
struct Held(Arc<Stay>);

impl Drop for Held {
    fn drop(&mut self) {
        let Stay {
            shared,
            number,
            now,
        } = &*self.0;
        let before = std::mem::replace(&mut *now.lock(), Now::Ended);
        if let Now::IsStuck { .. } = before {
            let mut stuck = shared.stuck.lock();
            let at = stuck.iter().position(|one| one == number);
            at.map(|at| stuck.swap_remove(at));
            shared.gauge.set(value(stuck.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn door(places: usize, spare: usize, wait: Duration, work: Duration) -> Door {
        let bounds = Bounds {
            places,
            spare,
            wait,
            work,
        };
        Door::with(bounds, IntGauge::new("stuck", "stuck").unwrap())
    }

    fn number(inode: u64) -> Number {
        Number::of(0, inode)
    }

    /// Enters a pod whose kernel call ends when the test says so.
    async fn stick(door: &Door, inode: u64, end: Receiver<()>) -> io::ErrorKind {
        let stuck = door.thread(number(inode), move || {
            let _ = end.recv();
            Ok(((), || {}))
        });
        stuck.await.unwrap_err().kind()
    }

    async fn visit(door: &Door, inode: u64) -> io::Result<u64> {
        door.thread(number(inode), move || Ok((inode, || {}))).await
    }

    async fn until(what: impl Fn() -> bool) {
        let reached = async {
            while !what() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, reached).await.unwrap();
    }

    #[tokio::test]
    async fn pods_that_are_stuck_keep_no_other_waiting_and_are_not_entered_twice() {
        let door = door(2, 4, LONG, Duration::from_millis(200));
        let mut ends: Vec<Sender<()>> = Vec::new();
        // Twice as many as there are places.
        for inode in 0..4 {
            let (end, ended) = channel();
            ends.push(end);
            assert_eq!(stick(&door, inode, ended).await, io::ErrorKind::TimedOut);
        }
        assert_eq!(door.0.gauge.get(), 4);
        assert_eq!(door.0.places.available_permits(), 2);
        assert_eq!(visit(&door, 100).await.unwrap(), 100);
        let entered = Arc::new(AtomicUsize::new(0));
        let again = {
            let entered = entered.clone();
            door.thread(number(1), move || {
                entered.fetch_add(1, SeqCst);
                Ok(((), || {}))
            })
        };
        assert_eq!(again.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(entered.load(SeqCst), 0, "a second thread in a stuck pod");
        drop(ends);
        until(|| door.0.gauge.get() == 0).await;
        assert_eq!(visit(&door, 1).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_pod_with_two_stuck_threads_is_entered_when_both_have_ended() {
        let door = door(4, 4, LONG, Duration::from_millis(200));
        let ((first, one), (second, other)) = (channel(), channel());
        // As for its two faces, which begin together.
        let both = tokio::join!(stick(&door, 1, one), stick(&door, 1, other));
        assert_eq!(both, (io::ErrorKind::TimedOut, io::ErrorKind::TimedOut));
        drop(first);
        until(|| door.0.gauge.get() == 1).await;
        assert!(visit(&door, 1).await.is_err());
        drop(second);
        until(|| door.0.gauge.get() == 0).await;
        assert_eq!(visit(&door, 1).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn there_are_never_more_threads_than_places_and_who_waits_is_told() {
        let door = door(1, 1, Duration::from_millis(200), Duration::from_millis(200));
        let (first, ended) = channel();
        stick(&door, 1, ended).await;
        let (second, ended) = channel();
        stick(&door, 2, ended).await;
        // The spare place is taken: the second keeps its own.
        assert_eq!(door.0.places.available_permits(), 0);
        let error = visit(&door, 3).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("no turn"), "{error}");
        // The first one's end frees no place: it had none any more.
        drop(first);
        until(|| door.0.gauge.get() == 1).await;
        assert_eq!(door.0.places.available_permits(), 0);
        drop(second);
        until(|| door.0.places.available_permits() == 1).await;
        assert_eq!(visit(&door, 3).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn what_comes_too_late_is_undone_and_what_ends_badly_is_no_longer_held() {
        let door = door(1, 0, LONG, Duration::from_millis(200));
        let undone = Arc::new(AtomicUsize::new(0));
        let (end, ended) = channel::<()>();
        let late = {
            let undone = undone.clone();
            door.thread(number(1), move || {
                let _ = ended.recv();
                let undo = move || {
                    undone.fetch_add(1, SeqCst);
                };
                Ok(((), undo))
            })
        };
        assert!(late.await.is_err());
        drop(end);
        until(|| undone.load(SeqCst) == 1).await;
        until(|| door.0.places.available_permits() == 1).await;
        let bad = door.thread(number(2), || -> io::Result<((), fn())> {
            std::panic::resume_unwind(Box::new("on purpose"))
        });
        assert!(bad.await.is_err());
        until(|| door.0.places.available_permits() == 1).await;
        assert!(door.0.stuck.lock().is_empty());
    }
}
