//! `seriatim config`: checks and shows the configuration of `seriatim serve`, without starting a node.

use std::fs;
use std::path::Path;

use clap::{ArgMatches, Command, FromArgMatches};
use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use super::output::{self, OutputArgs, say, tell};
use super::subcommand::{Process, Subcommand};
use crate::agent::{AgentError, check_files};
use crate::config::{Config, ConfigProblems, LoadedConfig, ServeArgs, Setting};
use crate::feature_level::FeatureRange;
use crate::security::modes::FileModes;
use crate::storage::node::{NODE_FILE, NodeFile};

const NEXT_STEP: &str = "`seriatim serve --help` describes every option";

/// The file, and all options of `serve`.
#[derive(Clone, Debug, clap::Args)]
struct Source {
    /// TOML file with the options [default: the one of --config]
    #[arg(value_name = "FILE")]
    file: Option<String>,
    #[command(flatten)]
    options: HiddenOptions,
}

impl Source {
    /// The options of `serve` with this file.
    fn options(&self) -> ServeArgs {
        let mut options = self.options.0.clone();
        if let Some(file) = &self.file {
            options.config = Some(file.clone());
        }
        options
    }
}

/// The options of `serve`, which `--help` leaves out.
#[derive(Clone, Debug)]
struct HiddenOptions(ServeArgs);

impl clap::Args for HiddenOptions {
    fn augment_args(command: Command) -> Command {
        let options = ServeArgs::augment_args(Command::new("serve"));
        command.args(options.get_arguments().map(|argument| argument.clone().hide(true)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for HiddenOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        ServeArgs::from_arg_matches(matches).map(HiddenOptions)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

/// Check the configuration of a node, and report all mistakes at once
///
/// It checks everything that can be known before a start: the file's syntax and every value; rules between options;
/// that all files can be read; certificates, keys, their names and when they expire; the access policy. It changes
/// nothing, and listens nowhere. `seriatim serve --check` does the same.
///
/// All options of `seriatim serve` are accepted too, as flags and as environment variables. Give those that the node
/// will be started with: the systemd unit passes the access policy, the data directory and the files of certificates.
///
/// If the file has the form of earlier versions, without tables, its new form is printed.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    source: Source,
}

impl Subcommand for CheckArgs {
    const NAME: &'static str = "check";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim config check /etc/seriatim/seriatim.toml",
        "seriatim config check seriatim.toml --peer-cert-file n2/peer.pem --node-name n2",
    ];
    // Its options are those of `serve`. It has nothing to finish when a signal ends it.
    const HANDLES_SIGNALS: bool = true;

    fn run(&self, process: &Process) -> Result<(), Failure> {
        check(&self.source.options(), process)
    }
}

/// Show every option of a node, its value, and where the value comes from
///
/// It prints the value that `seriatim serve` would use with the same file, flags and environment: of a flag, otherwise
/// of an environment variable, otherwise of the file, otherwise the default.
///
/// All options of `seriatim serve` are accepted too: give those that the systemd unit passes, as for `config check`. A
/// configuration with mistakes is not shown: they are reported.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    output: OutputArgs,
}

impl Subcommand for ShowArgs {
    const NAME: &'static str = "show";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim config show /etc/seriatim/seriatim.toml", "seriatim config show --config seriatim.toml -o json"];
    const HANDLES_SIGNALS: bool = true;

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let options = self.source.options();
        let loaded = LoadedConfig::read(&options);
        loaded.warnings.iter().for_each(|warning| tell(&format!("seriatim: {warning}")));
        let settings = loaded.settings.clone();
        loaded.config().map_err(|ConfigProblems(problems)| failure(problems))?;
        self.output.say(|| table(&settings), || json_of(&settings, options.config.as_deref()))
    }
}

/// Checks a configuration, prints warnings on standard error, and one line if it is valid.
///
/// # Errors
/// All errors of the configuration.
pub(super) fn check(options: &ServeArgs, process: &Process) -> Result<(), Failure> {
    let loaded = LoadedConfig::read(options);
    let problems = problems(&loaded);
    let config = loaded.with_placeholders();
    let warnings = if problems.is_empty() { check_files(&loaded).1 } else { Vec::new() };
    let unknown = process.unknown_variables.iter().filter(|name| *name != FeatureRange::TEST_MAX);
    let unknown = unknown.map(|name| format!("no option has the name of the environment variable {name}"));
    let modes = FileModes::of_node(config, options.config.as_deref().map(Path::new)).new_warnings();
    for warning in loaded.warnings.iter().cloned().chain(warnings).chain(modes).chain(unknown) {
        tell(&format!("seriatim: {warning}"));
    }
    if !problems.is_empty() {
        return Err(failure(problems));
    }
    let (node, cluster) = (&config.node.node_name, &config.cluster.cluster_name);
    let (peers, clients) = (config.node.bind_addr, config.node.rpc_addr);
    say(&format!(
        "valid: node {node} of cluster {cluster}, bind_addr {peers} for peers, rpc_addr {clients} for clients\n"
    ))
}

