// SPDX-License-Identifier: Apache-2.0

//! quinn's settings: the fastest on loopback among those that a deployment could reasonably have.
//!
//! What was tried and made no difference beyond the noise: windows from 1.25 MB, quinn's own, to 32 MiB; socket buffers
//! from the system's 208 KiB to 7 MiB. So the buffers are as Tern has them. What quinn does not let one set: it has GSO
//! cut at most 10 packets out of one buffer, and sends at most 20 of a connection before others have their turn.

use std::fs::File;
use std::io::BufReader;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::io::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt};

use crate::Failure;

pub const APPLICATION_PROTOCOL: &[u8] = b"perf";

pub struct Tuning {
    /// Bytes of UDP payload. quinn 0.9 has no path MTU discovery; without this it stays at 1,200.
    pub datagram_size: u16,
    /// Bytes that may be under way on a stream and on a connection.
    pub window: u32,
    /// Bytes; 0 leaves what the system gives.
    pub socket_buffer: libc::c_int,
}

impl Tuning {
    fn transport(&self) -> Arc<TransportConfig> {
        let mut transport = TransportConfig::default();
        transport
            .initial_max_udp_payload_size(self.datagram_size)
            .stream_receive_window(VarInt::from_u32(self.window))
            .receive_window(VarInt::from_u32(self.window))
            .send_window(self.window.into())
            .max_concurrent_bidi_streams(VarInt::from_u32(1000))
            .max_idle_timeout(Some(Duration::from_secs(30).try_into().expect("it is small")));
        // The congestion controller is CUBIC by default.
        Arc::new(transport)
    }

    /// Opens an endpoint. GSO, GRO, `sendmmsg` and `recvmmsg` are quinn's own choice on Linux.
    pub fn bind(&self, address: SocketAddr, server: Option<ServerConfig>) -> Result<Endpoint, Failure> {
        let socket = UdpSocket::bind(address)?;
        if self.socket_buffer > 0 {
            set_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, self.socket_buffer);
            set_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, self.socket_buffer);
        }
        Ok(Endpoint::new(EndpointConfig::default(), server, socket, TokioRuntime)?)
    }

    pub fn server(&self, certificate: &Path, key: &Path) -> Result<ServerConfig, Failure> {
        let chain = certificates(certificate)?;
        let key =
            rustls_pemfile::pkcs8_private_keys(&mut open(key)?)?.into_iter().next().ok_or("no PKCS #8 private key")?;
        // AES-128-GCM, as Tern negotiates; rustls by itself would prefer AES-256-GCM.
        let mut tls = rustls::ServerConfig::builder()
            .with_cipher_suites(&[rustls::cipher_suite::TLS13_AES_128_GCM_SHA256])
            .with_kx_groups(&[&rustls::kx_group::X25519, &rustls::kx_group::SECP256R1])
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, rustls::PrivateKey(key))?;
        tls.alpn_protocols = vec![APPLICATION_PROTOCOL.to_vec()];
        // Tern issues no session tickets, so that all handshakes are full ones; the same here.
        tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let mut server = ServerConfig::with_crypto(Arc::new(tls));
        server.transport_config(self.transport());
        Ok(server)
    }

    pub fn client(&self, authority: &Path, key_exchange: &str) -> Result<ClientConfig, Failure> {
        let group = match key_exchange {
            "x25519" => &rustls::kx_group::X25519,
            "p256" => &rustls::kx_group::SECP256R1,
            _ => return Err(format!("--key-exchange takes x25519 or p256, not {key_exchange}").into()),
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(authority)? {
            roots.add(&certificate)?;
        }
        let mut tls = rustls::ClientConfig::builder()
            .with_cipher_suites(&[rustls::cipher_suite::TLS13_AES_128_GCM_SHA256])
            .with_kx_groups(&[group])
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![APPLICATION_PROTOCOL.to_vec()];
        tls.session_storage = Arc::new(rustls::client::NoClientSessionStorage {});
        let mut client = ClientConfig::new(Arc::new(tls));
        client.transport_config(self.transport());
        Ok(client)
    }
}

fn open(path: &Path) -> Result<BufReader<File>, Failure> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(BufReader::new(file))
}

fn certificates(path: &Path) -> Result<Vec<rustls::Certificate>, Failure> {
    Ok(rustls_pemfile::certs(&mut open(path)?)?.into_iter().map(rustls::Certificate).collect())
}

/// As Tern does: the privileged option passes the system's limit, the other is cut there.
fn set_buffer(socket: &UdpSocket, privileged_name: libc::c_int, name: libc::c_int, bytes: libc::c_int) {
    let set = |name| unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            &bytes as *const libc::c_int as *const libc::c_void,
            std::mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set(privileged_name) != 0 {
        set(name);
    }
}
