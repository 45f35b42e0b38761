//! The fuzz loop of the configuration file.

use super::*;
use crate::fuzz::Loop;

#[test]
fn config_file() {
    let seeds =
        ["node_name = \"a\"\nacl_policy_file = \"p\"\ninsecure = true\nsegment_bytes = \"1MiB\"\njoin = [\"b:1\"]\n\
                  scrub_bytes_per_second = 0\n"];
    // The TOML parser allocates keys and spans, so it needs much memory per byte.
    Loop::new("config_file", seeds.map(|seed| seed.as_bytes().to_vec()).into()).memory(2000).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        let mut args = ServeArgs::default();
        let mut problems = Problems::default();
        args.fill_from(Path::new("f"), text, &mut problems);
        let config = Config::check(&mut args, &mut problems);
        if !problems.list.is_empty() {
            return false;
        }
        assert!((64 << 10..=1 << 30).contains(&config.storage.segment_bytes));
        assert!((9 << 20..=64 << 30).contains(&config.limits.bytes_per_principal_max));
        assert!(config.tls.is_some() || config.node.bind_addr.ip().is_loopback(), "no TLS on loopback alone");
        assert!(check_cluster_name(&config.cluster.cluster_name).is_ok());
        true
    });
}
