//! The book's file: lines of JSON, appended and flushed before anybody is
//! answered.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

/// The most lines that share one flush.
const GROUP: usize = 512;

struct Entry {
    line: Vec<u8>,
    flushed: oneshot::Sender<()>,
}

/// Appends lines and flushes them, many at a time if many wait.
pub(super) struct Journal {
    sender: Option<Sender<Entry>>,
    writer: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens or makes the file and gives the lines that it holds. An
    /// unfinished last line, the trace of a crash, is cut off: nobody was
    /// answered for it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<String>)> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            tracing::warn!(
                bytes = bytes.len() - whole,
                "cut an unfinished line off the gateway's book"
            );
            file.set_len(whole as u64)?;
        }
        file.seek(SeekFrom::Start(whole as u64))?;
        file.sync_all()?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        bytes.truncate(whole);
        let text =
            String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let lines = text.lines().map(str::to_owned).collect();
        let (sender, receiver) = channel();
        let writer = std::thread::Builder::new()
            .name("gateway-book".to_owned())
            .spawn(move || write_all(file, &receiver))?;
        Ok((
            Self {
                sender: Some(sender),
                writer: Some(writer),
            },
            lines,
        ))
    }

    /// Queues a line (without its line feed). The receiver hears when it is
    /// on disk; if that fails, the receiver is closed instead.
    pub(super) fn append(&self, mut line: Vec<u8>) -> oneshot::Receiver<()> {
        line.push(b'\n');
        let (flushed, receiver) = oneshot::channel();
        if let Some(sender) = &self.sender {
            // A closed writer drops the entry, and with it `flushed`.
            let _ = sender.send(Entry { line, flushed });
        }
        receiver
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write_all(mut file: File, receiver: &Receiver<Entry>) {
    while let Ok(first) = receiver.recv() {
        let mut group = vec![first];
        group.extend(receiver.try_iter().take(GROUP - 1));
        let bytes: Vec<u8> = group
            .iter()
            .flat_map(|entry| entry.line.iter().copied())
            .collect();
        if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
            tracing::error!(%error, "the gateway's book cannot be written; the gateway answers nothing more");
            return;
        }
        for entry in group {
            let _ = entry.flushed.send(());
        }
    }
}
