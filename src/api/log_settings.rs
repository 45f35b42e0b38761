//! The settings of logs: as messages, and as the catalog stores them.

use std::time::Duration;

use protobuf::MessageField;
use protobuf::well_known_types::duration::Duration as PbDuration;

use super::error::Invalid;
use crate::catalog::{EffectiveSettings, LogSettings};
use crate::pb::v1;

/// Where a request contains the settings, for the paths of wrong fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub &'static str);

impl Place {
    /// The field `config` of a request for one log.
    pub const CONFIG: Place = Place("config.");
    /// The defaults of logs among the settings of the cluster.
    pub const LOG_DEFAULTS: Place = Place("settings.log_defaults.");

    /// Returns the error of a setting.
    pub fn invalid(self, field: &str, what: impl Into<String>) -> Invalid {
        Invalid::Settings { field: format!("{}{field}", self.0), what: what.into() }
    }
}

/// Why `hash_chain` of a log or of a cluster can't be set.
pub const HASH_CHAIN_IS_FIXED: &str = "`hash_chain` is set when a log is created, and does not change later";

/// Returns the settings in a request. A field that is absent has the default.
///
/// # Errors
/// [`Invalid::Settings`] for a duration that can't be stored.
pub fn settings_of(config: &v1::LogConfig, place: Place) -> Result<LogSettings, Invalid> {
    let retention_ms = config.retention_age.as_ref().map(ms_of_duration).map(|ms| {
        ms.ok_or_else(|| {
            place.invalid(
                "retention_age",
                "`retention_age` must be a duration from 0 to 10,000 years in whole milliseconds",
            )
        })
    });
    Ok(LogSettings {
        retention_bytes: config.min_retained_bytes,
        retention_ms: retention_ms.transpose()?,
        record_bytes_max: config.max_record_bytes,
        request_bytes_max: config.max_request_bytes,
        replicas: config.replicas,
        // Older versions do not know the setting, so its default is never stored.
        hash_chain: config.hash_chain.filter(|is_chained| *is_chained),
        labels: config.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    })
}

/// Returns the settings after a change: the fields of `config` in `paths`, or without paths those that are set. A field
/// in the paths that is not set gets its default.
///
/// # Errors
/// [`Invalid::UpdateMask`], and those of [`settings_of`].
pub fn changed(
    present: &LogSettings,
    config: &v1::LogConfig,
    paths: &[&str],
    place: Place,
) -> Result<LogSettings, Invalid> {
    let new = settings_of(config, place)?;
    if paths.is_empty() {
        return Ok(LogSettings {
            retention_bytes: new.retention_bytes.or(present.retention_bytes),
            retention_ms: new.retention_ms.or(present.retention_ms),
            record_bytes_max: new.record_bytes_max.or(present.record_bytes_max),
            request_bytes_max: new.request_bytes_max.or(present.request_bytes_max),
            replicas: new.replicas.or(present.replicas),
            hash_chain: new.hash_chain.or(present.hash_chain),
            labels: if new.labels.is_empty() { present.labels.clone() } else { new.labels },
        });
    }
    let mut settings = present.clone();
    for path in paths {
        match *path {
            "retention_age" => settings.retention_ms = new.retention_ms,
            "min_retained_bytes" => settings.retention_bytes = new.retention_bytes,
            "max_record_bytes" => settings.record_bytes_max = new.record_bytes_max,
            "max_request_bytes" => settings.request_bytes_max = new.request_bytes_max,
            "replicas" => settings.replicas = new.replicas,
            "hash_chain" => settings.hash_chain = new.hash_chain,
            "labels" => settings.labels.clone_from(&new.labels),
            other => {
                let Some(label) = other.strip_prefix("labels.") else {
                    return Err(Invalid::UpdateMask(other.to_owned()));
                };
                match new.labels.get(label) {
                    Some(value) => _ = settings.labels.insert(label.to_owned(), value.clone()),
                    None => _ = settings.labels.remove(label),
                }
            }
        }
    }
    Ok(settings)
}

