//! The wire server sees whoever reaches it.

use lanyard::sim::journal::Listener;

use crate::client::get;
use crate::world::start;

#[tokio::test]
async fn any_request_is_answered_and_entered() {
    let simulator = start("").await;
    let address = simulator.addresses().wire[0];
    assert!(
        get(address, "/?comp=versions")
            .await
            .text()
            .contains("MUST-NEVER-LEAK")
    );
    let entry = &simulator.journal()[0];
    assert_eq!((entry.listener, entry.status), (Listener::Wire, Some(200)));
    assert_eq!(entry.source_ip().unwrap().to_string(), "127.0.0.1");
}

#[tokio::test]
async fn a_connection_without_a_request_is_counted() {
    let simulator = start("").await;
    drop(
        tokio::net::TcpStream::connect(simulator.addresses().wire[0])
            .await
            .unwrap(),
    );
    drop(
        tokio::net::TcpStream::connect(simulator.addresses().imds.unwrap())
            .await
            .unwrap(),
    );
    let seen = async {
        loop {
            let stats = simulator.stats();
            if (stats.wire_connections, stats.imds_connections) == (1, 1) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), seen)
        .await
        .expect("both counted");
    assert!(simulator.journal().is_empty());
}
