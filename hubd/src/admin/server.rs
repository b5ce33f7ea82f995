//! The socket: who may ask, how much, how many.

use std::fs::Permissions;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hub_core::Disclosed;
use hub_protocol::entry::Finding;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::backend::{Backend, EnrolOrder, Operator, Refused};
use super::protocol::{Answer, ErrorCode, Found, MAX_ANSWER, MAX_QUEUE_LIMIT, MAX_REQUEST, Request};

/// The most connections at one time; one more is told to come again.
const MAX_CONNECTIONS: usize = 16;

/// How long a connection may be silent before it is closed.
const IDLE: Duration = Duration::from_secs(60);

/// How long a peer may take to read an answer.
const WRITE: Duration = Duration::from_secs(10);

/// Where the socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its path, at most [`MAX_SOCKET_PATH`](crate::config::MAX_SOCKET_PATH)
    /// bytes.
    pub socket: PathBuf,
}

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A hub runs on this folder already.
    #[error("{0} is answered by another process: a hub runs on this folder already")]
    InUse(PathBuf),
    /// Something that is no socket is in the way.
    #[error("{0} is not a socket; move it away, or set [admin] socket to another path")]
    NotASocket(PathBuf),
    /// The system says no.
    #[error("cannot open the admin socket {path}: {source}")]
    Open {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The open socket.
#[derive(Debug)]
pub struct AdminServer {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminServer {
    /// Opens the socket, 0600 from its first moment. One that a dead hub
    /// left behind is replaced. Needs a tokio runtime.
    pub fn bind(settings: &Settings) -> Result<Self, AdminError> {
        let path = settings.socket.clone();
        let open = |source| AdminError::Open {
            path: path.clone(),
            source,
        };
        match path.symlink_metadata() {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(AdminError::NotASocket(path));
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(&path).is_ok() => {
                return Err(AdminError::InUse(path));
            }
            _ => {}
        }
        // bind() makes the socket with the umask's mode: under another name
        // until its mode is right, so that nobody connects in between.
        let mut new = path.clone().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(open(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&new).map_err(&open)?;
        std::fs::set_permissions(&new, Permissions::from_mode(0o600)).map_err(&open)?;
        std::fs::rename(&new, &path).map_err(&open)?;
        Ok(Self { listener, path })
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until `stop` is ready; then ends all connections and removes
    /// the socket.
    pub async fn serve<B: Backend>(self, backend: Arc<B>, stop: impl Future<Output = ()>) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let stream = tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of descriptors, most likely: give others time
                        // to end instead of spinning.
                        tracing::warn!(%error, "the admin socket cannot accept");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        continue;
                    }
                },
            };
            match room.clone().try_acquire_owned() {
                Ok(permit) => {
                    let backend = backend.clone();
                    connections.spawn(async move {
                        let _permit = permit;
                        if let Err(error) = connection(stream, backend.as_ref()).await {
                            tracing::debug!(%error, "an admin connection ended");
                        }
                    });
                }
                // Into the socket's buffer, so that this loop never waits.
                Err(_) => turn_away(&stream),
            }
        }
        connections.shutdown().await;
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the admin socket was gone already");
        }
    }
}

fn turn_away(stream: &UnixStream) {
    let answer = refusal(
        ErrorCode::Unavailable,
        format!("{MAX_CONNECTIONS} connections are open already; try again in a moment"),
    );
    let _ = stream.try_write(&line(&answer));
}

/// Root may do anything anyway; the daemon's own user owns the files.
fn may_ask(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own
}

async fn connection<B: Backend>(stream: UnixStream, backend: &B) -> io::Result<()> {
    let operator = Operator {
        uid: stream.peer_cred()?.uid(),
    };
    let (read, mut write) = stream.into_split();
    if !may_ask(operator.uid, rustix::process::geteuid().as_raw()) {
        tracing::warn!(%operator, "refused on the admin socket");
        let answer = refusal(
            ErrorCode::Forbidden,
            "only root and the hub's own user may ask".to_owned(),
        );
        return send(&mut write, &answer).await;
    }
    let mut read = BufReader::new(read);
    loop {
        let answer = match timeout(IDLE, read_line(&mut read)).await {
            Err(_) | Ok(Ok(Line::End)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(Line::TooLong)) => {
                // What follows cannot be told apart from the rest of it.
                let message = format!("a request is at most {MAX_REQUEST} bytes");
                return send(&mut write, &refusal(ErrorCode::Malformed, message)).await;
            }
            Ok(Ok(Line::Whole(bytes))) => answer(&bytes, operator, backend).await,
        };
        send(&mut write, &answer).await?;
    }
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
    End,
}

async fn read_line<R: AsyncBufRead + Unpin>(read: &mut R) -> io::Result<Line> {
    let mut bytes = Vec::new();
    read.take(MAX_REQUEST as u64 + 1)
        .read_until(b'\n', &mut bytes)
        .await?;
    Ok(match bytes.last() {
        Some(b'\n') => Line::Whole(bytes),
        _ if bytes.len() > MAX_REQUEST => Line::TooLong,
        _ => Line::End,
    })
}

async fn send<W: AsyncWriteExt + Unpin>(write: &mut W, answer: &Answer) -> io::Result<()> {
    let mut bytes = line(answer);
    if bytes.len() > MAX_ANSWER {
        bytes = line(&refusal(
            ErrorCode::Refused,
            "the answer is too long; ask for less".to_owned(),
        ));
    }
    timeout(WRITE, write.write_all(&bytes))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}

