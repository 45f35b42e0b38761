//! `seriatim cluster set`: the settings of the cluster.

use std::time::Duration;

use protobuf::well_known_types::field_mask::FieldMask;
use serde_json::{Value, json};

use super::connect::ConnectArgs;
use super::exit::Failure;
use super::log_settings::Setting;
use super::log_show::{config_json, settings_text};
use super::output::OutputArgs;
use super::subcommand::{Process, Subcommand};
use super::units::{self, ms_of_duration};
use crate::pb::v1::{Cluster, ClusterSettings, LogConfig, UpdateClusterRequest};

/// Change the settings of the cluster
///
/// It requires the action `admin` on `*` in the access policy. Settings that are not given stay as they are; without
/// any option it prints them. Defaults of logs apply to existing logs, too, unless they have a setting of their own.
///
/// With --create-on-append=on, a client that may `produce` to a name creates the log of that name with its first
/// record.
#[derive(Clone, Debug, clap::Args)]
pub struct SetArgs {
    /// Whether appending to a log that does not exist creates it (`on`, `off`)
    #[arg(long, value_name = "on|off", value_parser = units::on_or_off)]
    create_on_append: Option<bool>,
    /// How long deleted logs can be undeleted (12h, 7d; 0s: they are purged at once)
    #[arg(long, value_name = "AGE", value_parser = units::milliseconds)]
    deleted_log_retention: Option<u64>,
    /// Whether a node without data replaces the member of the same name and address, if that one does not answer (`on`,
    /// `off`). When off, `seriatim node replace` must allow it
    #[arg(long, value_name = "on|off", value_parser = units::on_or_off)]
    auto_replace_wiped: Option<bool>,
    /// Default of a setting of logs, named as the option of `seriatim log set`; the value `default` is that of a new
    /// cluster. Can be repeated
    #[arg(long = "log-default", value_name = "SETTING=VALUE", value_parser = log_default)]
    log_defaults: Vec<LogDefault>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// A default, and its value; `None` is that of a new cluster.
#[derive(Clone, Debug)]
struct LogDefault {
    setting: Setting,
    value: Option<String>,
}

fn log_default(text: &str) -> Result<LogDefault, String> {
    let (name, value) = text.split_once('=').ok_or("expected SETTING=VALUE, like retention-age=30d")?;
    let setting = Setting::named(name)?;
    let value = (value != "default").then(|| value.to_owned());
    // Checked here, so that a wrong value is wrong usage.
    value.iter().try_for_each(|value| setting.set(&mut LogConfig::default(), value))?;
    Ok(LogDefault { setting, value })
}

impl Subcommand for SetArgs {
    const NAME: &'static str = "set";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim cluster set --certs certs --create-on-append=on",
        "seriatim cluster set --certs certs --log-default retention-age=30d --log-default replicas=5",
        "seriatim cluster set --certs certs --deleted-log-retention 30d",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let request = self.request();
        if request.update_mask.paths.is_empty() {
            let (_, cluster) = dialer.ask(|client| client.get_cluster())?;
            return self.output.say(|| described(&cluster), || to_json(&cluster));
        }
        // `ask` may send the request to several nodes, which is safe because it is idempotent.
        let (_, cluster) = dialer.ask(|client| client.update_cluster(&request))?;
        self.output.confirm(|| described(&cluster), || to_json(&cluster));
        Ok(())
    }
}

impl SetArgs {
    fn request(&self) -> UpdateClusterRequest {
        let mut paths = Vec::new();
        paths.extend(self.create_on_append.map(|_| "create_on_append".to_owned()));
        paths.extend(self.deleted_log_retention.map(|_| "deleted_log_retention".to_owned()));
        paths.extend(self.auto_replace_wiped.map(|_| "auto_replace_wiped".to_owned()));
        let mut config = LogConfig::default();
        for LogDefault { setting, value } in &self.log_defaults {
            paths.push(format!("log_defaults.{}", setting.field));
            // It was checked when it was parsed.
            let _ = value.iter().try_for_each(|value| setting.set(&mut config, value));
        }
        let settings = ClusterSettings {
            log_defaults: Some(config).into(),
            create_on_append: self.create_on_append,
            deleted_log_retention: self.deleted_log_retention.map(|ms| Duration::from_millis(ms).into()).into(),
            auto_replace_wiped: self.auto_replace_wiped,
            ..ClusterSettings::default()
        };
        UpdateClusterRequest {
            settings: Some(settings).into(),
            update_mask: Some(FieldMask { paths, ..FieldMask::default() }).into(),
            ..UpdateClusterRequest::default()
        }
    }
}

