//! The admin server over the wire.

use lanyard::serve::{Admin, ConnMetrics, Drain, LogLevel, ready::Readiness, serve};
use prometheus::{IntCounter, Registry};
use std::net::SocketAddr;
use tokio::net::TcpListener;

use crate::harness::{Answered, exchange};

struct Fixture {
    admin: Admin,
    address: SocketAddr,
}

async fn fixture() -> Fixture {
    let admin = Admin {
        registry: Registry::new(),
        readiness: Readiness::default(),
        log_level: LogLevel::detached(),
    };
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let metrics = ConnMetrics::new(&admin.registry, "admin").unwrap();
    tokio::spawn(serve(
        listener,
        Admin::limits(),
        admin.clone(),
        Drain::new(),
        metrics,
    ));
    Fixture {
        admin,
        address: SocketAddr::from(([127, 0, 0, 1], port)),
    }
}

impl Fixture {
    async fn ask(&self, method: &str, path: &str, body: &str) -> Answered {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        exchange(self.address, request.as_bytes()).await
    }

    async fn get(&self, path: &str) -> String {
        self.ask("GET", path, "").await.0
    }
}

#[tokio::test]
async fn ready_is_200_and_not_ready_names_what_is_missing() {
    let fixture = fixture().await;
    let rules = fixture.admin.readiness.latch("rules");
    rules.not_ready("iptables is locked");
    let answer = fixture.get("/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\nrules: iptables is locked\n"),
        "{answer}"
    );
    assert!(fixture.get("/livez").await.starts_with("HTTP/1.1 200 "));
    rules.ready();
    let answer = fixture.get("/readyz").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nready\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn metrics_are_the_registrys() {
    let fixture = fixture().await;
    let counter = IntCounter::new("lanyard_test_total", "A test.").unwrap();
    fixture
        .admin
        .registry
        .register(Box::new(counter.clone()))
        .unwrap();
    counter.inc_by(7);
    let answer = fixture.get("/metrics").await;
    assert!(
        answer.contains("content-type: text/plain; version=0.0.4"),
        "{answer}"
    );
    assert!(answer.contains("\nlanyard_test_total 7\n"), "{answer}");
    let accepted = r#"lanyard_connections_accepted_total{listener="admin"} 1"#;
    assert!(answer.contains(accepted), "{answer}");
}

#[tokio::test]
async fn the_log_level_is_changed_from_loopback() {
    let fixture = fixture().await;
    let answer = fixture
        .ask("PUT", "/log-level", "warn,lanyard=debug\n")
        .await
        .0;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("lanyard=debug"),
        "{answer}"
    );
    assert!(fixture.get("/log-level").await.contains("lanyard=debug"));

    let answer = fixture.ask("PUT", "/log-level", "lanyard=loud").await.0;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("lanyard=loud"),
        "{answer}"
    );
    let long = format!("lanyard={}", "x".repeat(2000));
    assert!(
        fixture
            .ask("PUT", "/log-level", &long)
            .await
            .0
            .starts_with("HTTP/1.1 400 ")
    );
    assert!(fixture.get("/log-level").await.contains("lanyard=debug"));
}

#[tokio::test]
async fn what_there_is_not_is_404_and_what_may_not_be_done_is_405() {
    let fixture = fixture().await;
    assert!(fixture.get("/").await.contains("/metrics"));
    assert!(fixture.get("/debug/env").await.starts_with("HTTP/1.1 404 "));
    for (method, path) in [
        ("POST", "/metrics"),
        ("DELETE", "/log-level"),
        ("PUT", "/readyz"),
    ] {
        let answer = fixture.ask(method, path, "").await.0;
        assert!(
            answer.starts_with("HTTP/1.1 405 "),
            "{method} {path}: {answer}"
        );
    }
    assert!(
        exchange(fixture.address, b"rubbish\r\n\r\n")
            .await
            .0
            .starts_with("HTTP/1.1 400 ")
    );
}