/// Checks settings alone and in combination. `defaults` are those of the cluster.
///
/// # Errors
/// [`Invalid::Settings`].
pub fn check(settings: &LogSettings, defaults: &LogSettings, place: Place) -> Result<(), Invalid> {
    let effective = settings.effective(defaults);
    if (1..EffectiveSettings::RETENTION_MS_LEAST).contains(&effective.retention_ms) {
        return Err(place.invalid("retention_age", "`retention_age` must be 0 (keep forever) or at least 1 s"));
    }
    let replicas = effective.replicas;
    if !(1..=EffectiveSettings::REPLICAS_MOST).contains(&replicas) {
        return Err(place.invalid("replicas", format!("`replicas` is {replicas}: it must be 1 to 7")));
    }
    if !settings.labels_hold() {
        return Err(place.invalid(
            "labels",
            format!(
                "`labels` must be at most {}, with names of 1 to {max} bytes, values of at most {max} bytes, and no control characters",
                LogSettings::LABELS_MAX,
                max = LogSettings::LABEL_BYTES_MAX
            ),
        ));
    }
    if !effective.limits_hold() {
        // The message contains both values, because the one that the request does not set may be the one that does not
        // fit.
        let field = if settings.record_bytes_max.is_some() { "max_record_bytes" } else { "max_request_bytes" };
        return Err(place.invalid(
            field,
            format!(
                "`max_record_bytes` would be {}, `max_request_bytes` {}: the first must be 1024 to 4128768, the second at least \
                 the first and at most 8323072",
                effective.record_bytes_max, effective.request_bytes_max
            ),
        ));
    }
    Ok(())
}

/// Checks the number of replicas of a new log in a cluster with that many nodes.
///
/// # Errors
/// [`Invalid::Settings`].
pub fn check_nodes(settings: &LogSettings, nodes: usize, place: Place) -> Result<(), Invalid> {
    match settings.replicas {
        Some(replicas) if usize::try_from(replicas).is_ok_and(|replicas| replicas > nodes) => {
            let s = if nodes == 1 { "" } else { "s" };
            let what = format!("`replicas` is {replicas}, and the cluster has {nodes} node{s}: a node has at most one");
            Err(place.invalid("replicas", what))
        }
        Some(_) | None => Ok(()),
    }
}

/// Returns the settings that apply to a log as a message.
pub fn config(settings: &LogSettings, defaults: &LogSettings) -> v1::LogConfig {
    let effective = settings.effective(defaults);
    own_config(&LogSettings {
        retention_bytes: Some(effective.retention_bytes),
        retention_ms: Some(effective.retention_ms),
        record_bytes_max: Some(effective.record_bytes_max),
        request_bytes_max: Some(effective.request_bytes_max),
        replicas: Some(effective.replicas),
        hash_chain: Some(effective.hash_chain),
        labels: settings.labels.clone(),
    })
}

/// Returns settings as a message. Those without a value are absent.
pub fn own_config(settings: &LogSettings) -> v1::LogConfig {
    let labels = settings.labels.iter();
    v1::LogConfig {
        retention_age: settings.retention_ms.map(|ms| Duration::from_millis(ms).into()).into(),
        min_retained_bytes: settings.retention_bytes,
        max_record_bytes: settings.record_bytes_max,
        max_request_bytes: settings.request_bytes_max,
        replicas: settings.replicas,
        hash_chain: settings.hash_chain,
        labels: labels.map(|(name, value)| (name.clone(), value.clone())).collect(),
        ..v1::LogConfig::default()
    }
}

/// The longest duration of protobuf's type: 10,000 years. Clients refuse a longer one.
const DURATION_SECONDS_MAX: u64 = 315_576_000_000;

/// Converts a duration to milliseconds; `None` if it is negative, too long, or contains parts of a millisecond. Those
/// are refused, so that a log has exactly the age that was asked for.
pub fn ms_of_duration(duration: &PbDuration) -> Option<u64> {
    let seconds = u64::try_from(duration.seconds).ok().filter(|seconds| *seconds <= DURATION_SECONDS_MAX)?;
    let nanos = u64::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000 && nanos % 1_000_000 == 0)?;
    seconds.checked_mul(1000)?.checked_add(nanos / 1_000_000)
}

