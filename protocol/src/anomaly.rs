//! What the hub notices of devices and cards, and what it does about it.

use crate::codes::codes;

codes! {
    /// What is odd about a payment.
    pub enum AnomalyKind {
        /// The same amount many times in a row at one device.
        EqualAmounts = 1, "equal-amounts";
        /// One card pays again and again just below its ceiling.
        CeilingSplit = 2, "ceiling-split";
        /// One card is used at many devices within a short time.
        CardAtDevices = 3, "card-at-devices";
        /// Several cards were declined at one device before: cards are being
        /// tried out.
        CardTesting = 4, "card-testing";
        /// The device's counter has been used before: a copy of the device, or
        /// an old backup of it.
        SequenceReused = 5, "sequence-reused";
        /// The device's counter has left many numbers out: payments that the
        /// hub has never seen.
        SequenceGap = 6, "sequence-gap";
        /// The device's clock differs much from the hub's.
        ClockSkew = 7, "clock-skew";
        /// The shop is closed at this time.
        OutsideHours = 8, "outside-hours";
        /// Many more payments than this shop usually has at this hour of the
        /// week.
        ArrivalRate = 9, "arrival-rate";
        /// An amount far above what is usual in this shop.
        UnusualAmount = 10, "unusual-amount";
        /// Requests whose signature is not the device's came over the device's
        /// own connection.
        BadSignatures = 11, "bad-signatures";
        /// Many refunds at one device, or by one member of staff.
        Refunds = 12, "refunds";
    }
}

codes! {
    /// How far offline approvals are restricted, at a device or in the store.
    pub enum Restriction {
        /// Not at all.
        None = 1, "none";
        /// Not at all, but somebody should look.
        Warned = 2, "warned";
        /// Ceilings are smaller.
        Tightened = 3, "tightened";
        /// Nothing is approved offline.
        Stopped = 4, "stopped";
    }
}

codes! {
    /// Why a restriction changed.
    pub enum RestrictionCause {
        /// Anomalies came together.
        Anomalies = 1, "anomalies";
        /// The gateway has answered for as long as the policy asks for.
        TimeOnline = 2, "time-online";
        /// A person lifted it.
        Operator = 3, "operator";
    }
}
