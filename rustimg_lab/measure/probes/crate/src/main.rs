//! What a cell is probed with: each call does one thing that a service may need of its image, prints what it found, and
//! ends with 0, or with 1 and the reason.

use rustls::pki_types::{pem::PemObject, CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::error::Error;
use std::ffi::{c_char, CStr, CString};
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{env, mem, thread};

#[cfg(all(feature = "jemalloc", not(feature = "mimalloc")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(all(feature = "mimalloc", not(feature = "jemalloc")))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome = Result<String, Box<dyn Error>>;

/// 2026-07-01 12:00:00 UTC, when Berlin is two hours ahead.
const SUMMER_NOON: i64 = 1_782_907_200;
const FRAME_BYTES: usize = 16 << 10;
const ORPHAN_LIVES: Duration = Duration::from_millis(50);
const REAPED_AFTER: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["fetch", address, roots] => fetch(address, roots),
        ["resolve", name] => resolve(name),
        ["time"] => time(),
        ["write", path] => write(Path::new(path)),
        ["writable"] => writable(),
        ["identity"] => identity(),
        ["stack", kib] => stack(kib),
        ["overflow"] => Ok(deep(usize::MAX).to_string()),
        ["panic"] => panics(black_box(&[0u8; 3]), black_box(7)),
        ["allocate", mib] => allocate(mib),
        ["zombies"] => zombies(),
        ["leave-orphan"] => leave_orphan(),
        ["wait"] => wait(),
        _ => Err(format!("no such probe: {arguments:?}").into()),
    };
    match outcome {
        Ok(found) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

/// Fetches `/` from the HTTPS server at `address`, trusting the roots that are compiled in (`bundled`), with those in
/// PROBE_EXTRA_CA (PEM text) beside them, or what the system has (`system`).
fn fetch(address: &str, roots: &str) -> Outcome {
    let mut store = RootCertStore::empty();
    if roots == "bundled" {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    } else {
        let found = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            return Err("the system has no CA bundle".into());
        }
    }
    let public = store.len();
    let extra = env::var("PROBE_EXTRA_CA").unwrap_or_default();
    for certificate in CertificateDer::pem_slice_iter(extra.as_bytes()) {
        store.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address)?);
    stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        // Python's server ends without a close_notify, as many do; what counts is whether it had answered.
        if answer.is_empty() {
            return Err(error.into());
        }
    }
    let status = String::from_utf8_lossy(&answer[..answer.len().min(15)]).into_owned();
    if !status.contains(" 200") {
        return Err(format!("answered with {status:?}").into());
    }
    Ok(format!("answered; {public} roots"))
}

/// The addresses of a name, as the C library's resolver has them.
fn resolve(name: &str) -> Outcome {
    let mut found: Vec<String> = (name, 0)
        .to_socket_addrs()?
        .map(|address| address.ip().to_string())
        .collect();
    found.sort();
    found.dedup();
    Ok(found.join(" "))
}

/// A fixed time as the C library has it in the zone that TZ names.
fn time() -> Outcome {
    // SAFETY: this program has one thread; what localtime gives lives until it is called again.
    unsafe {
        let Some(local) = libc::localtime(&SUMMER_NOON).as_ref() else {
            return Err("localtime gives none".into());
        };
        let zone = CStr::from_ptr(local.tm_zone).to_string_lossy();
        Ok(format!(
            "{:02}:{:02} {zone}, {} s ahead of UTC",
            local.tm_hour, local.tm_min, local.tm_gmtoff
        ))
    }
}

/// Writes a file, or to a file that is there; one that this has made is removed.
fn write(path: &Path) -> Outcome {
    let was_there = path.exists();
    File::create(path)?.write_all(b"probe")?;
    if !was_there {
        fs::remove_file(path)?;
    }
    Ok(format!("written: {}", path.display()))
}

