// SPDX-License-Identifier: Apache-2.0

//! quinn as a peer of `tern perf`: the same protocol, the same work, the same figures.
//!
//! The protocol (ALPN `perf`): the client opens a bidirectional stream, sends the number of bytes it wants as a
//! big-endian integer of 8 bytes, may then upload, and ends its side; the server then answers that many bytes and its
//! end.

mod client;
mod configuration;
mod server;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use configuration::Tuning;

pub type Failure = Box<dyn Error + Send + Sync>;

/// Bytes handed to a stream at a time, as `tern perf` does.
pub const CHUNK_SIZE: usize = 256 * 1024;

const USAGE: &str = "\
usage: tern-quinn-perf serve --listen HOST:PORT --cert FILE --key FILE [tuning]
       tern-quinn-perf get HOST:PORT --cacert FILE [work] [tuning]

work:   --download BYTES | --upload BYTES | --requests COUNT, with --connections COUNT to share it (1)
        --handshakes COUNT, with --concurrency COUNT at once (8)
        --key-exchange GROUP    x25519 or p256 (x25519)
tuning: --datagram-size BYTES   UDP payload of a datagram (1452)
        --window BYTES          receive and send window (16777216)
        --socket-buffer BYTES   receive and send buffer of the socket (7340032); 0 leaves the system's
        --threads COUNT         worker threads of the runtime; 0 has all on the main thread (1)
The server's name in the certificate has to be localhost.";

/// CPU time of this process so far, user and system.
pub fn cpu_time() -> Duration {
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

#[derive(Default)]
struct Arguments {
    positional: Vec<String>,
    options: Vec<(String, String)>,
}

impl Arguments {
    fn parse(words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut arguments = Self::default();
        let mut words = words;
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                Some(name) => {
                    let value = words.next().ok_or_else(|| format!("--{name} takes a value"))?;
                    arguments.options.push((name.to_string(), value));
                }
                None => arguments.positional.push(word),
            }
        }
        Ok(arguments)
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let index = self.options.iter().position(|(option, _)| option == name)?;
        Some(self.options.remove(index).1)
    }

    fn take_number(&mut self, name: &str, default: u64) -> Result<u64, Failure> {
        match self.take(name) {
            Some(text) => text.parse().map_err(|_| format!("--{name} takes a number, not {text}").into()),
            None => Ok(default),
        }
    }

    fn take_path(&mut self, name: &str) -> Result<PathBuf, Failure> {
        Ok(self.take(name).ok_or_else(|| format!("--{name} is needed"))?.into())
    }

    /// Fails on options that nobody took.
    fn finish(self) -> Result<(), Failure> {
        match self.options.first() {
            Some((name, _)) => Err(format!("unknown option --{name}").into()),
            None => Ok(()),
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut arguments = Arguments::parse(std::env::args().skip(1))?;
    let tuning = Tuning {
        datagram_size: arguments.take_number("datagram-size", 1452)? as u16,
        window: arguments.take_number("window", 16 << 20)? as u32,
        socket_buffer: arguments.take_number("socket-buffer", 7 << 20)? as libc::c_int,
    };
    let threads = arguments.take_number("threads", 1)? as usize;
    let role = match arguments.positional.first() {
        Some(word) => word.clone(),
        None => return Err(USAGE.into()),
    };
    let runtime = make_runtime(threads)?;
    match role.as_str() {
        "serve" => {
            let listen: SocketAddr = arguments.take("listen").ok_or("--listen is needed")?.parse()?;
            let certificate = arguments.take_path("cert")?;
            let key = arguments.take_path("key")?;
            arguments.finish()?;
            runtime.block_on(server::serve(listen, &certificate, &key, &tuning))
        }
        "get" => {
            let address: SocketAddr = arguments.positional.get(1).ok_or(USAGE)?.parse()?;
            let authority = arguments.take_path("cacert")?;
            let key_exchange = arguments.take("key-exchange").unwrap_or_else(|| "x25519".to_string());
            let work = client::Work {
                download: arguments.take_number("download", 0)?,
                upload: arguments.take_number("upload", 0)?,
                handshakes: arguments.take_number("handshakes", 0)? as usize,
                concurrency: arguments.take_number("concurrency", 8)?.max(1) as usize,
                requests: arguments.take_number("requests", 0)? as usize,
                connections: arguments.take_number("connections", 1)?.max(1) as usize,
            };
            arguments.finish()?;
            runtime.block_on(client::get(address, &authority, &key_exchange, work, tuning))
        }
        _ => Err(USAGE.into()),
    }
}

/// By default a multi-threaded runtime with one worker: in bulk as fast as one on the main thread or as two workers, in
/// handshakes a third faster than the former, and with small requests cheaper than the latter.
fn make_runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    if threads == 0 {
        tokio::runtime::Builder::new_current_thread().enable_all().build()
    } else {
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
    }
}

fn main() {
    if let Err(failure) = run() {
        eprintln!("{failure}");
        std::process::exit(1);
    }
}
