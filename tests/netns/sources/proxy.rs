//! An HTTP proxy in the lab's cloud, that knows `CONNECT` alone.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use anyhow::Result;
use lanyard::lab::{Get, Lab, until};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::WAIT;

/// Where it listens.
pub const PROXY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 240, 1, 1), 3128);

/// A proxy in the cloud; the first lines of what it was asked.
pub async fn proxy(lab: &Lab) -> Result<Arc<parking_lot::Mutex<Vec<String>>>> {
    let asked = Arc::<parking_lot::Mutex<Vec<String>>>::default();
    let seen = asked.clone();
    tokio::spawn(lab.cloud().run(async move || {
        let listener = TcpListener::bind(PROXY).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(tunnel(stream, seen.clone()));
        }
        #[allow(unreachable_code, reason = "the work's type")]
        Ok::<(), std::io::Error>(())
    }));
    let node = lab.node().namespace().clone();
    until(WAIT, "the proxy", async || {
        node.get(PROXY, &Get::new("/")).await.is_ok()
    })
    .await?;
    asked.lock().clear();
    Ok(asked)
}

async fn tunnel(stream: TcpStream, asked: Arc<parking_lot::Mutex<Vec<String>>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    stream.read_line(&mut first).await.ok()?;
    asked.lock().push(first.trim_end().to_owned());
    let mut line = String::from("-");
    while !line.trim_end().is_empty() {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
    }
    let Some(rest) = first.strip_prefix("CONNECT ") else {
        let refused = b"HTTP/1.1 405 No\r\ncontent-length: 0\r\n\r\n";
        return stream.write_all(refused).await.ok();
    };
    let mut onward = TcpStream::connect(rest.split(' ').next()?).await.ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
    copy_bidirectional(&mut stream, &mut onward)
        .await
        .ok()
        .map(drop)
}