/// Every folder and file that this user may write to, without the kernel's own file systems.
fn writable() -> Outcome {
    let mut found = Vec::new();
    let mut todo = vec![Path::new("/").to_path_buf()];
    while let Some(path) = todo.pop() {
        if ["/proc", "/sys", "/dev"]
            .iter()
            .any(|kernel| path == Path::new(kernel))
        {
            continue;
        }
        let Ok(facts) = path.symlink_metadata() else {
            continue;
        };
        if facts.is_symlink() {
            continue;
        }
        if may_write(&path)? {
            found.push(path.display().to_string());
        }
        if facts.is_dir() {
            todo.extend(
                fs::read_dir(&path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path()),
            );
        }
    }
    found.sort();
    Ok(found.join(" "))
}

fn may_write(path: &Path) -> Result<bool, Box<dyn Error>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let path: *const c_char = path.as_ptr();
    // SAFETY: a string with its end, which access only reads.
    Ok(unsafe { libc::access(path, libc::W_OK) } == 0)
}

/// Who this is, as the kernel tells it.
fn identity() -> Outcome {
    let status = fs::read_to_string("/proc/self/status")?;
    let wanted = [
        "Uid:",
        "Gid:",
        "Groups:",
        "CapEff:",
        "CapBnd:",
        "NoNewPrivs:",
    ];
    let lines = status
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    Ok(lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n"))
}

/// Uses so many KiB of the stack of a thread that the standard library has made; tells what the C library gives one.
fn stack(kib: &str) -> Outcome {
    let frames = kib.parse::<usize>()? * 1024 / FRAME_BYTES;
    let used = thread::spawn(move || deep(frames))
        .join()
        .map_err(|_| "the thread panicked")?;
    let mut bytes = 0;
    // SAFETY: the attributes are made by the call that is there for it, and only then read.
    unsafe {
        let mut attributes: libc::pthread_attr_t = mem::zeroed();
        libc::pthread_attr_init(&mut attributes);
        libc::pthread_attr_getstacksize(&attributes, &mut bytes);
        libc::pthread_attr_destroy(&mut attributes);
    }
    Ok(format!(
        "{} KiB used; the C library's own threads get {} KiB",
        used * FRAME_BYTES / 1024,
        bytes / 1024
    ))
}

/// Calls itself so many times, with a frame of `FRAME_BYTES` each.
#[inline(never)]
fn deep(frames: usize) -> usize {
    let frame = [1u8; FRAME_BYTES];
    black_box(&frame);
    match frames {
        0 => 0,
        _ => deep(frames - 1) + usize::from(frame[frames % FRAME_BYTES]),
    }
}

#[inline(never)]
fn panics(from: &[u8], at: usize) -> Outcome {
    Ok(from[at].to_string())
}

/// Takes so many MiB of memory, and writes to all of it.
fn allocate(mib: &str) -> Outcome {
    let mut held = Vec::new();
    for _ in 0..mib.parse()? {
        held.push(black_box(vec![1u8; 1 << 20]));
    }
    Ok(format!("{} MiB held", held.len()))
}

/// Leaves a process without its parent, and looks whether process 1 takes it up when it ends.
fn zombies() -> Outcome {
    Command::new(env::current_exe()?)
        .arg("leave-orphan")
        .stdout(Stdio::null())
        .status()?;
    thread::sleep(REAPED_AFTER);
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let mut fields = stat.rsplit(") ").next().unwrap_or("").split(' ');
        if (fields.next(), fields.next()) == (Some("Z"), Some("1")) {
            left.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    if left.is_empty() {
        return Ok("process 1 took up what had lost its parent".into());
    }
    Err(format!(
        "process 1 leaves what has lost its parent as a zombie ({})",
        left.len()
    )
    .into())
}

#[expect(clippy::zombie_processes, reason = "that is what it is for")]
fn leave_orphan() -> Outcome {
    Command::new(env::current_exe()?).arg("wait").spawn()?;
    Ok("left".into())
}

fn wait() -> Outcome {
    thread::sleep(ORPHAN_LIVES);
    Ok("waited".into())
}
