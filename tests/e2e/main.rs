//! End-to-end tests in one binary: real processes and real connections. Start with `scenario.rs`.
//!
//! `make e2e ONLY=name` runs some of them. `harness.rs` contains the helpers that they share.
//!
//! A comment in the past tense above a test is the story of the fault that the test guards against.

mod bridge;
mod harness;
mod http2_frames;
mod leaks;
mod load;
mod raw;
mod receipts;
mod shim;
mod source;
mod tmpfs;

mod scenario;

mod backup;
mod bad_block;
mod bad_input;
mod catch_up;
mod chaos;
mod cli_ends;
mod cli_log;
mod cli_profiles;
mod clocks;
mod config;
mod cursors;
mod damage;
mod descriptors;
mod differs;
mod disk_full;
mod dist;
mod docs;
mod exactly_once;
mod fail_over;
mod failover;
mod forming;
mod frames;
mod hostile;
mod http;
mod journal;
mod kill;
mod layers;
mod library;
mod limits;
mod many_logs;
mod membership;
mod metrics;
mod modes;
mod names;
mod netns;
mod one_log;
mod peers;
mod placement;
mod power;
mod producers;
mod prose;
mod quickstart;
mod recover;
mod refusals;
mod reload;
mod repair;
mod revoked;
mod roundtrip;
mod shutdown;
mod sick_disk;
mod state_files;
mod status;
mod streams;
mod top;
mod unit;
mod upgrade;
mod verify;