/// Returns all errors that can be known before a start: of the options, of the files that they name, and of the data
/// directory.
pub(super) fn problems(loaded: &LoadedConfig) -> Vec<String> {
    let (of_files, _) = check_files(loaded);
    let of_data_dir = data_dir_problem(loaded.with_placeholders(), loaded.cluster_name());
    loaded.problems.iter().cloned().chain(of_files.iter().map(ToString::to_string)).chain(of_data_dir).collect()
}

/// The failure of a configuration with these errors.
pub(super) fn failure(problems: Vec<String>) -> Failure {
    Failure::new(Exit::BadConfig, ConfigProblems(problems).to_string(), NEXT_STEP)
}

/// Returns why the data directory can't be used, as far as reading shows it. One that does not exist is created at the
/// start.
fn data_dir_problem(config: &Config, cluster_name: Option<&str>) -> Option<String> {
    let data_dir = config.node.data_dir.as_path();
    if fs::metadata(data_dir).is_ok_and(|metadata| !metadata.is_dir()) {
        return Some(format!("{}: the data directory is not a directory", data_dir.display()));
    }
    let file = data_dir.join(NODE_FILE);
    // What can't be read or is damaged is the start's to report: it may run as another user.
    let node = NodeFile::decode(&fs::read(&file).ok()?, &file).ok()?;
    let stored = node.cluster_id.and(node.cluster_name)?;
    let given = cluster_name.filter(|given| *given != stored)?.to_owned();
    Some(AgentError::OtherClusterName { data_dir: data_dir.to_owned(), stored, given }.to_string())
}

fn table(settings: &[Setting]) -> String {
    let row = |setting: &Setting| {
        let flag = format!("--{}", setting.option.flag);
        let value = setting.value.clone().unwrap_or_else(|| "-".to_owned());
        [setting.option.path.to_owned(), flag, value, setting.origin.to_string()]
    };
    let header = ["OPTION", "FLAG", "VALUE", "FROM"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(header).chain(settings.iter().map(row)).collect();
    output::columns(&rows)
}

fn json_of(settings: &[Setting], file: Option<&str>) -> Value {
    let options = settings.iter().map(|setting| {
        let option = setting.option;
        json!({
            "path": option.path,
            "name": option.name,
            "flag": format!("--{}", option.flag),
            "env": option.env,
            "value": setting.value,
            "source": setting.origin.kind(),
            "from": setting.origin.to_string(),
        })
    });
    json!({ "config_file": file, "options": options.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;
    use crate::types::{ClusterId, NodeId};

    fn settings(line: &[&str]) -> Vec<Setting> {
        let command = HiddenOptions::augment_args(Command::new("show"));
        let words = std::iter::once("show").chain(line.iter().copied());
        let matches = command.try_get_matches_from(words).expect("arguments");
        LoadedConfig::read(&HiddenOptions::from_arg_matches(&matches).expect("options").0).settings
    }

    #[test]
    fn shows_every_option_with_its_value_and_origin() {
        let settings = settings(&["--insecure", "--node-name=n1", "--hang-seconds-max=5", "--acl-policy-file=p"]);
        let text = table(&settings);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["OPTION", "FLAG", "VALUE", "FROM"]);
        assert_eq!(lines[1], ["node.name", "--node-name", "n1", "--node-name"]);
        assert!(lines.contains(&vec!["storage.hang_max", "--hang-max", "5s", "--hang-seconds-max"]), "{text}");
        assert!(lines.contains(&vec!["listen.peer.addr", "--bind-addr", "127.0.0.1:8401", "default"]), "{text}");
        assert!(lines.contains(&vec!["listen.client.ca_file", "--client-ca-file", "-", "default"]), "{text}");
        assert_eq!(lines.len(), settings.len() + 1);
        let json = json_of(&settings, Some("f"));
        assert_eq!(json["config_file"], "f");
        let of = |name: &str| {
            let options = json["options"].as_array().expect("options");
            options.iter().find(|option| option["name"] == name).cloned().expect("the option")
        };
        assert_eq!(
            of("hang_max"),
            json!({
                "path": "storage.hang_max", "name": "hang_max", "flag": "--hang-max", "env": "SERIATIM_HANG_MAX",
                "value": "5s", "source": "flag", "from": "--hang-seconds-max",
            })
        );
        assert_eq!(of("client_ca_file")["value"], Value::Null);
    }

    #[test]
    fn a_data_directory_of_another_cluster_is_reported() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config::for_test(dir.path(), "n1").expect("a configuration");
        assert_eq!(data_dir_problem(&config, Some("c")), None, "it does not exist");
        fs::write(&config.node.data_dir, "a file").expect("written");
        assert!(data_dir_problem(&config, Some("c")).expect("a file").ends_with("is not a directory"));
        fs::remove_file(&config.node.data_dir).expect("removed");
        fs::create_dir(&config.node.data_dir).expect("made");
        let node = NodeFile {
            cluster_name: Some("other".to_owned()),
            cluster_id: Some(ClusterId::random().expect("randomness")),
            ..NodeFile::new(NodeId::random().expect("randomness"), config.node.node_name.clone())
        };
        fs::write(config.node.data_dir.join(NODE_FILE), node.encode()).expect("written");
        assert_eq!(data_dir_problem(&config, Some("other")), None);
        assert_eq!(data_dir_problem(&config, None), None, "the name is not known");
        assert!(data_dir_problem(&config, Some("c")).expect("a mismatch").contains("other"));
    }
}
