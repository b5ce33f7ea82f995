//! What QUIC alone costs: requests and answers of a payment's size, with the
//! hub's and the devices' settings, and nothing done between them.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig, VarInt};
use tokio::task::JoinSet;

use super::machine::ProcessTime;

/// Bytes of a request and of an answer, as payments have them.
const REQUEST: usize = 420;
const ANSWER: usize = 720;

const WARM_UP: Duration = Duration::from_millis(200);
const TIME: Duration = Duration::from_millis(1500);

/// Bare QUIC.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo {
    /// Requests answered a second, with both sides on this machine.
    pub per_second: f64,
    /// Processor time of a request, both sides together, in microseconds.
    pub both_sides_us: f64,
}

/// Measures it, with one connection a device and one request under way on
/// each.
pub(super) async fn measure(devices: usize) -> Result<Echo> {
    let (server, client) = configurations()?;
    let server = Endpoint::server(server, (Ipv4Addr::LOCALHOST, 0).into())?;
    let address = server.local_addr()?;
    let accepting = tokio::spawn(serve(server.clone()));
    let mut connections = Vec::with_capacity(devices);
    for _ in 0..devices {
        let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
        endpoint.set_default_client_config(client.clone());
        connections.push((endpoint.connect(address, "store-hub")?.await?, endpoint));
    }
    ask_all(&connections, WARM_UP).await?;
    let pid = std::process::id();
    let (began, before) = (Instant::now(), ProcessTime::of(pid)?);
    let answered = ask_all(&connections, TIME).await?;
    let (elapsed, after) = (began.elapsed().as_secs_f64(), ProcessTime::of(pid)?);
    accepting.abort();
    server.close(VarInt::from_u32(0), b"");
    let answered = f64::from(answered.max(1));
    Ok(Echo {
        per_second: answered / elapsed,
        both_sides_us: 1e6 * after.busy_since(&before) / answered,
    })
}

fn configurations() -> Result<(ServerConfig, ClientConfig)> {
    let pair = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["store-hub".to_owned()])?.self_signed(&pair)?;
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(pair.serialize_der());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone())?;
    let mut server = ServerConfig::with_single_cert(vec![certificate.der().clone()], key.into())?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(64))
        .stream_receive_window(VarInt::from_u32(20 * 1024))
        .receive_window(VarInt::from_u32(256 * 1024))
        .send_window(256 * 1024)
        .datagram_receive_buffer_size(None);
    let transport = Arc::new(transport);
    server.transport_config(Arc::clone(&transport));
    let mut client = ClientConfig::with_root_certificates(Arc::new(roots))?;
    client.transport_config(transport);
    Ok((server, client))
}

async fn serve(server: Endpoint) {
    while let Some(incoming) = server.accept().await {
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                tokio::spawn(async move {
                    if recv.read_to_end(REQUEST).await.is_ok() {
                        let _ = send.write_all(&[2; ANSWER]).await;
                        let _ = send.finish();
                    }
                });
            }
        });
    }
}

async fn ask_all(connections: &[(Connection, Endpoint)], time: Duration) -> Result<u32> {
    let until = Instant::now() + time;
    let mut asking = JoinSet::new();
    for (connection, _) in connections {
        let connection = connection.clone();
        asking.spawn(async move {
            let mut answered = 0_u32;
            while Instant::now() < until {
                ask(&connection).await?;
                answered += 1;
            }
            anyhow::Ok(answered)
        });
    }
    let mut answered = 0;
    while let Some(one) = asking.join_next().await {
        answered += one.context("a bare connection came to grief")??;
    }
    Ok(answered)
}

async fn ask(connection: &Connection) -> Result<()> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&[1; REQUEST]).await?;
    send.finish()?;
    recv.read_to_end(ANSWER).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_bare_connection_is_answered() {
        let (server, client) = configurations().unwrap();
        let server = Endpoint::server(server, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(serve(server));
        for _ in 0..3 {
            let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
            endpoint.set_default_client_config(client.clone());
            let connection = endpoint.connect(address, "store-hub").unwrap().await.unwrap();
            ask(&connection).await.unwrap();
        }
    }
}
