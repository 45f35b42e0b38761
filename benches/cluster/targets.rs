//! The targets of a cluster's performance: ratios of figures of the same run, and absolute values.

use super::contestant::{Kind, LARGE, SMALL};
use super::counters::NAMES;
use super::figures::{
    CATCH_UP, CORE, CPU, IDLE_FRESH, IDLE_USED, MEMORY, ONE, OWN, P50, SHARED_ONE_THREAD, SHARED_THREADS, TAIL,
    batched, part,
};
use super::sheet::Sheet;

/// A target, and what the run has measured.
pub struct Target {
    pub what: String,
    pub unit: &'static str,
    pub bound: Bound,
    pub measured: f64,
}

#[derive(Clone, Copy, Debug)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    pub fn is_reached(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.measured >= bound,
            Bound::AtMost(bound) => self.measured <= bound,
        }
    }
}

/// A contestant's figure.
type Cell = (Kind, String);

/// Returns the targets whose figures were measured.
pub fn of(sheet: &Sheet) -> Vec<Target> {
    let mut targets = Vec::new();
    let median = |(kind, figure): &Cell| sheet.median(kind.title(), figure);
    let mut absolute = |cell: Cell, unit, bound| {
        if let Some(measured) = median(&cell) {
            targets.push(Target { what: format!("{}: {}", cell.0.title(), cell.1), unit, bound, measured });
        }
    };
    let (tls, insecure) = (Kind::OursTls, Kind::OursInsecure);
    absolute((insecure, part(ONE, NAMES[0])), "a record", Bound::AtMost(35.0));
    absolute((insecure, part(ONE, NAMES[2])), "a record", Bound::AtMost(80.0));
    // 0.7 of what a call took before the work on single records.
    absolute((insecure, part(OWN, CPU)), "µs a record", Bound::AtMost(0.7 * 128.0));
    absolute((tls, part(OWN, CPU)), "µs a record", Bound::AtMost(0.7 * 178.0));
    for kind in [insecure, tls] {
        for figure in [IDLE_FRESH, IDLE_USED] {
            absolute((kind, part(figure, CORE)), "% of a core", Bound::AtMost(0.2));
            absolute((kind, part(figure, MEMORY)), "MiB", Bound::AtMost(20.0));
        }
    }
    let mut ratio = |above: Cell, below: Cell, bound| {
        if let (Some(numerator), Some(denominator)) = (median(&above), median(&below)) {
            let name = |cell: &Cell| format!("{}: {}", cell.0.title(), cell.1);
            let below = match (above.0 == below.0, above.1 == below.1) {
                (false, true) => below.0.title().to_owned(),
                _ => name(&below),
            };
            let what = format!("{} ÷ {below}", name(&above));
            targets.push(Target { what, unit: "", bound, measured: numerator / denominator });
        }
    };
    let (synced, unsynced) = (Kind::NatsSyncAlways, Kind::NatsDefault);
    let one = part(ONE, P50);
    ratio((insecure, one.clone()), (synced, one.clone()), Bound::AtMost(0.9));
    ratio((tls, one.clone()), (insecure, one), Bound::AtMost(1.25));
    for figure in [SHARED_THREADS, SHARED_ONE_THREAD] {
        ratio((insecure, figure.to_owned()), (synced, figure.to_owned()), Bound::AtLeast(3.0));
        ratio((insecure, figure.to_owned()), (unsynced, figure.to_owned()), Bound::AtLeast(1.5));
    }
    ratio((insecure, OWN.to_owned()), (synced, OWN.to_owned()), Bound::AtLeast(0.8));
    ratio((insecure, part(TAIL, P50)), (synced, part(TAIL, P50)), Bound::AtMost(1.0));
    for kind in [insecure, tls] {
        ratio((kind, batched(LARGE, 4)), (kind, batched(LARGE, 1)), Bound::AtLeast(1.0));
    }
    for (kind, rates) in [(insecure, [1240.0, 1533.0, 219.0, 245.0]), (tls, [847.0, 1042.0, 157.0, 109.0])] {
        let shapes = [(SMALL, 1), (SMALL, 4), (LARGE, 1), (LARGE, 4)];
        for ((bytes, producers), rate) in shapes.into_iter().zip(rates) {
            let Some(measured) = sheet.median(kind.title(), &batched(bytes, producers)) else { continue };
            let what = format!("{}: {}, beside an earlier run", kind.title(), batched(bytes, producers));
            targets.push(Target { what, unit: "k records/s", bound: Bound::AtLeast(rate), measured });
        }
    }
    if let Some(measured) = sheet.median(tls.title(), CATCH_UP) {
        let what = format!("{}: {CATCH_UP}, beside Kafka in an earlier run", tls.title());
        targets.push(Target { what, unit: "MB/s", bound: Bound::AtLeast(861.0), measured });
    }
    targets
}
