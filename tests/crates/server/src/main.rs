//! A server that compiles in seconds: of the standard library alone, a thread for each connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let address = std::env::var("ANSWERS_ON").unwrap_or("127.0.0.1:0".into());
    let listener = TcpListener::bind(&address).unwrap_or_else(|error| panic!("{address}: {error}"));
    eprintln!("listening on {}", listener.local_addr().unwrap());
    for connection in listener.incoming().flatten() {
        std::thread::spawn(move || answer(connection));
    }
}

fn answer(mut connection: TcpStream) -> Option<()> {
    let mut lines = BufReader::new(connection.try_clone().ok()?).lines();
    loop {
        while !lines.next()?.ok()?.is_empty() {}
        connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n42\n").ok()?;
    }
}
