//! The one way into the cluster from the machine: a listening socket that was opened outside.
//!
//! In: standard input, a TCP listener of the machine's loopback. Out: each connection copied to the
//! API server inside. Blocks on threads of its own. Invariant: the machine's own network gets
//! nothing but this listener, and the listener ends with the cluster.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::Result;

const TARGET_LIMIT: Duration = Duration::from_secs(5);

/// Starts to take connections of the listener in standard input and to copy them to `target`.
pub fn start(target: &str) -> Result<()> {
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let target = target.parse()?;
    std::thread::spawn(move || {
        for outside in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // Closed at once: to the caller the API server is away.
                if let Ok(inside) = TcpStream::connect_timeout(&target, TARGET_LIMIT) {
                    let _ = join(&outside, &inside);
                }
            });
        }
    });
    Ok(())
}

fn join(outside: &TcpStream, inside: &TcpStream) -> io::Result<()> {
    for stream in [outside, inside] {
        stream.set_nodelay(true)?;
    }
    let (mut from, mut to) = (outside.try_clone()?, inside.try_clone()?);
    let there = std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (inside, outside);
    let _ = io::copy(&mut from, &mut to);
    outside.shutdown(Shutdown::Both)?;
    let _ = there.join();
    Ok(())
}
