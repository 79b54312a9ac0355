//! Calls of an admin client while no connection can be made.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keelson_client::{AdminClient, Options};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

#[tokio::test]
async fn calls_that_waited_share_one_failure_to_connect() {
    const CALLS: usize = 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    let client = AdminClient::new(&address.to_string(), Options::default()).unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let client = client.clone();
        calls.spawn(async move { client.metadata(None).await.unwrap_err() });
    }
    for error in calls.join_all().await {
        assert!(error.is_unreachable(), "{error}");
    }
    assert_eq!(tries.load(Ordering::SeqCst), 1, "one try for all of them");
    // Who comes later is a new try.
    client.metadata(None).await.unwrap_err();
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}
