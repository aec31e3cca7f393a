//! Starts a program again and again and tells how long each start took, in nanoseconds of the monotonic clock. It runs
//! inside the image whose program it starts, so that neither the engine nor another root file system is in the path.
//!
//!     starter noop                                      ends at once: the floor of what a start can cost
//!     starter exit COUNT DEADLINE_S PROGRAM [ARG...]        until the program has ended
//!     starter first-byte COUNT DEADLINE_S PROGRAM [ARG...]  until the first byte of its answer to GET /
//!     starter calls WARMUP_S SECONDS DEADLINE_S CODE PRINTS PROGRAM [ARG...]
//!
//! In the arguments and the environment `{port}` stands for the port to listen on, another at each start, and `{url}` for
//! where `exit` answers what the program asks. `first-byte:PORT` asks a program that always listens on that port.
//!
//! A line per start: the no-op's nanoseconds, the program's, and the longest time between two looks at it.
//!
//! `calls` calls the program for WARMUP_S, and then for SECONDS, at least once each; every call has to end with CODE, and
//! the first to print PRINTS. A line per call that counts: its nanoseconds, and the CPU time of its processes in those.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{exit, Child, Command, ExitStatus, Stdio};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_micros(50);
const END: Duration = Duration::from_secs(5);
const FIRST_PORT: u16 = 20_000;
const SIGTERM: i32 = 15;

const RUSAGE_CHILDREN: i32 = -1;

extern "C" {
    fn kill(pid: i32, signal: i32) -> i32;
    fn getrusage(who: i32, usage: *mut [i64; 18]) -> i32; // two pairs of seconds and microseconds, and 14 numbers
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|mode| mode == "noop") {
        return;
    }
    if let [mode, warmup, seconds, deadline, code, prints, program @ ..] = &arguments[..] {
        if mode == "calls" {
            end_after(number(deadline));
            return calls([warmup, seconds].map(|text| number(text)), number(code) as i32, prints, program);
        }
    }
    let [mode, count, deadline, program @ ..] = &arguments[..] else {
        fail("usage: starter noop | exit ... | first-byte ... | calls ...")
    };
    let (mode, fixed_port) = mode.split_once(':').unwrap_or((mode, ""));
    let count = number(count) as u16;
    end_after(number(deadline));
    let url = serve();
    for number in 0..count {
        let noop = until_exit(Command::new("/proc/self/exe").arg("noop"));
        let port = fixed_port.parse().unwrap_or(FIRST_PORT + number);
        let filled = |text: &str| text.replace("{port}", &port.to_string()).replace("{url}", &url);
        let mut command = Command::new(&program[0]);
        command.args(program[1..].iter().map(|text| filled(text)));
        command.envs(std::env::vars().map(|(key, text)| (key, filled(&text))));
        command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        let (took, gap) = match mode {
            "exit" => (until_exit(&mut command), Duration::ZERO),
            "first-byte" => until_first_byte(&mut command, port),
            _ => fail("unknown mode"),
        };
        println!("{} {} {}", noop.as_nanos(), took.as_nanos(), gap.as_nanos());
    }
}

/// Ends everything in its container, whose process 1 it is, after so many seconds.
fn end_after(seconds: u64) {
    spawn(move || {
        sleep(Duration::from_secs(seconds));
        fail("the deadline is over")
    });
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| fail("no number"))
}

fn calls(seconds: [u64; 2], code: i32, prints: &str, program: &[String]) {
    let mut is_first = true;
    for (seconds, counts) in seconds.into_iter().zip([false, true]) {
        let begun = Instant::now();
        let mut called = 0;
        while called == 0 || begun.elapsed() < Duration::from_secs(seconds) {
            let mut command = Command::new(&program[0]);
            command.args(&program[1..]).stdin(Stdio::null());
            let before = cpu_time();
            let begun_at = Instant::now();
            let (status, said) = if is_first {
                let told = command.output().unwrap_or_else(|error| fail(&format!("{command:?}: {error}")));
                (told.status, [told.stdout, told.stderr].concat())
            } else {
                (ended(command.stdout(Stdio::null()).stderr(Stdio::null())), Vec::new())
            };
            let took = begun_at.elapsed();
            let said = String::from_utf8_lossy(&said);
            if status.code() != Some(code) {
                let last = said.trim_end().lines().last().unwrap_or("");
                fail(&format!("a call of the program ended with {status}, not with exit code {code}; {last}"));
            }
            if is_first && !said.contains(prints) {
                fail(&format!("the program did not print '{prints}'"));
            }
            if counts {
                println!("{} {}", took.as_nanos(), (cpu_time() - before).as_nanos());
            }
            is_first = false;
            called += 1;
        }
    }
}

