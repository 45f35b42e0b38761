//! The fuzz loop of the configuration file.

use super::*;
use crate::fuzz::Loop;

#[test]
fn config_file() {
    let seeds = [
        "config_version = 1\nscrub = {interval = \"7d\"}\n[node]\nname = \"a\"\n[access]\npolicy_file = \"p\"\n\
         [listen]\ninsecure = true\n[cluster]\njoin = [\"b:1\"]\n[storage]\nsegment_bytes = \"1MiB\"\nhang_max = \"30s\"\n",
        "node_name = \"a\"\nacl_policy_file = \"p\"\ninsecure = true\nsegment_bytes = \"1MiB\"\njoin = [\"b:1\"]\n\
         scrub_bytes_per_second = 0\nhang_seconds_max = 30\n",
    ];
    // The TOML parser allocates keys and spans, so it needs much memory per byte.
    Loop::new("config_file", seeds.map(|seed| seed.as_bytes().to_vec()).into()).memory(2000).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        let mut args = ServeArgs::default();
        let mut problems = Problems::default();
        let warning = args.fill_from(Path::new("f"), text, &mut problems);
        let (config, _) = Config::check(&mut args, &mut problems);
        if !problems.list.is_empty() {
            return false;
        }
        // The new form in the warning is a file of the same configuration.
        if let Some((_, new_form)) = warning.as_ref().and_then(|warning| warning.split_once("\n\n")) {
            let (mut args, mut problems) = (ServeArgs::default(), Problems::default());
            assert_eq!(args.fill_from(Path::new("f"), new_form, &mut problems), None, "{new_form}");
            assert_eq!(
                (Config::check(&mut args, &mut problems).0, problems.list),
                (config.clone(), vec![]),
                "{new_form}"
            );
        }
        assert!((64 << 10..=1 << 30).contains(&config.storage.segment_bytes));
        assert!((1..=3600).contains(&config.storage.hang_max.as_secs()));
        assert!((9 << 20..=64 << 30).contains(&config.limits.bytes_per_principal_max));
        assert!(config.tls.is_some() || config.node.bind_addr.ip().is_loopback(), "no TLS on loopback alone");
        assert!(check_cluster_name(&config.cluster.cluster_name).is_ok());
        true
    });
}
