//! Reads the configuration of a running node again, at SIGHUP and once a minute, and applies what may change without a
//! restart. The table of options says which options these are.

use super::journal;
use crate::agent::Agent;
use crate::config::{LoadedConfig, ServeArgs, Setting};

/// The configuration that a running node uses.
pub struct ReloadedConfig {
    /// Flags and environment variables, and the path of the file.
    args: ServeArgs,
    /// The value of every option that is in use.
    used: Vec<Setting>,
    /// The problems and the changes that were logged last. The same ones are logged once.
    logged: Vec<String>,
}

/// What a reload finds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Lines for the log, without those of applied options.
    lines: Vec<String>,
    /// The options that are applied, with their values.
    applied: Vec<String>,
}

impl ReloadedConfig {
    /// The configuration with which the node starts.
    pub fn new(args: &ServeArgs, loaded: &LoadedConfig) -> ReloadedConfig {
        ReloadedConfig { args: args.clone(), used: loaded.settings.clone(), logged: Vec::new() }
    }

    /// Reads the configuration again. If it has errors, nothing is applied.
    pub fn reload(&mut self, agent: &Agent) -> bool {
        let loaded = LoadedConfig::read(&self.args);
        let found = self.compare(&loaded);
        if found.lines != self.logged {
            found.lines.iter().for_each(|line| log::log!(level_of(&loaded), "{line}"));
            self.logged = found.lines;
            if !loaded.problems.is_empty() {
                agent.config_refused(&loaded.problems.join("; "));
            }
        }
        let is_usable = loaded.problems.is_empty();
        if found.applied.is_empty() {
            return is_usable;
        }
        let Ok(config) = loaded.config() else { return false };
        agent.reload_config(&config);
        journal::set_log_level(config.logging.log_level);
        log::info!("configuration reloaded: {}", found.applied.join(", "));
        true
    }

    /// Returns what differs from the configuration in use, and takes over the values that are applied.
    fn compare(&mut self, loaded: &LoadedConfig) -> Found {
        if !loaded.problems.is_empty() {
            let problem = |text: &String| format!("configuration not reloaded, the old one stays in use: {text}");
            return Found { lines: loaded.problems.iter().map(problem).collect(), ..Found::default() };
        }
        let mut found = Found::default();
        for new in loaded.changed_from(&self.used) {
            let value = new.value.as_deref().unwrap_or("nothing");
            if !new.option.is_reloadable() {
                found.lines.push(format!("{} is {value} now: restart the node to apply it", new.option.name));
                continue;
            }
            found.applied.push(format!("{}={value}", new.option.name));
            if let Some(used) = self.used.iter_mut().find(|used| used.option.name == new.option.name) {
                *used = new;
            }
        }
        found
    }
}

fn level_of(loaded: &LoadedConfig) -> log::Level {
    if loaded.problems.is_empty() { log::Level::Warn } else { log::Level::Error }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_options_that_may_change_are_applied_and_a_bad_file_changes_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, policy) = (dir.path().join("seriatim.toml"), dir.path().join("policy.csv"));
        fs::write(&policy, "").expect("written");
        let args = ServeArgs {
            config: Some(file.display().to_string()),
            acl_policy_file: Some(policy.display().to_string()),
            insecure: Some("true".to_owned()),
            calls_max: Some("2000".to_owned()),
            ..ServeArgs::default()
        };
        let write = |text: &str| fs::write(&file, format!("config_version = 1\n{text}")).expect("written");
        write("[limits]\nstreams_max = 20\n");
        let loaded = LoadedConfig::read(&args);
        assert_eq!(loaded.problems, Vec::<String>::new());
        let mut config = ReloadedConfig::new(&args, &loaded);
        let mut compare = || config.compare(&LoadedConfig::read(&args));
        assert_eq!(compare(), Found::default(), "nothing has changed");

        write("[limits]\nstreams_max = 30\ncalls_max = 7\n[logging]\nlevel = \"debug\"\n");
        assert_eq!(compare().applied, ["streams_max=30", "log_level=debug"], "a flag takes precedence");
        assert_eq!(compare(), Found::default(), "they are in use now");

        write("[limits]\nstreams_max = 40\n[storage]\nhang_max = \"1m\"\n[node]\nname = \"other\"\n");
        let found = compare();
        assert_eq!(found.applied, ["streams_max=40", "log_level=info"]);
        assert_eq!(found.lines.len(), 2, "{found:?}");
        assert!(found.lines[1].contains("hang_max is 1m now: restart the node to apply it"), "{found:?}");

        write("[limits]\nstreams_max = 0\n");
        let found = compare();
        assert!(found.applied.is_empty() && found.lines[0].contains("not reloaded"), "{found:?}");
        fs::remove_file(&file).expect("removed");
        assert!(compare().lines[0].contains("not reloaded"));
        write("[limits]\nstreams_max = 40\n");
        assert_eq!(compare(), Found::default(), "the last good one was kept");
    }
}
