//! Peers that mean no good, or are broken. Whatever they do, a payment on
//! their line counts as unanswered, and the next good line serves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hub_core::{GatewayAnswer, Operation};
use hubd::iso8583::{Dialect, Message};
use hubd::upstream::iso8583::Acquirer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::setting::{DIALECTS, PATIENCE, SHORT_MS, Sale, certificates, dialect, is_no_answer, settings};

/// What the peer does with a payment.
#[derive(Clone, Copy)]
enum Deed {
    Approve,
    Say(fn(&Dialect, &Message) -> Vec<u8>),
    SayAndHangUp(fn(&Dialect, &Message) -> Vec<u8>),
    StopReading,
    /// Answers only when the next message comes.
    AnswerLate,
}

struct Shared {
    dialect: Dialect,
    /// Whether it behaves.
    good: AtomicBool,
    connections: AtomicUsize,
    payments: AtomicUsize,
}

struct Setting {
    _dir: TempDir,
    shared: Arc<Shared>,
    client: Acquirer,
}

/// A peer that signs hubs on and then does `deed`, until it is told to be good.
async fn with(name: &str, deed: Deed) -> Setting {
    let dir = tempfile::tempdir().unwrap();
    let certificates = certificates(dir.path());
    let chain = CertificateDer::pem_file_iter(&certificates.server.0)
        .unwrap()
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_file(&certificates.server.1).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shared = Arc::new(Shared {
        dialect: dialect(name),
        good: AtomicBool::new(false),
        connections: AtomicUsize::new(0),
        payments: AtomicUsize::new(0),
    });
    tokio::spawn({
        let shared = Arc::clone(&shared);
        async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(socket).await {
                        // However it ends.
                        let _ = converse(stream, &shared, deed).await;
                    }
                });
            }
        }
    });
    let client = Acquirer::new(settings(dialect(name), port, &certificates)).unwrap();
    Setting {
        _dir: dir,
        shared,
        client,
    }
}

fn frame(dialect: &Dialect, message: &Message) -> Vec<u8> {
    dialect
        .framing
        .wrap(&dialect.format.encode(message).unwrap())
        .unwrap()
}

fn answer(message: &Message) -> Message {
    let mut answer = Message::new(message.mti.answer());
    for number in [3, 4, 7, 11, 37, 41, 49, 70] {
        if let Some(value) = message.get(number) {
            answer.set_value(number, value.clone());
        }
    }
    answer.set(39, "00");
    answer
}

async fn read(stream: &mut TlsStream<TcpStream>, dialect: &Dialect) -> std::io::Result<Message> {
    let mut head = vec![0; dialect.framing.length.size()];
    stream.read_exact(&mut head).await?;
    let mut body = vec![0; dialect.framing.body_size(&head).unwrap()];
    stream.read_exact(&mut body).await?;
    Ok(dialect.format.decode(dialect.framing.message(&body)).unwrap())
}

async fn converse(mut stream: TlsStream<TcpStream>, shared: &Shared, deed: Deed) -> std::io::Result<()> {
    let dialect = &shared.dialect;
    let mut owed = Vec::new();
    loop {
        let message = read(&mut stream, dialect).await?;
        let deed = if message.mti.as_str() == "0800" || shared.good.load(Ordering::SeqCst) {
            Deed::Approve
        } else {
            shared.payments.fetch_add(1, Ordering::SeqCst);
            deed
        };
        stream.write_all(&std::mem::take(&mut owed)).await?;
        match deed {
            Deed::Approve => stream.write_all(&frame(dialect, &answer(&message))).await?,
            Deed::Say(words) => stream.write_all(&words(dialect, &message)).await?,
            Deed::SayAndHangUp(words) => {
                stream.write_all(&words(dialect, &message)).await?;
                return stream.shutdown().await;
            }
            Deed::StopReading => std::future::pending().await,
            Deed::AnswerLate => owed = frame(dialect, &answer(&message)),
        }
        stream.flush().await?;
    }
}

/// The deed leaves the payment unanswered; then the peer is good, and the same
/// payment gets its answer.
async fn does_no_harm(what: &str, deed: Deed) {
    let [ascii, bcd, ebcdic] = DIALECTS.map(|name| leaves_no_trace(what, name, deed));
    tokio::join!(ascii, bcd, ebcdic);
}

