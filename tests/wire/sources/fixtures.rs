//! What a test leans on is itself tried: a stand-in that behaves unlike the real one proves nothing.

use std::time::Duration;

use futures_util::TryStreamExt;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Api;
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};

use super::apiserver::{ApiServer, Call, Mood};
use super::certificates;

#[tokio::test]
async fn secrets_are_read_and_watched_by_name_only() {
    let api = ApiServer::start().await;
    let secrets: Api<Secret> = Api::namespaced(api.cluster().await.client, "shop");
    let missing = secrets.get("app").await.unwrap_err();
    assert!(matches!(missing, kube::Error::Api(status) if status.code == 404));
    api.secret("shop", "app", &[("clientSecret", b"one")]);
    let found = secrets.get("app").await.unwrap();
    assert_eq!(found.data.unwrap()["clientSecret"].0, b"one");
    let version = found.metadata.resource_version.unwrap();
    let listed = secrets.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(listed, kube::Error::Api(status) if status.code == 403));
    let params = WatchParams::default().fields("metadata.name=app");
    let watched = secrets.watch(&params, &version).await.unwrap();
    let mut watched = std::pin::pin!(watched);
    api.secret("shop", "other", &[("clientSecret", b"other")]);
    api.secret("shop", "app", &[("clientSecret", b"two")]);
    let next = tokio::time::timeout(Duration::from_secs(10), watched.try_next());
    match next.await.unwrap().unwrap().unwrap() {
        WatchEvent::Modified(secret) => assert_eq!(secret.data.unwrap()["clientSecret"].0, b"two"),
        other => panic!("{other:?}"),
    }
    api.mood(Call::Secrets, Mood::Refuses(403));
    let refused = secrets.get("app").await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 403));
}

#[tokio::test]
async fn a_service_accounts_token_is_bound_and_verifiable() {
    let api = ApiServer::start().await;
    let accounts: Api<ServiceAccount> = Api::namespaced(api.cluster().await.client, "shop");
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec!["api://AzureADTokenExchange".to_owned()],
            bound_object_ref: Some(BoundObjectReference {
                name: Some("pod-1".to_owned()),
                uid: Some("uid-1".to_owned()),
                ..BoundObjectReference::default()
            }),
            expiration_seconds: Some(3600),
        },
        ..TokenRequest::default()
    };
    let params = PostParams::default();
    let given = accounts.create_token_request("app", &params, &request);
    let token = given.await.unwrap().status.unwrap().token;
    assert_eq!(api.tokens(), [token]);
    api.pod_is_gone("pod-1");
    let refused = accounts.create_token_request("app", &params, &request);
    let refused = refused.await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 404));
}

#[test]
fn the_pairs_are_what_their_names_say() {
    let pair = certificates::rsa("app");
    assert!(pair.key.starts_with("-----BEGIN PRIVATE KEY-----"));
    let locked = certificates::encrypted(&pair.key, "pw");
    assert!(locked.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    assert!(certificates::pkcs12(&pair, "pw").len() > 1000);
    let (chained, root) = certificates::chained("app");
    assert!(chained.certificate.ends_with(&root));
}
