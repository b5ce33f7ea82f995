//! The settlement file: what the PSP would pay out.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::book::BookPayment;

/// The settlement file and its totals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// Where it is.
    pub path: PathBuf,
    /// Payments whose money is gone.
    pub charges: u64,
    /// Their sum, in minor units; refunds are taken off.
    pub total_minor: i64,
}

/// Writes all payments and a line of totals to `dir/settlement.csv`. The file
/// appears whole or not at all.
pub(super) fn write(dir: &Path, payments: &[BookPayment]) -> io::Result<Settlement> {
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record([
        "payment_id",
        "order_id",
        "amount_minor",
        "currency",
        "transaction_type",
        "operation",
        "reference",
        "status",
    ])?;
    for payment in payments {
        table.write_record([
            &payment.payment_id,
            &payment.order_id,
            &payment.amount_minor.to_string(),
            &payment.currency,
            &payment.transaction_type,
            &payment.operation,
            &payment.reference,
            payment.status.name(),
        ])?;
    }
    let charged = || payments.iter().filter(|p| p.stands());
    let settlement = Settlement {
        path: dir.join("settlement.csv"),
        charges: charged().count() as u64,
        total_minor: charged().map(BookPayment::paid_out_minor).sum(),
    };
    let mut currencies: Vec<_> = charged().map(|p| p.currency.as_str()).collect();
    currencies.dedup();
    let currency = match currencies.as_slice() {
        [] => "",
        [one] => one,
        _ => "mixed",
    };
    let (charges, total) = (settlement.charges.to_string(), settlement.total_minor.to_string());
    table.write_record(["total", &charges, &total, currency, "", "", "", "charged"])?;
    let bytes = table.into_inner().map_err(|error| error.into_error())?;
    let unfinished = dir.join("settlement.csv.tmp");
    let mut file = File::create(&unfinished)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, &settlement.path)?;
    File::open(dir)?.sync_all()?;
    Ok(settlement)
}