async fn leaves_no_trace(what: &str, name: &str, deed: Deed) {
    let set = with(name, deed).await;
    let sale = Sale::new(1);
    let told = sale
        .ask_within(&set.client, Operation::AuthoriseOnline, 1, SHORT_MS * 4)
        .await;
    assert!(is_no_answer(&told), "{what}, {name}: {told:?}");
    assert!(
        set.shared.payments.load(Ordering::SeqCst) >= 1,
        "{what}, {name}: it was sent"
    );
    set.shared.good.store(true, Ordering::SeqCst);
    let result = sale
        .ask_until_final(&set.client, Operation::AuthoriseDeferred)
        .await;
    assert!(result.approved, "{what}, {name}");
}

/// The answer that would be right, changed.
fn changed(dialect: &Dialect, message: &Message, number: u8, text: &str) -> Vec<u8> {
    let mut answer = answer(message);
    answer.set(number, text);
    frame(dialect, &answer)
}

/// The right answer's frame, and where its bitmap begins.
fn bitmap(dialect: &Dialect, message: &Message) -> (Vec<u8>, usize) {
    let frame = frame(dialect, &answer(message));
    let mti = if dialect.name.starts_with("BCD") { 2 } else { 4 };
    let at = dialect.framing.length.size() + dialect.framing.header.len() + mti;
    (frame, at)
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_no_answer() {
    does_no_harm("garbage", Deed::Say(|_, _| vec![0x5a; 3000])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_protocol_is_no_answer() {
    let page = |_: &Dialect, _: &Message| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n00".to_vec();
    does_no_harm("HTTP", Deed::SayAndHangUp(page)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bitmap_that_names_fields_which_are_not_there_is_no_answer() {
    let all = |dialect: &Dialect, message: &Message| {
        let (mut frame, at) = bitmap(dialect, message);
        // In hex, F is a digit that every bit of is set; in EBCDIC the bitmap
        // is binary.
        let ones = if dialect.name.starts_with("ASCII") {
            b'F'
        } else {
            0xff
        };
        frame[at..at + 8].fill(ones);
        frame
    };
    does_no_harm("wrong bitmap", Deed::Say(all)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bitmap_that_leaves_fields_out_is_no_answer() {
    let none = |dialect: &Dialect, message: &Message| {
        let (mut frame, at) = bitmap(dialect, message);
        let zeros = if dialect.name.starts_with("ASCII") {
            b'0'
        } else {
            0
        };
        frame[at..at + 8].fill(zeros);
        frame
    };
    does_no_harm("empty bitmap", Deed::Say(none)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_length_is_no_answer_and_nothing_is_allocated_for_it() {
    let huge = |dialect: &Dialect, _: &Message| match dialect.framing.length.size() {
        4 => b"9999".to_vec(),
        _ => vec![0xff; 2],
    };
    does_no_harm("huge length", Deed::Say(huge)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_of_nothing_is_no_answer() {
    let nothing = |dialect: &Dialect, _: &Message| match dialect.framing.length.size() {
        4 => b"0000".to_vec(),
        _ => vec![0; 2],
    };
    does_no_harm("zero length", Deed::Say(nothing)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_no_answer() {
    let half = |dialect: &Dialect, message: &Message| {
        let mut frame = frame(dialect, &answer(message));
        frame.truncate(frame.len() / 2);
        frame
    };
    does_no_harm("half an answer", Deed::SayAndHangUp(half)).await;
    does_no_harm("half an answer and silence", Deed::Say(half)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_is_no_answer() {
    does_no_harm("hanging up", Deed::SayAndHangUp(|_, _| Vec::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_no_answer() {
    does_no_harm("silence", Deed::Say(|_, _| Vec::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_with_another_trace_number_is_no_answer() {
    does_no_harm("wrong STAN", Deed::Say(|d, m| changed(d, m, 11, "999999"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_with_another_reference_is_no_answer() {
    does_no_harm("wrong RRN", Deed::Say(|d, m| changed(d, m, 37, "000000000001"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_of_another_amount_is_no_answer() {
    does_no_harm("wrong amount", Deed::Say(|d, m| changed(d, m, 4, "000000000001"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_of_another_terminal_is_no_answer() {
    does_no_harm("wrong terminal", Deed::Say(|d, m| changed(d, m, 41, "NOTMINE1"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_another_kind_of_question_is_no_answer() {
    let reversed = |dialect: &Dialect, message: &Message| {
        let mut answer = answer(message);
        answer.mti = "0430".parse().unwrap();
        frame(dialect, &answer)
    };
    does_no_harm("wrong type", Deed::Say(reversed)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_response_code_is_no_answer() {
    let mute = |dialect: &Dialect, message: &Message| {
        let mut answer = answer(message);
        answer.remove(39);
        frame(dialect, &answer)
    };
    does_no_harm("no response code", Deed::Say(mute)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_sent_back_as_it_came_is_no_answer() {
    does_no_harm("an echo", Deed::Say(frame)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_floods_loses_its_connection() {
    let flood = |dialect: &Dialect, message: &Message| {
        let mut other = answer(message);
        other.set(11, "999999");
        frame(dialect, &other).repeat(1200)
    };
    let set = with("bcd", Deed::Say(flood)).await;
    let told = Sale::new(1).ask(&set.client, Operation::AuthoriseOnline, 1).await;
    let GatewayAnswer::NoAnswer { detail } = told else {
        panic!("{told:?}");
    };
    // Long before the deadline.
    assert_eq!(detail, "the acquirer answers what nobody asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_reads_holds_up_nothing_beyond_its_deadline() {
    let set = with("ascii", Deed::StopReading).await;
    let client = Arc::new(set.client);
    let asked: Vec<_> = (0..200)
        .map(|number| {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                Sale::new(number)
                    .ask_within(&client, Operation::AuthoriseOnline, 1, SHORT_MS)
                    .await
            })
        })
        .collect();
    for asked in asked {
        assert!(is_no_answer(&asked.await.unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_after_the_deadline_is_ignored_and_the_line_stays() {
    let set = with("ebcdic", Deed::AnswerLate).await;
    let late = Sale::new(1)
        .ask_within(&set.client, Operation::AuthoriseOnline, 1, SHORT_MS)
        .await;
    assert!(is_no_answer(&late), "{late:?}");
    set.shared.good.store(true, Ordering::SeqCst);
    // The late answer to the first comes right before that to the second.
    let second = Sale::new(2);
    let result = second
        .ask_until_final(&set.client, Operation::AuthoriseOnline)
        .await;
    assert!(result.reference.unwrap().ends_with("000002"));
    assert_eq!(set.shared.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acquirer_that_is_not_there_is_no_answer_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = certificates(dir.path());
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        free.local_addr().unwrap().port()
    };
    let client = Acquirer::new(settings(dialect("ascii"), port, &certificates)).unwrap();
    let told = Sale::new(1).ask(&client, Operation::AuthoriseOnline, 1).await;
    let GatewayAnswer::NoAnswer { detail } = told else {
        panic!("{told:?}");
    };
    assert!(detail.starts_with("not reached"), "{detail}");
    assert!(!client.probe(PATIENCE).await.ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_is_refused_with_the_references_that_a_person_asks_for() {
    let set = with("ascii", Deed::Approve).await;
    let told = Sale::new(41).ask(&set.client, Operation::LookUp, 1).await;
    let GatewayAnswer::Unsendable { detail } = told else {
        panic!("{told:?}");
    };
    assert!(
        detail.contains("626414000041") && detail.contains("000041 "),
        "{detail}"
    );
    assert!(detail.len() <= 200, "whole in the ledger");
    assert_eq!(set.shared.payments.load(Ordering::SeqCst), 0, "nothing is sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_echo_tests_without_an_answer_end_a_dead_connection() {
    let set = with("bcd", Deed::StopReading).await;
    let sale = Sale::new(1);
    let told = sale
        .ask_within(&set.client, Operation::AuthoriseOnline, 1, SHORT_MS)
        .await;
    assert!(is_no_answer(&told));
    set.shared.good.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(!set.client.probe(Duration::from_millis(50)).await.ok);
    }
    let result = sale
        .ask_until_final(&set.client, Operation::AuthoriseDeferred)
        .await;
    assert!(result.approved, "on a new connection");
}