/// Returns the settings of the cluster.
fn described(cluster: &Cluster) -> String {
    let settings = cluster.settings.get_or_default();
    let on_append = if settings.create_on_append.unwrap_or_default() { "on" } else { "off" };
    let kept = match ms_of_duration(&settings.deleted_log_retention) {
        0 => "not at all".to_owned(),
        ms => units::rough(Duration::from_millis(ms)),
    };
    let wiped = if settings.auto_replace_wiped.unwrap_or_default() { "on" } else { "off" };
    let defaults = settings_text(settings.log_defaults.get_or_default());
    format!(
        "cluster {}\ncreate on append   {on_append}\nundelete within    {kept}\nauto replace wiped {wiped}\ndefaults of logs:\n{defaults}",
        cluster.name
    )
}

/// Returns the settings of the cluster as JSON.
pub fn to_json(cluster: &Cluster) -> Value {
    let settings = cluster.settings.get_or_default();
    let mut defaults = config_json(settings.log_defaults.get_or_default());
    if let Some(defaults) = defaults.as_object_mut() {
        defaults.remove("labels");
    }
    json!({
        "name": cluster.name,
        "cluster_id": cluster.cluster_id,
        "revision": cluster.revision,
        "create_on_append": settings.create_on_append.unwrap_or_default(),
        "auto_replace_wiped": settings.auto_replace_wiped.unwrap_or_default(),
        "deleted_log_retention_ms": ms_of_duration(&settings.deleted_log_retention),
        "log_defaults": defaults,
    })
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    fn parsed(words: &[&str]) -> Result<SetArgs, clap::Error> {
        let command = SetArgs::augment_args(Command::new("x"));
        SetArgs::from_arg_matches(&command.try_get_matches_from([&["x"], words].concat())?)
    }

    #[test]
    fn only_settings_that_are_given_are_changed() {
        assert!(parsed(&[]).expect("valid").request().update_mask.paths.is_empty());
        let words = [
            "--create-on-append=off",
            "--deleted-log-retention",
            "0s",
            "--log-default",
            "retention-age=default",
            "--log-default",
            "replicas=5",
        ];
        let request = parsed(&words).expect("valid").request();
        assert_eq!(
            request.update_mask.paths,
            ["create_on_append", "deleted_log_retention", "log_defaults.retention_age", "log_defaults.replicas"]
        );
        let settings = request.settings.get_or_default();
        assert_eq!((settings.create_on_append, settings.log_defaults.replicas), (Some(false), Some(5)));
        assert!(settings.deleted_log_retention.is_some() && settings.log_defaults.retention_age.is_none());
    }

    #[test]
    fn malformed_settings_are_wrong_usage() {
        for bad in
            ["--create-on-append=true", "--log-default=replicas", "--log-default=replicas=9", "--log-default=x=1"]
        {
            assert!(parsed(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn describes_the_settings() {
        let config = LogConfig { replicas: Some(3), ..LogConfig::default() };
        let settings = ClusterSettings {
            log_defaults: Some(config).into(),
            create_on_append: Some(true),
            deleted_log_retention: Some(Duration::from_secs(7 * 86_400).into()).into(),
            ..ClusterSettings::default()
        };
        let cluster = Cluster { name: "demo".into(), settings: Some(settings).into(), ..Cluster::default() };
        let text = described(&cluster);
        assert!(
            text.starts_with("cluster demo\ncreate on append   on\nundelete within    7 days\nauto replace wiped off\ndefaults of logs:\n"),
            "{text}"
        );
        assert_eq!(to_json(&cluster)["log_defaults"]["replicas"], 3);
    }
}