/// What the processes have used that have ended and were waited for, user and system.
fn cpu_time() -> Duration {
    let mut usage = [0; 18];
    if unsafe { getrusage(RUSAGE_CHILDREN, &mut usage) } != 0 {
        fail("getrusage failed");
    }
    Duration::from_micros((1_000_000 * (usage[0] + usage[2]) + usage[1] + usage[3]) as u64)
}

fn until_exit(command: &mut Command) -> Duration {
    let begun = Instant::now();
    let status = ended(command);
    let took = begun.elapsed();
    if !status.success() {
        fail(&format!("the program ended with {status}"));
    }
    took
}

fn until_first_byte(command: &mut Command, port: u16) -> (Duration, Duration) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    wait_for_end(address);
    let begun = Instant::now();
    let mut child = start(command);
    let (mut looked, mut gap) = (begun, Duration::ZERO);
    let took = loop {
        gap = gap.max(looked.elapsed());
        looked = Instant::now();
        if let Ok(mut connection) = TcpStream::connect(address) {
            let mut byte = [0];
            let asked = connection.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            if asked.and_then(|()| connection.read_exact(&mut byte)).is_ok() {
                break begun.elapsed();
            }
        }
        if let Ok(Some(status)) = child.try_wait() {
            fail(&format!("the program ended before it answered, with {status}"));
        }
        sleep(PAUSE);
    };
    if is_on_loopback_alone(port) {
        fail("listens on 127.0.0.1 alone, which nothing outside of its container reaches: it must listen on 0.0.0.0");
    }
    unsafe { kill(-(child.id() as i32), SIGTERM) }; // and what it has started
    let _ = child.wait();
    (took, gap)
}

/// Waits until nothing of the start before answers on the port: a server may leave processes behind.
fn wait_for_end(address: SocketAddr) {
    let begun = Instant::now();
    while TcpStream::connect(address).is_ok() {
        if begun.elapsed() > END {
            fail("a server of a former start still answers on its port: it leaves processes behind");
        }
        sleep(PAUSE);
    }
}

/// Whether nothing but 127.0.0.0/8 or ::1 has a listener with that port, by the kernel's tables, which write each word
/// of an address in the machine's order of bytes; measure/server.py reads the same.
fn is_on_loopback_alone(port: u16) -> bool {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let listeners = tables.iter().flat_map(|table| table.lines()).filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (address, at) = words.next()?.split_once(':')?;
        (words.nth(1) == Some("0A") && u16::from_str_radix(at, 16) == Ok(port)).then_some(address)
    });
    let is_loopback = |address: &&str| {
        let mapped = address.strip_prefix("0000000000000000FFFF0000").unwrap_or(address);
        *address == "00000000000000000000000001000000" || mapped.len() == 8 && mapped.ends_with("7F")
    };
    let (loopback, others): (Vec<&str>, Vec<&str>) = listeners.partition(is_loopback);
    others.is_empty() && !loopback.is_empty()
}

fn ended(command: &mut Command) -> ExitStatus {
    start(command).wait().unwrap_or_else(|error| fail(&error.to_string()))
}

fn start(command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|error| fail(&format!("{command:?}: {error}")))
}

/// Answers on a port of its own what the client asks for, and returns the address.
fn serve() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap_or_else(|error| fail(&error.to_string()));
    let url = format!("http://{}/", listener.local_addr().unwrap());
    spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = connection.read(&mut request);
            let body = r#"{"ip":"192.0.2.7","country":"Unknown","cc":"XX"}"#;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
            let _ = write!(connection, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
    });
    url
}

fn fail(reason: &str) -> ! {
    eprintln!("starter: {reason}");
    exit(1)
}
