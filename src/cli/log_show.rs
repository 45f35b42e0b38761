//! Prints logs: as text, and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::units::{self, ms_of_duration, us_of_timestamp};
use crate::pb::v1::{LogConfig, LogInfo, LogState};

/// Returns a log with its records and its settings.
pub fn described(log: &LogInfo) -> String {
    let mut text = format!("log {} ({})\n", log.name, log.log_id);
    // Writing to a string can't fail.
    match state(log) {
        LogState::LOG_STATE_UNSPECIFIED | LogState::LOG_STATE_ACTIVE => {}
        LogState::LOG_STATE_CREATING => _ = writeln!(text, "state              creating: it has no leader yet"),
        LogState::LOG_STATE_RESTORING => {
            let end = log.restore.end_offset;
            _ = writeln!(text, "state              restoring: it opens once the records up to offset {end} are there");
        }
        LogState::LOG_STATE_DELETED => _ = writeln!(text, "state              {}", deleted_text(log)),
    }
    if let Some(position) = log.position.as_ref() {
        let records = position.next_offset.saturating_sub(position.first_offset);
        let (first, next) = (position.first_offset, position.next_offset);
        let _ = writeln!(text, "offsets            {first}..{next} ({records} records)");
        if records > 0 {
            let (first, last) = (position.first_append_time_us, position.last_append_time_us);
            let _ = writeln!(text, "appended           {} to {}", units::show_moment(first), units::show_moment(last));
        }
        let _ = writeln!(text, "stored             {} bytes on this node", position.stored_bytes);
    }
    if let Some(created) = us_of_timestamp(&log.create_time) {
        let _ = writeln!(text, "created            {}", units::show_moment(created));
    }
    text + settings_text(log.config.get_or_default()).as_str()
}

/// Returns how long a deleted log can be undeleted.
pub fn deleted_text(log: &LogInfo) -> String {
    match us_of_timestamp(&log.purge_time) {
        Some(purge_us) => format!("deleted; can be undeleted until {}", units::show_moment(purge_us)),
        None => "deleted for good".to_owned(),
    }
}

/// Returns the state of a log.
pub fn state(log: &LogInfo) -> LogState {
    log.state.enum_value_or_default()
}

/// Returns the state of a log in JSON, and in tables.
pub fn state_name(log: &LogInfo) -> &'static str {
    match state(log) {
        LogState::LOG_STATE_UNSPECIFIED => "unknown",
        LogState::LOG_STATE_CREATING => "creating",
        LogState::LOG_STATE_ACTIVE => "active",
        LogState::LOG_STATE_RESTORING => "restoring",
        LogState::LOG_STATE_DELETED => "deleted",
    }
}

/// Returns the JSON object of a log. Timestamps are null if the log is empty, or its position is not known.
pub fn to_json(log: &LogInfo) -> Value {
    let mut object = listed_json(log);
    let position = log.position.get_or_default();
    let time = |time_us: u64| (position.next_offset > position.first_offset).then_some(time_us);
    object["first_offset"] = json!(position.first_offset);
    object["next_offset"] = json!(position.next_offset);
    object["first_append_time_us"] = json!(time(position.first_append_time_us));
    object["last_append_time_us"] = json!(time(position.last_append_time_us));
    object["stored_bytes"] = json!(position.stored_bytes);
    object
}

/// Returns the JSON object of a log without its records.
pub fn listed_json(log: &LogInfo) -> Value {
    let mut object = config_json(log.config.get_or_default());
    object["log"] = json!(log.name);
    object["log_id"] = json!(log.log_id);
    object["state"] = json!(state_name(log));
    object["revision"] = json!(log.revision);
    object["create_time_us"] = json!(us_of_timestamp(&log.create_time));
    object["delete_time_us"] = json!(us_of_timestamp(&log.delete_time));
    object["purge_time_us"] = json!(us_of_timestamp(&log.purge_time));
    object["own"] = own_json(log.own_config.get_or_default());
    object
}

/// Returns the JSON object of settings that apply.
pub fn config_json(config: &LogConfig) -> Value {
    json!({
        "max_record_bytes": config.max_record_bytes.unwrap_or_default(),
        "max_request_bytes": config.max_request_bytes.unwrap_or_default(),
        "min_retained_bytes": config.min_retained_bytes.unwrap_or_default(),
        "retention_ms": ms_of_duration(&config.retention_age),
        "replicas": config.replicas.unwrap_or_default(),
        "hash_chain": config.hash_chain.unwrap_or_default(),
        "labels": config.labels,
    })
}

