//! Passing a request on to a service of the link as it stands, and its answer back.
//!
//! In: a request's head and body. Out: the whole answer, or why there is none. Blocks on the network
//! for at most the given limit. What is passed on is method, path, query, headers and body; only what
//! belongs to one connection (RFC 9110, 7.6.1) stays behind. Nothing is looked at, nothing retried.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::http::request::Parts;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::http::{HttpError, Reply, chain, whole};
use super::imds::NotAnEndpoint;
use super::marked::{Marked, OwnSockets};

/// The most that a TCP connect may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// An unused connection is closed after this long.
const IDLE_LIMIT: Duration = Duration::from_secs(5);

/// Headers of one connection, beside those that `Connection` names.
const OF_A_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

/// Passes requests on to one endpoint. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Relay {
    client: Client<Marked, Full<Bytes>>,
    endpoint: Uri,
}

impl Relay {
    /// To `http://ADDRESS[:PORT]`.
    pub fn new(endpoint: &str) -> Result<Self, NotAnEndpoint> {
        Self::marked(endpoint, None)
    }

    /// The same, whose sockets the rules of the node know.
    pub fn marked(endpoint: &str, own: Option<OwnSockets>) -> Result<Self, NotAnEndpoint> {
        let bad = || NotAnEndpoint(endpoint.chars().take(128).collect());
        let endpoint: Uri = endpoint.parse().map_err(|_| bad())?;
        if endpoint.scheme_str() != Some("http") || endpoint.authority().is_none() {
            return Err(bad());
        }
        let connector = Marked::new(own, CONNECT_LIMIT);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .build(connector);
        Ok(Self { client, endpoint })
    }

    /// Passes a request on and reads the whole answer, all within `limit`.
    pub async fn pass(
        &self,
        head: &Parts,
        body: Bytes,
        limit: Duration,
    ) -> Result<Reply, HttpError> {
        match tokio::time::timeout(limit, self.exchange(head, body)).await {
            Ok(result) => result,
            Err(_) => Err(HttpError::Timeout(limit)),
        }
    }

    async fn exchange(&self, head: &Parts, body: Bytes) -> Result<Reply, HttpError> {
        let broken = |error: &dyn std::error::Error| HttpError::Broken(chain(error));
        let mut target = self.endpoint.clone().into_parts();
        target.path_and_query = head.uri.path_and_query().cloned();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = Uri::from_parts(target).map_err(|error| broken(&error))?;
        *request.headers_mut() = end_to_end(&head.headers);
        let answer = self.client.request(request).await;
        let mut reply = whole(answer.map_err(|error| broken(&error))?).await?;
        reply.headers = end_to_end(&reply.headers);
        Ok(reply)
    }
}

/// The headers that are not about one connection only.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let stays = |name: &HeaderName| {
        OF_A_CONNECTION.contains(name) || named.iter().any(|other| other == name.as_str())
    };
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| !stays(name)) {
        kept.append(name.clone(), value.clone());
    }
    kept
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with `answer`, and gives back what it read.
    async fn once(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
            while !read.ends_with(b"ping") {
                let count = stream.read(&mut buffer).await.unwrap();
                assert!(count > 0, "cut off");
                read.extend(&buffer[..count]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(read).unwrap()
        });
        (endpoint, served)
    }

    #[tokio::test]
    async fn a_request_and_its_answer_pass_unchanged() {
        let (endpoint, served) = once(
            "HTTP/1.1 418 Odd\r\ncontent-type: text/odd\r\nretry-after: 3\r\nkeep-alive: timeout=1\r\ncontent-length: 4\r\n\r\npong",
        )
        .await;
        let request = Request::builder()
            .method("POST")
            .uri("//metadata/Identity%2f?resource=a%20b&x=%41")
            .header("host", "169.254.169.254")
            .header("metadata", "true")
            .header("x-twice", "1")
            .header("x-twice", "2")
            .header("connection", "close, X-Hop")
            .header("x-hop", "1")
            .header("transfer-encoding", "chunked");
        let head = request.body(()).unwrap().into_parts().0;
        let relay = Relay::new(&endpoint).unwrap();
        let limit = Duration::from_secs(20);
        let reply = relay
            .pass(&head, Bytes::from_static(b"ping"), limit)
            .await
            .unwrap();
        assert_eq!(
            (reply.status.as_u16(), &reply.body[..]),
            (418, &b"pong"[..])
        );
        assert_eq!(reply.headers["content-type"], "text/odd");
        assert_eq!(reply.headers["retry-after"], "3");
        assert!(!reply.headers.contains_key("keep-alive"));
        let read = served.await.unwrap();
        assert!(
            read.starts_with("POST //metadata/Identity%2f?resource=a%20b&x=%41 HTTP/1.1\r\n"),
            "{read}"
        );
        for line in [
            "host: 169.254.169.254\r\n",
            "metadata: true\r\n",
            "x-twice: 1\r\n",
            "x-twice: 2\r\n",
        ] {
            assert!(read.contains(line), "{line} {read}");
        }
        assert!(
            !read.contains("x-hop") && !read.contains("chunked"),
            "{read}"
        );
    }
}
