//! The floods.

use std::collections::BTreeMap;
use std::fmt;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::{ALPN, ALPN_ENROL, Answer, DeviceClass, EnrolmentRequest, Request, cbor, frame};
use hub_sdk::PreparedPayment;
use quinn::{Connection, Endpoint, SendStream};
use serde::Serialize;
use tokio::task::JoinSet;

use super::half_open;
use super::intruder::{Intruder, connect};
use super::padding;
use crate::load::drive;
use crate::rng::Rng;

/// The lowest priority that there is.
const NICE: i32 = 19;

/// Connections of the enrolled device: as many as a hub lets it have.
const CONNECTIONS: u8 = 4;

/// Streams on each: the same.
const STREAMS: usize = 16;

/// Bytes that a slow stream sends, each in a packet of its own, before it
/// falls silent: nearly the longest frame.
const TRICKLE: usize = 16_000;

/// Connections that strangers try at a time.
const AT_ONCE: u8 = 32;

/// Bytes that a frame far too long has.
const HUGE: usize = 1024 * 1024;

/// How long whoever was turned away waits: a flood that waits for nothing
/// only floods itself.
const AGAIN: Duration = Duration::from_millis(1);

/// Tokens tried on one connection.
const GUESSES: usize = 5;

/// A flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Handshakes begun from proved addresses and never gone on with
    Handshakes,
    /// Handshakes begun from proved addresses and gone on with padding alone
    PaddedHandshakes,
    /// An enrolled device holds all the streams it may have, and sends a byte
    /// at a time, each in a packet of full length
    SlowStreams,
    /// An enrolled device sends packets of padding alone, which hold no frame
    Padding,
    /// An enrolled device sends frames of a mebibyte
    HugeFrames,
    /// Devices that are not enrolled make whole handshakes
    UnknownDevices,
    /// Somebody guesses enrolment tokens while codes are outstanding
    Enrolment,
    /// An enrolled device sends good payments as fast as it can
    MadDevice,
    /// UDP noise, some of it looking like QUIC
    Garbage,
}

impl Kind {
    /// All of them. Those that keep strangers out for some seconds come last.
    pub const ALL: [Self; 9] = [
        Self::Handshakes,
        Self::SlowStreams,
        Self::Padding,
        Self::HugeFrames,
        Self::UnknownDevices,
        Self::Enrolment,
        Self::MadDevice,
        Self::PaddedHandshakes,
        Self::Garbage,
    ];

    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshakes => "handshakes",
            Self::PaddedHandshakes => "padded-handshakes",
            Self::SlowStreams => "slow-streams",
            Self::Padding => "padding",
            Self::HugeFrames => "huge-frames",
            Self::UnknownDevices => "unknown-devices",
            Self::Enrolment => "enrolment",
            Self::MadDevice => "mad-device",
            Self::Garbage => "garbage",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a flood counts, and whether it is over.
#[derive(Default)]
pub(super) struct Tally {
    over: AtomicBool,
    sent: AtomicU64,
    answers: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answer(&self, what: &str) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry(what.to_owned()).or_default() += 1;
    }

    fn read(&self, bytes: &[u8]) {
        match frame::from_wire(bytes) {
            Ok(Answer::Refused { refusal }) => self.answer(refusal.code.name()),
            Ok(_) => self.answer("answered"),
            Err(_) => self.answer("unreadable"),
        }
    }
}

/// A flood under way.
pub(super) struct Running {
    tally: Arc<Tally>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    pub(super) fn start(kind: Kind, intruder: Intruder) -> Result<Self> {
        let tally = Arc::<Tally>::default();
        let own = Arc::clone(&tally);
        let thread = std::thread::Builder::new()
            .name("flood".to_owned())
            .spawn(move || {
                give_way();
                if let Err(error) = flood(kind, &intruder, &own) {
                    own.answer(&format!("came to grief: {error:#}"));
                }
            })?;
        Ok(Self {
            tally,
            threads: vec![thread],
        })
    }