fn line(answer: &Answer) -> Vec<u8> {
    // Strings and numbers only: there is nothing that JSON could not hold.
    let mut bytes = serde_json::to_vec(answer).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn refusal(code: ErrorCode, message: String) -> Answer {
    Answer::Error { code, message }
}

async fn answer<B: Backend>(bytes: &[u8], operator: Operator, backend: &B) -> Answer {
    let request = match serde_json::from_slice(bytes) {
        Ok(request) => request,
        Err(error) => {
            return refusal(
                ErrorCode::Malformed,
                format!("not a request that this hub knows: {error}"),
            );
        }
    };
    match dispatch(request, operator, backend).await {
        Ok(answer) => answer,
        Err(Refused { code, message }) => refusal(code, message),
    }
}

async fn dispatch<B: Backend>(request: Request, operator: Operator, backend: &B) -> Result<Answer, Refused> {
    let done = |()| Answer::Done;
    match request {
        Request::Status => Ok(Answer::Status(Box::new(backend.status().await?))),
        Request::Devices => Ok(Answer::Devices {
            devices: backend.devices().await?,
        }),
        Request::Enrol {
            class,
            fleet,
            replaces,
            lost,
        } => {
            let class = class.parse().map_err(|_| Refused {
                code: ErrorCode::Malformed,
                message: "class: mpos, softpos or terminal expected".to_owned(),
            })?;
            let order = match (fleet, replaces) {
                (None, None) if !lost => EnrolOrder::One(class),
                (Some(order), None) if !lost => EnrolOrder::Fleet(class, order),
                (None, Some(device)) => EnrolOrder::Replacing {
                    class,
                    device: id(&device)?,
                    lost,
                },
                _ => {
                    return Err(Refused {
                        code: ErrorCode::Malformed,
                        message: "either fleet or replaces expected, and lost only with replaces".to_owned(),
                    });
                }
            };
            Ok(Answer::Enrol(Box::new(backend.enrol(operator, order).await?)))
        }
        Request::Fleet => Ok(Answer::Fleet(backend.fleet().await?)),
        Request::FleetWithdraw { token } => backend.withdraw(operator, id(&token)?).await.map(done),
        Request::FleetApply { list } => {
            let signed = STANDARD.decode(list).map_err(|error| Refused {
                code: ErrorCode::Malformed,
                message: format!("list: base64 expected: {error}"),
            })?;
            Ok(Answer::List(backend.take_list(operator, signed).await?))
        }
        Request::Approve { device } => backend.approve(operator, id(&device)?).await.map(done),
        Request::Block { device } => backend.block(operator, id(&device)?).await.map(done),
        Request::Lost { device } => backend.lost(operator, id(&device)?).await.map(done),
        Request::Unblock { device } => backend.unblock(operator, id(&device)?).await.map(done),
        Request::Queue { limit, parked } if (1..=MAX_QUEUE_LIMIT).contains(&limit) => {
            Ok(Answer::Queue(backend.queue(limit, parked).await?))
        }
        Request::Queue { .. } => Err(Refused {
            code: ErrorCode::Malformed,
            message: format!("limit: a whole number from 1 to {MAX_QUEUE_LIMIT} expected"),
        }),
        Request::Drain => backend.drain(operator).await.map(done),
        Request::Release {
            payment_id,
            not_there,
        } => {
            let payment = id(&payment_id)?;
            backend.release(operator, payment, not_there).await.map(done)
        }
        Request::Close {
            payment_id,
            finding,
            note,
        } => {
            let finding = match finding {
                Found::NotThere => Finding::NotThere,
                Found::Taken => Finding::Taken,
                Found::Undone => Finding::Undone,
            };
            let payment = id(&payment_id)?;
            backend.close(operator, payment, finding, note).await.map(done)
        }
        Request::Park { payment_id } => backend.park(operator, id(&payment_id)?).await.map(done),
        Request::Lift { device } => {
            let device = device.as_deref().map(id).transpose()?;
            backend.lift(operator, device).await.map(done)
        }
        Request::ClockConfirm { told_ms } => backend.confirm_clock(operator, told_ms).await.map(done),
        Request::ArchiveExported { number, digest } => {
            let digest = id(&digest)?;
            backend.archive_exported(operator, number, digest).await.map(done)
        }
        Request::Disclosed {
            entries,
            first,
            last,
            payments,
        } => {
            let payments = payments
                .iter()
                .map(|payment| id(payment))
                .collect::<Result<_, _>>()?;
            let disclosed = Disclosed {
                entries,
                first,
                last,
                payments,
            };
            backend.disclosed(operator, disclosed).await.map(done)
        }
        Request::ArchiveRemove { through } => backend.remove_archives(operator, through).await.map(done),
        Request::Keys => Ok(Answer::Keys {
            keys: backend.keys().await?,
        }),
        Request::KeysRotateVault => Ok(Answer::Keys {
            keys: backend.rotate_vault_key(operator).await?,
        }),
        Request::KeysRotateSigning { confirmed } => Ok(Answer::Rotation(Box::new(
            backend.rotate_signing_key(operator, confirmed).await?,
        ))),
        Request::KeysRotateTls { step, confirmed } => Ok(Answer::Rotation(Box::new(
            backend.rotate_tls_key(operator, step, confirmed).await?,
        ))),
        Request::PolicyInstall { policy } => {
            let signed = STANDARD.decode(policy).map_err(|error| Refused {
                code: ErrorCode::Malformed,
                message: format!("policy: base64 expected: {error}"),
            })?;
            Ok(Answer::Policy(backend.install_policy(operator, signed).await?))
        }
        Request::RootApply { root } => {
            let signed = STANDARD.decode(root).map_err(|error| Refused {
                code: ErrorCode::Malformed,
                message: format!("root: base64 expected: {error}"),
            })?;
            Ok(Answer::Root(backend.apply_root(operator, signed).await?))
        }
    }
}

fn id<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Refused> {
    text.parse().map_err(|error: T::Err| Refused {
        code: ErrorCode::Malformed,
        message: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
