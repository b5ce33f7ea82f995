//! A WAN that can be cut: a TCP proxy between a hub and its gateway.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

/// The most connections at a time; more wait to be taken.
const CONNECTIONS: usize = 1024;

/// How long the proxy tries to reach the gateway.
const CONNECT: Duration = Duration::from_secs(10);

/// How often a hub that waits for a silent line is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The most bytes passed on at once.
const CHUNK: usize = 16 * 1024;

/// How the line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WanMode {
    /// Bytes pass.
    Up,
    /// The router is off: open connections are reset, new ones too.
    Refuse,
    /// The cable is out: open and new connections fall silent, and nobody is
    /// told. What was under way arrives when the line is back, as TCP has it,
    /// if its connection still stands: late calls are real.
    Blackhole,
}

/// What went through since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WanCounts {
    /// Connections taken, refused ones included.
    pub connections: u64,
    /// Connections reset because of [`WanMode::Refuse`].
    pub reset: u64,
    /// Bytes from hub to gateway.
    pub up_bytes: u64,
    /// Bytes from gateway to hub.
    pub down_bytes: u64,
}

#[derive(Default)]
struct Counters {
    connections: AtomicU64,
    reset: AtomicU64,
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    mode: WanMode,
    delay: Duration,
}

/// The line. Dropped, it resets what is open.
pub struct Wan {
    address: SocketAddr,
    line: watch::Sender<Line>,
    target: watch::Sender<SocketAddr>,
    counters: Arc<Counters>,
    accepting: JoinHandle<()>,
}

impl Wan {
    /// Listens on a free loopback port and passes bytes on to `target`.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let line = watch::Sender::new(Line {
            mode: WanMode::Up,
            delay: Duration::ZERO,
        });
        let target = watch::Sender::new(target);
        let counters = Arc::new(Counters::default());
        let accepting = tokio::spawn(accept_all(
            listener,
            target.subscribe(),
            line.subscribe(),
            Arc::clone(&counters),
        ));
        Ok(Self {
            address,
            line,
            target,
            counters,
            accepting,
        })
    }

    /// Where the hub is to find its gateway.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a base address.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Changes how the line is, open connections included.
    pub fn set(&self, mode: WanMode) {
        self.line.send_modify(|line| line.mode = mode);
    }

    /// How the line is.
    pub fn mode(&self) -> WanMode {
        self.line.borrow().mode
    }

    /// Holds every chunk of bytes back for so long, each way. Chunks of one
    /// connection wait one after the other, so long answers take a multiple.
    pub fn set_delay(&self, delay: Duration) {
        self.line.send_modify(|line| line.delay = delay);
    }

    /// Passes new connections on to another address: a gateway that was
    /// started again.
    pub fn set_target(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// What went through.
    pub fn counts(&self) -> WanCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WanCounts {
            connections: read(&self.counters.connections),
            reset: read(&self.counters.reset),
            up_bytes: read(&self.counters.up_bytes),
            down_bytes: read(&self.counters.down_bytes),
        }
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        // Connections end by themselves once `line` is gone.
        self.accepting.abort();
    }
}

async fn accept_all(
    listener: TcpListener,
    target: watch::Receiver<SocketAddr>,
    line: watch::Receiver<Line>,
    counters: Arc<Counters>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let Ok((hub, _)) = listener.accept().await else {
            // Out of descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        counters.connections.fetch_add(1, Ordering::Relaxed);
        let target = *target.borrow();
        tokio::spawn(carry(hub, target, line.clone(), Arc::clone(&counters), permit));
    }
}

/// Why a connection ends.
enum End {
    /// One side hung up, or failed.
    Closed,
    /// The line was cut.
    Cut,
}

