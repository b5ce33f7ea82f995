//! Torn writes are cut; damage never is.

use tempfile::{TempDir, tempdir};

use super::*;

/// A journal whose last group has several entries and spans sectors.
/// Returns the segment's bytes, where the last group begins, and the heads
/// before and after it.
struct Sample {
    dir: TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
    group: usize,
    end: usize,
    before: Head,
    after: Head,
}

fn sample(earlier: &[usize], last: usize, size: usize) -> Sample {
    let dir = tempdir().unwrap();
    let (mut journal, _) = open_with(dir.path(), 16384).unwrap();
    append(&mut journal, earlier, size);
    let path = segments(dir.path()).pop().unwrap();
    let group = written(&std::fs::read(&path).unwrap());
    let before = journal.head();
    append(&mut journal, &[last], size);
    let after = journal.head();
    drop(journal);
    assert_eq!(segments(dir.path()).len(), 1);
    let bytes = std::fs::read(&path).unwrap();
    let end = written(&bytes);
    Sample {
        dir,
        path,
        bytes,
        group,
        end,
        before,
        after,
    }
}

impl Sample {
    fn open_with_bytes(&self, bytes: &[u8]) -> Result<(Journal, OpenReport), LedgerError> {
        std::fs::write(&self.path, bytes).unwrap();
        open_with(self.dir.path(), 16384)
    }

    fn assert_cut(&self, bytes: &[u8], what: &str) {
        let torn = written(bytes).saturating_sub(self.group) as u64;
        let (mut journal, report) = match self.open_with_bytes(bytes) {
            Ok(opened) => opened,
            Err(error) => panic!("{what}: {error}"),
        };
        assert_eq!((report.head, report.torn_bytes), (self.before, torn), "{what}");
        let left = std::fs::read(&self.path).unwrap();
        assert!(left[self.group..].iter().all(|b| *b == 0), "{what}: stale bytes");
        append(&mut journal, &[1], 60);
        drop(journal);
        let (_, report) = open_with(self.dir.path(), 16384).unwrap();
        assert_eq!(
            (report.head.sequence, report.torn_bytes),
            (self.before.sequence + 1, 0)
        );
    }

    fn assert_refused(&self, bytes: &[u8], what: &str) {
        match self.open_with_bytes(bytes) {
            Err(LedgerError::Damaged(_) | LedgerError::NewerFormat { .. } | LedgerError::OtherHub { .. }) => {
            }
            Err(error) => panic!("{what}: {error}"),
            Ok((_, report)) => panic!("{what}: opened as {report:?}"),
        }
        assert_eq!(std::fs::read(&self.path).unwrap(), bytes, "{what}: changed");
    }
}

#[test]
fn a_last_group_cut_short_at_any_byte_is_cut_whole_and_the_journal_goes_on() {
    let sample = sample(&[2, 1], 3, 250);
    for cut in sample.group..sample.end {
        let mut bytes = sample.bytes.clone();
        bytes[cut..].fill(0);
        sample.assert_cut(&bytes, &format!("cut at {cut}"));
    }
    let (_, report) = sample.open_with_bytes(&sample.bytes).unwrap();
    assert_eq!(report.head, sample.after, "and the whole group stays");
}

#[test]
fn a_last_group_that_lost_any_of_its_sectors_is_cut_whole() {
    let sample = sample(&[1], 6, 400);
    let sectors: Vec<(usize, usize)> = (sample.group / 512..=(sample.end - 1) / 512)
        .map(|n| ((n * 512).max(sample.group), (n * 512 + 512).min(sample.end)))
        .collect();
    assert!((4..12).contains(&sectors.len()), "{}", sectors.len());
    for lost in 1_u32..1 << sectors.len() {
        let mut bytes = sample.bytes.clone();
        for (n, (from, to)) in sectors.iter().enumerate() {
            if lost & (1 << n) != 0 {
                bytes[*from..*to].fill(0);
            }
        }
        sample.assert_cut(&bytes, &format!("lost {lost:b}"));
    }
}

#[test]
fn every_flipped_bit_of_the_written_part_is_refused_and_nothing_is_changed() {
    let sample = sample(&[1, 2], 2, 40);
    for bit in 0..sample.end * 8 {
        let mut bytes = sample.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        sample.assert_refused(&bytes, &format!("byte {}, bit {}", bit / 8, bit % 8));
    }
}

#[test]
fn a_lost_sector_below_the_last_group_is_damage() {
    let sample = sample(&[3, 3, 3], 1, 300);
    for sector in 0..sample.group / 512 {
        let mut bytes = sample.bytes.clone();
        bytes[sector * 512..(sector + 1) * 512].fill(0);
        sample.assert_refused(&bytes, &format!("sector {sector}"));
    }
}

#[test]
fn bytes_behind_the_written_part_never_cost_an_acknowledged_entry() {
    let sample = sample(&[1], 1, 40);
    let dense = sample.end..sample.end + 600;
    for at in dense.chain((sample.end + 600..sample.bytes.len()).step_by(997)) {
        let mut bytes = sample.bytes.clone();
        bytes[at] = 0x55;
        // Where the next group's length would stand, or behind a lost sector,
        // a byte can be what is left of a torn write. Elsewhere it cannot.
        let explained = at < sample.end + 2 || at / 512 > sample.end / 512;
        if explained {
            let (_, report) = sample.open_with_bytes(&bytes).unwrap();
            assert_eq!(report.head, sample.after);
            assert_eq!(report.torn_bytes, (at + 1 - sample.end) as u64);
        } else {
            sample.assert_refused(&bytes, &format!("at {at}"));
        }
    }
}

