//! Answers what `https://api.myip.com` answers: the caller's own address, as JSON.
//!
//! `MYIP_LISTEN` is the address to listen on; 127.0.0.1:8080 unless it is set.

mod allocator;

use axum::{extract::ConnectInfo, routing::get, Json, Router};
use serde::Serialize;
use std::{env, error::Error, net::SocketAddr};
use tokio::net::TcpListener;
use tokio::signal::unix::{signal, SignalKind};

#[derive(Serialize)]
struct ApiRes {
    ip: String,
    country: &'static str,
    cc: &'static str,
}

async fn my_ip(ConnectInfo(caller): ConnectInfo<SocketAddr>) -> Json<ApiRes> {
    Json(ApiRes {
        ip: caller.ip().to_string(),
        country: "Unknown",
        cc: "XX",
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::var("MYIP_LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);

    // As PID 1 a process ignores SIGTERM unless it asks for it, and `docker stop` would take ten seconds.
    let mut terminated = signal(SignalKind::terminate())?;
    let app = Router::new().route("/", get(my_ip));
    axum::serve(
        listener,
        app.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .with_graceful_shutdown(async move {
        terminated.recv().await;
    })
    .await?;
    Ok(())
}
