//! Answers what `https://api.myip.com` answers, the caller's own address as JSON, and two questions that cost more:
//!
//! - `GET /`: the article's JSON; next to no allocation.
//! - `POST /batch`: a JSON array of addresses, each told with its family, its kind and its name for reverse look-up, as
//!   a tree of JSON values; many small allocations.
//! - `GET /large`: a quarter of a mebibyte of text that grows as it is written; allocations past the small size classes.
//!
//! `MYIP_LISTEN` is the address to listen on, 127.0.0.1:8080 unless it is set; `MYIP_WORKERS` the number of worker
//! threads, one per CPU unless it is set. After `MYIP_DEADLINE_S` seconds, where that is set, the server ends by itself.

mod allocator;

use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{json, Value};
use std::fmt::Write;
use std::future::IntoFuture;
use std::net::{AddrParseError, IpAddr, SocketAddr};
use std::time::Duration;
use std::{env, error::Error, str::FromStr};
use tokio::net::TcpListener;
use tokio::signal::unix::{signal, SignalKind};

const LARGE_BYTES: usize = 256 << 10;

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

async fn batch(Json(asked): Json<Vec<String>>) -> Result<Json<Vec<Value>>, (StatusCode, String)> {
    let found: Result<Vec<Value>, AddrParseError> =
        asked.iter().map(|text| look_up(text)).collect();
    found
        .map(Json)
        .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}

async fn large() -> String {
    lines(LARGE_BYTES)
}

/// What is known of an address, as a tree of JSON values: what a service builds that passes on what others asked for.
fn look_up(text: &str) -> Result<Value, AddrParseError> {
    let ip: IpAddr = text.parse()?;
    let labels: Vec<String> = match ip {
        IpAddr::V4(v4) => v4.octets().iter().rev().map(u8::to_string).collect(),
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|o| [o & 15, o >> 4]);
            let digits = nibbles.filter_map(|nibble| char::from_digit(nibble.into(), 16));
            digits.map(String::from).collect()
        }
    };
    let (family, zone) = match ip {
        IpAddr::V4(_) => ("IPv4", "in-addr.arpa"),
        IpAddr::V6(_) => ("IPv6", "ip6.arpa"),
    };
    Ok(json!({
        "ip": ip.to_string(),
        "family": family,
        "kind": kind(ip),
        "reverse": format!("{}.{zone}", labels.join(".")),
        "labels": labels,
    }))
}

fn kind(ip: IpAddr) -> &'static str {
    match ip {
        _ if ip.is_loopback() => "loopback",
        _ if ip.is_unspecified() => "unspecified",
        _ if ip.is_multicast() => "multicast",
        IpAddr::V4(v4) if v4.is_private() => "private",
        IpAddr::V4(v4) if v4.is_documentation() => "documentation",
        _ => "other",
    }
}

/// Numbered lines, exactly `size` bytes of them.
fn lines(size: usize) -> String {
    let mut text = String::new();
    for number in 0.. {
        if text.len() >= size {
            break;
        }
        let _ = writeln!(
            text,
            "{number:08} the quick brown fox jumps over the lazy dog"
        );
    }
    text.truncate(size);
    text
}

async fn serve(address: String, deadline: Option<Duration>) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(&address)
        .await
        .map_err(|error| format!("{address}: {error}"))?;
    println!("listening on {}", listener.local_addr()?);

    // As PID 1 a process ignores SIGTERM unless it asks for it, and `docker stop` would take ten seconds.
    let mut terminated = signal(SignalKind::terminate())?;
    let app = Router::new()
        .route("/", get(my_ip))
        .route("/batch", post(batch))
        .route("/large", get(large))
        .into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, app).with_graceful_shutdown(async move {
        terminated.recv().await;
    });
    tokio::select! {
        served = served.into_future() => served?,
        () = pass(deadline) => return Err("MYIP_DEADLINE_S is over; ended by itself".into()),
    }
    Ok(())
}

/// Waits until a deadline is over, for ever where there is none.
async fn pass(deadline: Option<Duration>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline).await,
        None => std::future::pending().await,
    }
}

/// The number in an environment variable, where it is set.
fn number<T: FromStr<Err: std::fmt::Display>>(name: &str) -> Result<Option<T>, String> {
    match env::var(name) {
        Err(_) => Ok(None),
        Ok(text) => match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(format!("{name}={text}: {error}")),
        },
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = env::var("MYIP_LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".into());
    let deadline = number("MYIP_DEADLINE_S")?.map(Duration::from_secs);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = number("MYIP_WORKERS")? {
        if workers == 0 {
            return Err("MYIP_WORKERS=0: a server has one worker or more".into());
        }
        runtime.worker_threads(workers);
    }
    runtime
        .enable_all()
        .build()?
        .block_on(serve(address, deadline))
}

#[cfg(test)]
mod tests {
    use super::{lines, look_up, LARGE_BYTES};
    use serde_json::json;

    #[test]
    fn an_address_is_told_with_its_name_for_reverse_lookup() {
        let v4 = look_up("192.168.1.20").unwrap();
        assert_eq!(
            (&v4["family"], &v4["kind"]),
            (&json!("IPv4"), &json!("private"))
        );
        assert_eq!(v4["reverse"], "20.1.168.192.in-addr.arpa");
        let v6 = look_up("2001:db8::1").unwrap();
        assert_eq!(
            (&v6["family"], &v6["kind"]),
            (&json!("IPv6"), &json!("other"))
        );
        assert_eq!(
            v6["reverse"],
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        assert!(look_up("300.1.1.1").is_err());
    }

    #[test]
    fn the_large_response_has_its_size() {
        assert_eq!(lines(LARGE_BYTES).len(), LARGE_BYTES);
        assert!(lines(120)
            .starts_with("00000000 the quick brown fox jumps over the lazy dog\n00000001 "));
    }
}