#[test]
fn a_torn_footer_is_cut_and_written_again() {
    let dir = tempdir().unwrap();
    let (mut journal, _) = open_with(dir.path(), 4096).unwrap();
    append(&mut journal, &[3, 3, 3], 250);
    assert_eq!(segments(dir.path()).len(), 2);
    drop(journal);
    let paths = segments(dir.path());
    std::fs::remove_file(&paths[1]).unwrap();
    let closed = std::fs::read(&paths[0]).unwrap();
    let (_, report) = open_with(dir.path(), 4096).unwrap();
    let head = report.head;
    let footer = {
        let seal = &closed[closed.len() - 12..];
        u32::from_le_bytes(seal[..4].try_into().unwrap()) as usize
    };
    for cut in footer..closed.len() {
        // Before what was kept free is given back.
        let mut bytes = closed.clone();
        bytes.resize(4096, 0);
        bytes[cut..].fill(0);
        std::fs::write(&paths[0], &bytes).unwrap();
        let torn = written(&bytes).saturating_sub(footer) as u64;
        let (mut journal, report) = open_with(dir.path(), 4096).unwrap();
        assert_eq!((report.head, report.torn_bytes), (head, torn));
        append(&mut journal, &[3], 250);
        drop(journal);
        let (_, report) = open_with(dir.path(), 4096).unwrap();
        assert_eq!(report.head.sequence, head.sequence + 3);
        assert_eq!(std::fs::read(&paths[0]).unwrap(), closed);
        std::fs::remove_file(&paths[1]).unwrap();
    }
    for bit in footer * 8..closed.len() * 8 {
        let mut bytes = closed.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&paths[0], &bytes).unwrap();
        let Err(error) = open_with(dir.path(), 4096) else {
            panic!("byte {} opened", bit / 8);
        };
        assert!(matches!(error, LedgerError::Damaged(_)), "{error}");
        assert_eq!(std::fs::read(&paths[0]).unwrap(), bytes);
    }
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

#[test]
fn acknowledged_entries_survive_any_series_of_power_cuts() {
    for seed in 0..12 {
        let mut numbers = Numbers(seed);
        let dir = tempdir().unwrap();
        let mut acknowledged = Head::EMPTY;
        for _ in 0..25 {
            let (mut journal, report) =
                open_with(dir.path(), 8192).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert_eq!(report.head, acknowledged, "seed {seed}");
            for _ in 0..numbers.below(4) {
                let (n, size) = (1 + numbers.below(5), 20 + numbers.below(400));
                append(&mut journal, &[n], size);
            }
            acknowledged = journal.head();
            // The next group goes out, and the power is cut before its flush.
            let before: std::collections::BTreeMap<_, _> = contents(dir.path()).into_iter().collect();
            let (n, size) = (1 + numbers.below(5), 20 + numbers.below(400));
            append(&mut journal, &[n], size);
            drop(journal);
            let path = segments(dir.path()).pop().unwrap();
            let Some(old) = before.get(&path) else {
                // It began a new segment. Its name was durable before the
                // group was written: only the group is torn.
                let mut bytes = std::fs::read(&path).unwrap();
                let cut = segment::HEADER_LEN + numbers.below(written(&bytes) - segment::HEADER_LEN);
                bytes[cut..].fill(0);
                std::fs::write(&path, bytes).unwrap();
                continue;
            };
            let new = std::fs::read(&path).unwrap();
            let mut torn = new.clone();
            let changed = (written(old), written(&new));
            let mut lost = false;
            for sector in changed.0 / 512..=(changed.1 - 1) / 512 {
                let (from, to) = ((sector * 512).max(changed.0), (sector * 512 + 512).min(changed.1));
                if numbers.below(2) == 0 {
                    torn[from..to].fill(0);
                    lost |= new[from..to].iter().any(|b| *b != 0);
                }
            }
            if !lost {
                torn[changed.1 - 1] = 0;
            }
            std::fs::write(&path, torn).unwrap();
        }
        let public = key().verifying_key();
        drop(open_with(dir.path(), 8192).unwrap());
        let report = super::verify(dir.path(), &public, &mut |_| {}).unwrap();
        assert_eq!((report.broken, report.head), (None, acknowledged), "seed {seed}");
    }
}

#[test]
fn an_unflushed_group_that_a_killed_process_left_is_flushed_on_opening() {
    let dir = tempdir().unwrap();
    let (mut journal, _) = open(dir.path()).unwrap();
    append(&mut journal, &[1], 50);
    let head = journal.head();
    journal.disk().fail_from_now(2);
    let batch = payloads(head, 1, 50);
    assert!(journal.append(&batch).is_err());
    drop(journal);
    // The bytes are whole in the file although their flush failed: they may
    // stay, but then they are durable before anybody sees them.
    let (journal, report) = open(dir.path()).unwrap();
    assert_eq!(report.head.sequence, 2);
    assert_eq!(
        journal.reader().read(2).unwrap().len(),
        journal.reader().read(1).unwrap().len()
    );
}