/// Returns which settings are the log's own. The others are null.
fn own_json(own: &LogConfig) -> Value {
    json!({
        "max_record_bytes": own.max_record_bytes,
        "max_request_bytes": own.max_request_bytes,
        "min_retained_bytes": own.min_retained_bytes,
        "retention_ms": own.retention_age.as_ref().map(ms_of_duration),
        "replicas": own.replicas,
    })
}

/// Returns the settings of a log.
pub fn settings_of(log: &LogInfo) -> String {
    format!("log {}\n{}", log.name, settings_text(log.config.get_or_default()))
}

/// Returns settings that apply.
pub fn settings_text(config: &LogConfig) -> String {
    let bytes = match config.min_retained_bytes.unwrap_or_default() {
        0 => "all".to_owned(),
        bytes => format!("at least {bytes} bytes"),
    };
    let age = match ms_of_duration(&config.retention_age) {
        0 => "for ever".to_owned(),
        ms => format!("{} s", ms as f64 / 1000.0),
    };
    let mut text = format!(
        "kept by size       {bytes}\nkept by age        {age}\nlargest record     {} bytes\nlargest request    {} bytes\n",
        config.max_record_bytes.unwrap_or_default(),
        config.max_request_bytes.unwrap_or_default()
    );
    // Writing to a string can't fail.
    let _ = writeln!(text, "replicas           {}", config.replicas.unwrap_or_default());
    if config.hash_chain.unwrap_or_default() {
        text += "hash chain         yes\n";
    }
    let mut labels: Vec<_> = config.labels.iter().collect();
    labels.sort();
    for (name, value) in labels {
        let _ = writeln!(text, "label              {name}={value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protobuf::well_known_types::timestamp::Timestamp;

    use super::*;
    use crate::pb::v1::LogPosition;

    fn log() -> LogInfo {
        let position = LogPosition {
            first_offset: 3,
            next_offset: 5,
            first_append_time_us: 951_827_415_250_000,
            last_append_time_us: 951_827_415_250_001,
            stored_bytes: 4096,
            ..LogPosition::default()
        };
        let config = LogConfig {
            retention_age: Some(Duration::from_millis(1500).into()).into(),
            max_record_bytes: Some(1024),
            replicas: Some(3),
            labels: [("team".to_owned(), "a".to_owned())].into(),
            ..LogConfig::default()
        };
        LogInfo {
            name: "default".into(),
            log_id: "0000000000c0ffee".into(),
            position: Some(position).into(),
            config: Some(config).into(),
            state: LogState::LOG_STATE_ACTIVE.into(),
            ..LogInfo::default()
        }
    }

    #[test]
    fn describes_a_log() {
        assert_eq!(
            described(&log()),
            "log default (0000000000c0ffee)\n\
             offsets            3..5 (2 records)\n\
             appended           2000-02-29T12:30:15.250000Z to 2000-02-29T12:30:15.250001Z\n\
             stored             4096 bytes on this node\n\
             kept by size       all\n\
             kept by age        1.5 s\n\
             largest record     1024 bytes\n\
             largest request    0 bytes\n\
             replicas           3\n\
             label              team=a\n"
        );
        let object = to_json(&log());
        assert_eq!(
            (&object["state"], &object["purge_time_us"], &object["labels"]["team"]),
            (&json!("active"), &Value::Null, &json!("a"))
        );
        assert_eq!((&object["replicas"], &object["own"]["replicas"]), (&json!(3), &Value::Null), "a default");
    }

    #[test]
    fn describes_a_deleted_log() {
        let mut log = LogInfo { state: LogState::LOG_STATE_DELETED.into(), position: None.into(), ..log() };
        assert_eq!(deleted_text(&log), "deleted for good");
        log.purge_time = Some(Timestamp { seconds: 951_827_415, ..Timestamp::default() }).into();
        let text = described(&log);
        let line = "state              deleted; can be undeleted until 2000-02-29T12:30:15.000000Z\n";
        assert!(text.contains(line) && !text.contains("offsets"), "{text}");
        assert_eq!(to_json(&log)["purge_time_us"], 951_827_415_000_000_u64);
    }
}
