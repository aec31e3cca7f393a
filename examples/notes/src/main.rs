//! Notes in a PostgreSQL database. `notes migrate` brings the database's tables up to date; `notes` serves.

use std::error::Error;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use config::{Config, Environment, File};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::signal::unix::{signal, SignalKind};

/// The settings of `configuration/*.yaml`, over which those of the environment count, such as `NOTES_PORT`.
#[derive(Deserialize)]
struct Settings {
    host: String,
    port: u16,
    database_url: String,
    connections: u32,
}

#[derive(Deserialize)]
struct NewNote {
    text: String,
}

#[derive(Serialize)]
struct Note {
    id: i64,
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = settings()?;
    let options = PgPoolOptions::new().max_connections(settings.connections);
    let pool = options.connect(&settings.database_url).await?;
    match std::env::args().nth(1).as_deref() {
        Some("migrate") => Ok(sqlx::migrate!().run(&pool).await?),
        Some(other) => Err(format!("unknown command {other}; known is migrate").into()),
        None => serve(&settings, pool).await,
    }
}

fn settings() -> Result<Settings, config::ConfigError> {
    let stage = std::env::var("NOTES_STAGE").unwrap_or("local".into());
    Config::builder()
        .add_source(File::with_name("configuration/default").required(false))
        .add_source(File::with_name(&format!("configuration/{stage}")).required(false))
        .add_source(Environment::with_prefix("NOTES").separator("__").prefix_separator("_").try_parsing(true))
        .build()?
        .try_deserialize()
}

async fn serve(settings: &Settings, pool: PgPool) -> Result<(), Box<dyn Error>> {
    let routes = Router::new()
        .route("/health", get(health))
        .route("/notes", get(list).post(insert))
        .with_state(pool);
    let listener = tokio::net::TcpListener::bind((settings.host.as_str(), settings.port)).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    let mut ended = signal(SignalKind::terminate())?;
    let ending = async move { ended.recv().await; };
    Ok(axum::serve(listener, routes).with_graceful_shutdown(ending).await?)
}

async fn health(State(pool): State<PgPool>) -> Result<&'static str, (StatusCode, String)> {
    sqlx::query_scalar!("SELECT 1").fetch_one(&pool).await.map_err(failed)?;
    Ok("ok\n")
}

async fn list(State(pool): State<PgPool>) -> Result<Json<Vec<Note>>, (StatusCode, String)> {
    let query = sqlx::query_as!(Note, "SELECT id, text FROM notes ORDER BY id LIMIT 100");
    query.fetch_all(&pool).await.map(Json).map_err(failed)
}

async fn insert(State(pool): State<PgPool>, Json(new): Json<NewNote>) -> Result<Json<Note>, (StatusCode, String)> {
    let query = sqlx::query_as!(Note, "INSERT INTO notes (text) VALUES ($1) RETURNING id, text", new.text);
    query.fetch_one(&pool).await.map(Json).map_err(failed)
}

fn failed(error: sqlx::Error) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
}
