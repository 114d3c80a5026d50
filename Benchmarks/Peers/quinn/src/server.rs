// SPDX-License-Identifier: Apache-2.0

//! Answers `get` and `tern perf get`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connecting, RecvStream, SendStream};
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::Notify;

use crate::configuration::Tuning;
use crate::{cpu_time, Failure, CHUNK_SIZE};

/// Prints `ready HOST:PORT`, serves until SIGTERM or SIGINT and then says what CPU time that took.
pub async fn serve(listen: SocketAddr, certificate: &Path, key: &Path, tuning: &Tuning) -> Result<(), Failure> {
    let endpoint = tuning.bind(listen, Some(tuning.server(certificate, key)?))?;
    println!("ready {}", endpoint.local_addr()?);
    let before = cpu_time();
    tokio::spawn(async move {
        while let Some(connecting) = endpoint.accept().await {
            tokio::spawn(serve_connection(connecting));
        }
    });
    let ended = Arc::new(Notify::new());
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut signals, ended) = (signal(kind)?, ended.clone());
        tokio::spawn(async move {
            signals.recv().await;
            ended.notify_one();
        });
    }
    ended.notified().await;
    println!("CPU {:.3} s", (cpu_time() - before).as_secs_f64());
    Ok(())
}

async fn serve_connection(connecting: Connecting) {
    if let Ok(connection) = connecting.await {
        while let Ok((send, receive)) = connection.accept_bi().await {
            tokio::spawn(async move {
                // A stream that fails is the client's to notice.
                let _ = answer(send, receive).await;
            });
        }
    }
}

async fn answer(mut send: SendStream, mut receive: RecvStream) -> Result<(), Failure> {
    let mut request = [0; 8];
    receive.read_exact(&mut request).await?;
    drain(&mut receive).await?;
    write_zeros(&mut send, u64::from_be_bytes(request)).await?;
    // Dropping ends the stream, without waiting for the acknowledgement of the end.
    drop(send);
    Ok(())
}

/// Reads to the end without copying, many chunks a call and in order, as an application would.
pub async fn drain(receive: &mut RecvStream) -> Result<u64, Failure> {
    let mut chunks: [Bytes; 64] = std::array::from_fn(|_| Bytes::new());
    let mut total = 0;
    while let Some(count) = receive.read_chunks(&mut chunks).await? {
        for chunk in &mut chunks[..count] {
            total += chunk.len() as u64;
            *chunk = Bytes::new();
        }
    }
    Ok(total)
}

/// Sends so many zero bytes, all out of one buffer and without copying it into the send buffer.
pub async fn write_zeros(send: &mut SendStream, count: u64) -> Result<(), Failure> {
    let mut rest = count;
    while rest > 0 {
        let length = rest.min(CHUNK_SIZE as u64);
        send.write_chunk(zeros(length)).await?;
        rest -= length;
    }
    Ok(())
}

/// So many zero bytes, `CHUNK_SIZE` at most, that nobody has to free.
pub fn zeros(count: u64) -> Bytes {
    static ZEROS: [u8; CHUNK_SIZE] = [0; CHUNK_SIZE];
    Bytes::from_static(&ZEROS[..count as usize])
}
