// SPDX-License-Identifier: Apache-2.0

//! Measures, and prints one line of JSON in the form of `tern perf get --json`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{Connection, Endpoint};

use crate::configuration::Tuning;
use crate::server::{drain, write_zeros, zeros};
use crate::{cpu_time, Failure, CHUNK_SIZE};

/// Bytes of the answer to a request, which itself has 8.
const ANSWER_SIZE: u64 = 1024;

#[derive(Clone, Copy)]
pub struct Work {
    pub download: u64,
    pub upload: u64,
    pub handshakes: usize,
    /// Handshakes under way at once.
    pub concurrency: usize,
    pub requests: usize,
    /// Connections that share the bytes or the requests, each with one stream at a time.
    pub connections: usize,
}

/// Wall-clock and CPU time of a piece of work.
struct Cost {
    seconds: f64,
    cpu: f64,
}

struct Stopwatch {
    start: Instant,
    cpu: Duration,
}

impl Stopwatch {
    fn start() -> Self {
        Self { cpu: cpu_time(), start: Instant::now() }
    }

    fn stop(self) -> Cost {
        Cost { seconds: self.start.elapsed().as_secs_f64(), cpu: (cpu_time() - self.cpu).as_secs_f64() }
    }
}

pub async fn get(
    server: SocketAddr,
    authority: &Path,
    key_exchange: &str,
    work: Work,
    tuning: Tuning,
) -> Result<(), Failure> {
    let mut endpoint = tuning.bind(SocketAddr::new(server.ip(), 0), None)?;
    endpoint.set_default_client_config(tuning.client(authority, key_exchange)?);
    // A task, because the runtime's own threads are better at this than the main one, which may only block.
    let results = tokio::spawn(async move {
        let mut results = Vec::new();
        if work.handshakes > 0 {
            results.push(handshakes(&endpoint, server, work).await?);
        }
        if work.download > 0 {
            results.push(transfer(&endpoint, server, work, false).await?);
        }
        if work.upload > 0 {
            results.push(transfer(&endpoint, server, work, true).await?);
        }
        if work.requests > 0 {
            results.push(requests(&endpoint, server, work).await?);
        }
        // Until the servers have heard of the ends.
        endpoint.wait_idle().await;
        Ok::<_, Failure>(results)
    })
    .await??;
    println!("[{}]", results.join(","));
    Ok(())
}

async fn connect(endpoint: &Endpoint, server: SocketAddr) -> Result<Connection, Failure> {
    Ok(endpoint.connect(server, "localhost")?.await?)
}

async fn exchange(connection: &Connection, upload: u64, download: u64) -> Result<(), Failure> {
    let (mut send, mut receive) = connection.open_bi().await?;
    // In one call with the first of what is uploaded, so that they can share a packet.
    let first = upload.min(CHUNK_SIZE as u64);
    let mut beginning = [Bytes::copy_from_slice(&download.to_be_bytes()), zeros(first)];
    send.write_all_chunks(&mut beginning).await?;
    write_zeros(&mut send, upload - first).await?;
    // Ends the stream. `finish` would do so, too, and then wait for the acknowledgement; the answer says as much.
    drop(send);
    let received = drain(&mut receive).await?;
    if received != download {
        return Err(format!("the server answered {received} bytes instead of {download}").into());
    }
    Ok(())
}

async fn connect_all(endpoint: &Endpoint, server: SocketAddr, count: usize) -> Result<Vec<Connection>, Failure> {
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(connect(endpoint, server).await?);
    }
    Ok(connections)
}

async fn transfer(endpoint: &Endpoint, server: SocketAddr, work: Work, is_upload: bool) -> Result<String, Failure> {
    let connections = connect_all(endpoint, server, work.connections).await?;
    let share = (if is_upload { work.upload } else { work.download }) / work.connections as u64;
    let bytes = share * work.connections as u64;
    let (upload, download) = if is_upload { (share, 0) } else { (0, share) };
    let stopwatch = Stopwatch::start();
    let mut tasks = Vec::new();
    for connection in connections.iter().cloned() {
        tasks.push(tokio::spawn(async move { exchange(&connection, upload, download).await }));
    }
    for task in tasks {
        task.await??;
    }
    let cost = stopwatch.stop();
    for connection in connections {
        connection.close(0u32.into(), b"");
    }
    Ok(format!(
        "{{\"test\":\"{}\",\"bytes\":{bytes},\"gigabitsPerSecond\":{:.4},\"seconds\":{:.6},\
         \"cpuSecondsPerGB\":{{\"client\":{:.5}}}}}",
        if is_upload { "upload" } else { "download" },
        bytes as f64 * 8.0 / cost.seconds / 1e9,
        cost.seconds,
        cost.cpu / (bytes as f64 / 1e9)
    ))
}

/// Handshake after handshake, a few at once, all over one socket.
async fn handshakes(endpoint: &Endpoint, server: SocketAddr, work: Work) -> Result<String, Failure> {
    let begun = Arc::new(AtomicUsize::new(0));
    let stopwatch = Stopwatch::start();
    let mut tasks = Vec::new();
    for _ in 0..work.concurrency {
        let (endpoint, begun) = (endpoint.clone(), begun.clone());
        tasks.push(tokio::spawn(async move {
            while begun.fetch_add(1, Ordering::Relaxed) < work.handshakes {
                connect(&endpoint, server).await?.close(0u32.into(), b"");
            }
            Ok::<_, Failure>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let cost = stopwatch.stop();
    let count = work.handshakes as f64;
    Ok(format!(
        "{{\"test\":\"handshakes\",\"handshakes\":{},\"handshakesPerSecond\":{:.1},\"seconds\":{:.6},\
         \"cpuSecondsPerHandshake\":{{\"client\":{:.8}}}}}",
        work.handshakes,
        count / cost.seconds,
        cost.seconds,
        cost.cpu / count
    ))
}

/// One request after the other on every connection, each on a stream of its own.
async fn requests(endpoint: &Endpoint, server: SocketAddr, work: Work) -> Result<String, Failure> {
    let connections = connect_all(endpoint, server, work.connections).await?;
    let share = (work.requests / work.connections).max(1);
    let stopwatch = Stopwatch::start();
    let mut tasks = Vec::new();
    for connection in connections.iter().cloned() {
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::with_capacity(share);
            for _ in 0..share {
                let start = Instant::now();
                exchange(&connection, 0, ANSWER_SIZE).await?;
                latencies.push(start.elapsed());
            }
            Ok::<_, Failure>(latencies)
        }));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let cost = stopwatch.stop();
    for connection in connections {
        connection.close(0u32.into(), b"");
    }
    latencies.sort_unstable();
    let percentile =
        |percent: usize| latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)].as_secs_f64();
    let count = latencies.len();
    Ok(format!(
        "{{\"test\":\"requests\",\"requests\":{count},\"connections\":{},\"requestsPerSecond\":{:.1},\
         \"p50Seconds\":{:.9},\"p99Seconds\":{:.9},\"seconds\":{:.6},\"cpuSecondsPerRequest\":{{\"client\":{:.8}}}}}",
        work.connections,
        count as f64 / cost.seconds,
        percentile(50),
        percentile(99),
        cost.seconds,
        cost.cpu / count as f64
    ))
}
