//! The gateway's certificate, and connections that can be dropped at will.
#![allow(clippy::disallowed_methods)] // makes keys and a credential, once per gateway

use std::fs;
use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::wire::Wire;

/// What a hub has to trust.
pub(super) const CA_FILE: &str = "gateway-ca.pem";
const CHAIN_FILE: &str = "gateway-tls.pem";
const KEY_FILE: &str = "gateway-tls.key";
const CREDENTIAL_FILE: &str = "gateway.credential";

/// How long a client may take over its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The most connections at a time.
const CONNECTIONS: usize = 1024;

/// The TLS configuration from the files in `dir`, which are made if need be:
/// a CA of one's own and a certificate for 127.0.0.1, ::1 and localhost.
pub(super) fn server_config(dir: &Path) -> io::Result<rustls::ServerConfig> {
    let (chain, key) = (dir.join(CHAIN_FILE), dir.join(KEY_FILE));
    if !dir.join(CA_FILE).exists() || !chain.exists() || !key.exists() {
        make_certificates(dir).map_err(io::Error::other)?;
    }
    let chain = CertificateDer::pem_file_iter(&chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(&key).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn make_certificates(dir: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.distinguished_name
        .push(DnType::CommonName, "simulated gateway CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = rcgen::CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    let names = ["127.0.0.1", "::1", "localhost"].map(str::to_owned).to_vec();
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name
        .push(DnType::CommonName, "simulated gateway");
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let leaf = leaf.signed_by(&key, &ca)?;
    fs::write(dir.join(CA_FILE), ca.pem())?;
    fs::write(dir.join(CHAIN_FILE), leaf.pem())?;
    write_secret(&dir.join(KEY_FILE), &key.serialize_pem())?;
    Ok(())
}

/// The credential that hubs must show: the given one, or the one kept in
/// `dir`, or a new one.
pub(super) fn credential(dir: &Path, given: Option<String>) -> io::Result<String> {
    let path = dir.join(CREDENTIAL_FILE);
    let credential = match given {
        Some(given) => given,
        None if path.exists() => return Ok(fs::read_to_string(path)?.trim().to_owned()),
        None => {
            let mut bytes = [0; 16];
            getrandom::fill(&mut bytes).map_err(io::Error::other)?;
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        }
    };
    write_secret(&path, &credential)?;
    Ok(credential)
}

fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(text.as_bytes())
}

/// One connection from a hub.
#[derive(Debug)]
pub(super) struct Connection {
    socket: std::net::TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Drops the line: whatever is answered after this is never heard.
    pub(super) fn cut(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// All open connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections(Arc<Mutex<Vec<Weak<Connection>>>>);

impl Connections {
    fn add(&self, connection: &Arc<Connection>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|line| line.strong_count() > 0);
        open.push(Arc::downgrade(connection));
    }

    /// Drops them all.
    pub(super) fn cut_all(&self) {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in open.iter().filter_map(Weak::upgrade) {
            connection.cut();
        }
    }
}

/// What a handler knows of the connection that it answers on.
#[derive(Clone, Debug)]
pub(super) struct Peer(pub(super) Option<Arc<Connection>>);

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        stream.remote_addr().clone()
    }
}

/// Accepts TLS connections; one slow handshake does not hold up another.
pub(super) struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, Arc<Connection>)>,
}

impl TlsListener {
    /// Accepts on `listener` until this end is dropped.
    pub(super) fn new(listener: TcpListener, config: rustls::ServerConfig, open: Connections) -> Self {
        let (sender, ready) = mpsc::channel(16);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(accept_all(listener, acceptor, open, sender));
        Self { ready }
    }
}

async fn accept_all(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    open: Connections,
    sender: mpsc::Sender<(TlsStream<TcpStream>, Arc<Connection>)>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let Ok((stream, connection)) = accepted.and_then(|(stream, _)| remember(stream, permit)) else {
            // Out of descriptors, most likely: give the others time to end.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        open.add(&connection);
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        tokio::spawn(async move {
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                let _ = sender.send((stream, connection)).await;
            }
        });
    }
}

/// Keeps a second handle on the socket, by which it can be shut.
fn remember(stream: TcpStream, permit: OwnedSemaphorePermit) -> io::Result<(TcpStream, Arc<Connection>)> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let connection = Connection {
        socket: stream.try_clone()?,
        _permit: permit,
    };
    Ok((TcpStream::from_std(stream)?, Arc::new(connection)))
}

impl Listener for TlsListener {
    type Io = Wire;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some((stream, connection)) => (Wire::new(stream), Peer(Some(connection))),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(Peer(None))
    }
}

/// Binds, saying which address failed.
pub(super) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}