async fn carry(
    hub: TcpStream,
    target: SocketAddr,
    mut line: watch::Receiver<Line>,
    counters: Arc<Counters>,
    _permit: OwnedSemaphorePermit,
) {
    let mut gateway = None;
    let end = carry_open(&hub, target, &mut line, &mut gateway).await;
    let (Some(gateway), None) = (gateway, &end) else {
        if matches!(end, Some(End::Cut)) {
            counters.reset.fetch_add(1, Ordering::Relaxed);
        }
        // A reset, not an orderly end: that is what a dead router gives.
        let _ = hub.set_zero_linger();
        return;
    };
    let _ = (hub.set_nodelay(true), gateway.set_nodelay(true));
    let (hub_read, hub_write) = hub.into_split();
    let (gateway_read, gateway_write) = gateway.into_split();
    let mut upward = Direction::new(hub_read, gateway_write, line.clone());
    let mut downward = Direction::new(gateway_read, hub_write, line.clone());
    let end = tokio::select! {
        end = both(&mut upward, &mut downward, &counters) => end,
        () = cut(&mut line) => End::Cut,
    };
    if matches!(end, End::Cut) {
        counters.reset.fetch_add(1, Ordering::Relaxed);
        let _ = upward.from.as_ref().set_zero_linger();
        let _ = downward.from.as_ref().set_zero_linger();
    }
}

/// Reaches the gateway, once the line is up. `Some` if that came to nothing.
async fn carry_open(
    hub: &TcpStream,
    target: SocketAddr,
    line: &mut watch::Receiver<Line>,
    gateway: &mut Option<TcpStream>,
) -> Option<End> {
    let reach = async {
        loop {
            let up = line.wait_for(|line| line.mode != WanMode::Blackhole).await;
            match up.map(|line| line.mode) {
                Ok(WanMode::Up) => break,
                Ok(WanMode::Refuse) => return Some(End::Cut),
                Ok(WanMode::Blackhole) => {}
                Err(_) => return Some(End::Closed),
            }
        }
        match tokio::time::timeout(CONNECT, TcpStream::connect(target)).await {
            Ok(Ok(stream)) => {
                *gateway = Some(stream);
                None
            }
            _ => Some(End::Closed),
        }
    };
    tokio::select! {
        end = reach => end,
        // A hub that gave up waiting is not kept.
        () = hung_up(hub) => Some(End::Closed),
    }
}

/// Ends when the hub has hung up, looked at now and then: what it has sent
/// stays unread, so there is no end of file to wait for.
async fn hung_up(hub: &TcpStream) {
    loop {
        match hub.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => tokio::time::sleep(LOOK).await,
            _ => return,
        }
    }
}

/// Ends when the line is to drop its connections.
async fn cut(line: &mut watch::Receiver<Line>) {
    // An error means that the line itself is gone.
    let _ = line.wait_for(|line| line.mode == WanMode::Refuse).await;
}

async fn both(upward: &mut Direction, downward: &mut Direction, counters: &Counters) -> End {
    let (up, down) = tokio::join!(upward.run(&counters.up_bytes), downward.run(&counters.down_bytes));
    match (up, down) {
        (End::Cut, _) | (_, End::Cut) => End::Cut,
        _ => End::Closed,
    }
}

struct Direction {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    line: watch::Receiver<Line>,
}

impl Direction {
    fn new(from: OwnedReadHalf, to: OwnedWriteHalf, line: watch::Receiver<Line>) -> Self {
        Self { from, to, line }
    }

    /// Passes bytes on until one side hangs up. While the line is silent
    /// nothing is taken off the sockets, so that it waits where TCP keeps it.
    async fn run(&mut self, counter: &AtomicU64) -> End {
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match self.from.read(&mut chunk).await {
                Ok(0) | Err(_) => 0,
                Ok(read) => read,
            };
            let delay = self.line.borrow().delay;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            // The end of a connection does not pass a silent line either.
            let up = self.line.wait_for(|line| line.mode != WanMode::Blackhole).await;
            match up.map(|line| line.mode) {
                Ok(WanMode::Up) => {}
                _ => return End::Cut,
            }
            if read == 0 {
                let _ = self.to.shutdown().await;
                return End::Closed;
            }
            if self.to.write_all(&chunk[..read]).await.is_err() {
                return End::Closed;
            }
            counter.fetch_add(read as u64, Ordering::Relaxed);
        }
    }
}