    /// Ends it, and says what was sent and what was answered.
    pub(super) fn stop(self) -> (u64, BTreeMap<String, u64>) {
        self.tally.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A flood that panicked is over too.
            let _ = thread.join();
        }
        let mut answers = self.tally.answers.lock().unwrap_or_else(PoisonError::into_inner);
        (
            self.tally.sent.load(Ordering::Relaxed),
            std::mem::take(&mut *answers),
        )
    }
}

/// Lets this thread run only when nobody else wants a processor, as far as the
/// system has that; without it the flood weighs more.
fn give_way() {
    let _ = rustix::process::nice(NICE);
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let _ = std::process::Command::new("chrt")
        .args(["--idle", "--pid", "0", &thread])
        .stderr(std::process::Stdio::null())
        .status();
}

fn flood(kind: Kind, intruder: &Intruder, tally: &Arc<Tally>) -> Result<()> {
    match kind {
        Kind::Handshakes => return half_open::flood(intruder, tally),
        Kind::PaddedHandshakes => return padding::of_strangers(intruder, tally),
        Kind::Garbage => return garbage(intruder, tally),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if kind == Kind::Padding {
        return runtime.block_on(padding::flood(intruder, tally));
    }
    runtime.block_on(async {
        let who = intruder.who(kind);
        let (alpn, to, connections) = match kind {
            Kind::Enrolment => (ALPN_ENROL, intruder.enrol_to, AT_ONCE),
            Kind::UnknownDevices => (ALPN, intruder.to, AT_ONCE),
            _ => (ALPN, intruder.to, CONNECTIONS),
        };
        let config = who.config(alpn)?;
        let mut all = JoinSet::new();
        for number in 0..connections {
            let endpoint = Endpoint::client(intruder.source(number))?;
            let (config, intruder, tally) = (config.clone(), intruder.clone(), Arc::clone(tally));
            all.spawn(async move {
                while !tally.is_over() {
                    if kind == Kind::UnknownDevices {
                        tally.sent();
                    }
                    match connect(&endpoint, &config, to).await {
                        Some(connection) => misbehave(kind, &connection, &intruder, &tally).await,
                        None => tally.answer("no-connection"),
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
        while let Some(one) = all.join_next().await {
            one?;
        }
        anyhow::Ok(())
    })
}

/// What is done with one connection, until it is gone or the flood is over.
async fn misbehave(kind: Kind, connection: &Connection, intruder: &Intruder, tally: &Arc<Tally>) {
    let doing = async {
        match kind {
            Kind::SlowStreams => {
                on_all_streams(connection, tally, |connection, tally| async move {
                    let (mut send, mut recv) = connection.open_bi().await.ok()?;
                    let answer = recv.read_to_end(frame::MAX_FRAME + 4);
                    let answer = tokio::select! {
                        answer = answer => answer,
                        () = trickle(&mut send, &tally) => return None,
                    };
                    tally.read(&answer.ok()?);
                    Some(())
                })
                .await
            }
            Kind::MadDevice => {
                let device = Arc::clone(intruder.who(kind));
                on_all_streams(connection, tally, move |connection, tally| {
                    let sequence = tally.sent.load(Ordering::Relaxed);
                    let payment = PreparedPayment::new(&device.identity, sequence, drive::next_sale(9_999));
                    async move {
                        tally.sent();
                        ask(&connection, &frame::to_wire(&payment.frame()), &tally).await
                    }
                })
                .await;
            }
            Kind::HugeFrames => {
                tally.sent();
                // The hub waits a second for this end to close: it does.
                ask(connection, &vec![0xff; HUGE], tally).await;
            }
            Kind::Enrolment => {
                for _ in 0..GUESSES {
                    tally.sent();
                    if ask(connection, &guess(intruder), tally).await.is_none() {
                        break;
                    }
                }
                connection.close(0u32.into(), b"");
            }
            // The hub's side of the handshake fails after this one's.
            _ => {
                connection.closed().await;
                tally.answer("turned-away");
            }
        }
    };
    let over = async {
        while !tally.is_over() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = doing => {}
        () = over => {}
    }
    connection.close(0u32.into(), b"");
}

/// Does the same on as many streams as there may be, again and again, until
/// the connection is gone.
async fn on_all_streams<F>(
    connection: &Connection,
    tally: &Arc<Tally>,
    once: impl Fn(Connection, Arc<Tally>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = Option<()>> + Send,
{
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        let (connection, tally, once) = (connection.clone(), Arc::clone(tally), once.clone());
        streams.spawn(async move { while once(connection.clone(), Arc::clone(&tally)).await.is_some() {} });
    }
    while streams.join_next().await.is_some() {}
}

/// Sends a byte at a time and lets each go out before the next, then nothing.
async fn trickle(send: &mut SendStream, tally: &Tally) {
    for _ in 0..TRICKLE {
        if send.write_all(&[0]).await.is_err() {
            break;
        }
        tally.sent();
        tokio::task::yield_now().await;
    }
    std::future::pending().await
}

/// Sends bytes on a stream, and counts what comes back.
async fn ask(connection: &Connection, bytes: &[u8], tally: &Tally) -> Option<()> {
    let (mut send, mut recv) = connection.open_bi().await.ok()?;
    // The hub may stop reading early; its answer says why, and is waited for
    // in any case.
    let sending = async {
        let _ = send.write_all(bytes).await;
        let _ = send.finish();
        std::future::pending::<()>().await;
    };
    let answer = tokio::select! {
        answer = recv.read_to_end(frame::MAX_FRAME + 4) => answer.ok()?,
        () = sending => return None,
    };
    tally.read(&answer);
    Some(())
}

/// An enrolment in good order but for its token.
fn guess(intruder: &Intruder) -> Vec<u8> {
    let identity = &intruder.stranger.identity;
    let request = EnrolmentRequest {
        token: [0; 16],
        hub: intruder.hub,
        device: identity.device_id(),
        signing_key: identity.signing_key().verifying_key().to_bytes(),
        class: DeviceClass::Terminal,
        name: "Intrus".to_owned(),
        model: "sim".to_owned(),
    };
    let request = cose::sign(
        identity.signing_key(),
        ObjectType::Enrolment,
        &cbor::encode(&request),
    );
    frame::to_wire(&Request::Enrol { request })
}

/// The longest noise: what a network carries in one piece.
const LONGEST_NOISE: u64 = 1200;

fn garbage(intruder: &Intruder, tally: &Tally) -> Result<()> {
    let sockets = (0..intruder.addresses).map(|number| Ok(UdpSocket::bind(intruder.source(number))?));
    let sockets: Vec<UdpSocket> = sockets.collect::<Result<_>>()?;
    let mut rng = Rng::of(0x6a7b, "garbage");
    let mut noise = vec![0; usize::try_from(LONGEST_NOISE)?];
    for socket in sockets.iter().cycle() {
        if tally.is_over() {
            break;
        }
        for eight in noise.chunks_mut(8) {
            eight.copy_from_slice(&rng.next_u64().to_be_bytes()[..eight.len()]);
        }
        let length = match rng.next_u64() % 4 {
            // A first packet of QUIC version 1 with connection ids, and
            // nothing in it that decrypts.
            0 => {
                noise[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
                noise[14] = 8;
                noise[23] = 0;
                LONGEST_NOISE
            }
            // A packet of a connection that there is not.
            1 => {
                noise[0] = 0x40 | (noise[0] & 0x3f);
                1 + rng.next_u64() % LONGEST_NOISE
            }
            _ => 1 + rng.next_u64() % LONGEST_NOISE,
        };
        let length = usize::try_from(length)?.min(noise.len());
        // Full buffers are the flood's own trouble.
        if socket.send_to(&noise[..length], intruder.to).is_ok() {
            tally.sent();
        }
    }
    Ok(())
}