/// Returns milliseconds as protobuf's type.
pub fn duration_of_ms(ms: u64) -> MessageField<PbDuration> {
    MessageField::some(Duration::from_millis(ms).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(labels: &[(&str, &str)]) -> LogSettings {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        LogSettings { labels, ..LogSettings::default() }
    }

    #[test]
    fn a_mask_resets_what_the_settings_do_not_contain() {
        let present = LogSettings {
            retention_bytes: Some(7),
            request_bytes_max: Some(8192),
            ..labels(&[("team", "a"), ("tier", "1")])
        };
        let config = v1::LogConfig {
            retention_age: MessageField::some(PbDuration { seconds: 2, nanos: 5_000_000, ..PbDuration::default() }),
            max_record_bytes: Some(2048),
            labels: [("team".to_owned(), "b".to_owned())].into(),
            ..v1::LogConfig::default()
        };
        let change = |paths: &[&str]| changed(&present, &config, paths, Place::CONFIG);
        let set = LogSettings {
            retention_ms: Some(2005),
            record_bytes_max: Some(2048),
            labels: labels(&[("team", "b")]).labels,
            ..present.clone()
        };
        assert_eq!(change(&[]), Ok(set));
        let age = LogSettings { retention_ms: Some(2005), ..present.clone() };
        assert_eq!(change(&["retention_age"]), Ok(age));
        let reset = LogSettings { retention_bytes: None, request_bytes_max: None, ..present.clone() };
        assert_eq!(change(&["min_retained_bytes", "max_request_bytes"]), Ok(reset));
        let one = LogSettings { labels: labels(&[("team", "b")]).labels, ..present.clone() };
        assert_eq!(change(&["labels.team", "labels.tier", "labels.none"]), Ok(one.clone()));
        assert_eq!(change(&["labels"]), Ok(one));
        assert_eq!(change(&["name"]), Err(Invalid::UpdateMask("name".to_owned())));
    }

    #[test]
    fn refuses_ages_that_can_t_be_kept() {
        for (seconds, nanos, ms) in
            [(0, 0, Some(0)), (1, 1_000_000, Some(1001)), (1, 1, None), (-1, 0, None), (1, -1, None)]
        {
            let age = PbDuration { seconds, nanos, ..PbDuration::default() };
            assert_eq!(ms_of_duration(&age), ms, "{seconds} s, {nanos} ns");
        }
        let of = |seconds| ms_of_duration(&PbDuration { seconds, ..PbDuration::default() });
        assert_eq!(of(315_576_000_000), Some(315_576_000_000_000));
        assert!(of(315_576_000_001).is_none() && of(i64::MAX).is_none(), "JSON of such a duration does not exist");
    }

    #[test]
    fn rejects_settings_out_of_bounds() {
        let defaults = LogSettings::default();
        let holds = |settings: LogSettings| check(&settings, &defaults, Place::CONFIG);
        for ms in [0, 1000, u64::MAX] {
            assert_eq!(holds(LogSettings { retention_ms: Some(ms), ..LogSettings::default() }), Ok(()));
        }
        assert!(holds(LogSettings { retention_ms: Some(999), ..LogSettings::default() }).is_err());
        for (record, request, good) in [
            (1024, 1024, true),
            (4_128_768, 8_323_072, true),
            (1023, 4096, false),
            (4_128_769, 8_323_072, false),
            (4096, 4095, false),
            (1024, 8_323_073, false),
        ] {
            let settings = LogSettings {
                record_bytes_max: Some(record),
                request_bytes_max: Some(request),
                ..LogSettings::default()
            };
            assert_eq!(holds(settings).is_ok(), good, "{record} {request}");
        }
        let refused = holds(LogSettings { request_bytes_max: Some(5000), ..LogSettings::default() });
        let Err(Invalid::Settings { what, field }) = refused else { panic!("{refused:?}") };
        assert_eq!(field, "config.max_request_bytes");
        assert!(what.contains("would be 1048576, `max_request_bytes` 5000"), "{what}");
        for (replicas, good) in [(0, false), (1, true), (7, true), (8, false)] {
            let settings = LogSettings { replicas: Some(replicas), ..LogSettings::default() };
            assert_eq!(holds(settings).is_ok(), good, "{replicas} replicas");
        }
        let long = "x".repeat(64);
        for (name, value, good) in [("a", "", true), ("", "b", false), ("a", &long, false), (&long, "b", false)] {
            assert_eq!(holds(labels(&[(name, value)])).is_ok(), good, "{name} {value}");
        }
    }

    #[test]
    fn a_log_has_at_most_one_replica_on_each_node() {
        let of = |replicas| LogSettings { replicas, ..LogSettings::default() };
        assert_eq!(check_nodes(&of(Some(3)), 3, Place::CONFIG), Ok(()));
        assert_eq!(check_nodes(&of(None), 1, Place::CONFIG), Ok(()), "a small cluster has fewer than the default");
        let Err(Invalid::Settings { what, .. }) = check_nodes(&of(Some(3)), 1, Place::CONFIG) else {
            panic!("accepted")
        };
        assert_eq!(what, "`replicas` is 3, and the cluster has 1 node: a node has at most one");
    }
}
