//! Families of metrics that are collected when a text is encoded: values with several labels, or one for each log.
//!
//! They cost nothing between two reads, and a value whose log is gone needs no removal.

use std::fmt::{self, Debug};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// Whether the values of a family can fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// Starts at 0 and never decreases.
    Counter,
    /// Can rise and fall.
    Gauge,
}

/// The description of a family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The full name; for a counter without `_total`.
    pub name: &'static str,
    /// Whether its values can fall.
    pub kind: FamilyKind,
    /// The names of the labels.
    pub labels: &'static [&'static str],
    /// What it counts, without a full stop.
    pub help: &'static str,
}

/// The values of some families, at one moment.
#[derive(Debug)]
pub struct Collected {
    families: &'static [Family],
    /// For each family, the values of the labels with the number.
    values: Vec<Vec<(Vec<String>, f64)>>,
}

impl Collected {
    fn new(families: &'static [Family]) -> Collected {
        Collected { families, values: vec![Vec::new(); families.len()] }
    }

    /// Adds a value. A family that was not registered is a bug, and is left out.
    pub fn add(&mut self, name: &str, labels: &[&str], value: f64) {
        let position = self.families.iter().position(|family| family.name == name);
        debug_assert!(position.is_some(), "{name} is not a family of this collector");
        if let Some(position) = position {
            debug_assert_eq!(self.families[position].labels.len(), labels.len(), "labels of {name}");
            self.values[position].push((labels.iter().map(|label| (*label).to_owned()).collect(), value));
        }
    }
}

struct Collecting<F> {
    families: &'static [Family],
    collect: F,
}

impl<F> Debug for Collecting<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collecting").field("families", &self.families).finish_non_exhaustive()
    }
}

impl<F: Fn(&mut Collected) + Send + Sync + 'static> Collector for Collecting<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut collected = Collected::new(self.families);
        (self.collect)(&mut collected);
        for (family, values) in self.families.iter().zip(collected.values) {
            let kind = match family.kind {
                FamilyKind::Counter => MetricType::Counter,
                FamilyKind::Gauge => MetricType::Gauge,
            };
            // As prometheus-client does for all other metrics.
            let help = format!("{}.", family.help);
            let mut metric = encoder.encode_descriptor(family.name, &help, None, kind)?;
            for (labels, value) in values {
                let pairs: Vec<(&str, String)> = family.labels.iter().copied().zip(labels).collect();
                let mut of_labels = metric.encode_family(&pairs)?;
                match family.kind {
                    FamilyKind::Counter => {
                        of_labels.encode_counter::<prometheus_client::encoding::NoLabelSet, f64, u64>(&value, None)?;
                    }
                    FamilyKind::Gauge => of_labels.encode_gauge(&value)?,
                }
            }
        }
        Ok(())
    }
}

pub(super) fn register(
    registry: &mut Registry,
    families: &'static [Family],
    collect: impl Fn(&mut Collected) + Send + Sync + 'static,
) {
    registry.register_collector(Box::new(Collecting { families, collect }));
}
