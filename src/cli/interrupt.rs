//! Handles SIGINT and SIGTERM for every subcommand except `serve`: the process exits with code 130.
//!
//! By default, the first signal ends the process at once. With [`on_first`], a subcommand sets a reaction to the
//! first signal, to finish its work before it exits. The second signal always ends the process at once.

use std::convert::Infallible;
use std::io;

use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::exit::Exit;
use crate::thread::{self, fatal_channel};

type Reaction = Box<dyn FnOnce() + Send>;

/// The reaction to the first signal. It is global because signal handlers are.
static ON_FIRST: Mutex<Option<Reaction>> = Mutex::new(None);
static ON_END: Mutex<Option<Reaction>> = Mutex::new(None);

/// Starts the thread that handles signals. It ends with the process.
///
/// # Errors
/// If the system rejects a handler or a thread.
pub fn listen() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (fatal, _) = fatal_channel();
    let thread = thread::spawn("signals", &fatal, move || -> Result<(), Infallible> {
        for _ in &mut signals {
            match take(&ON_FIRST) {
                Some(reaction) => reaction(),
                None => end(),
            }
        }
        Ok(())
    })?;
    std::mem::forget(thread);
    Ok(())
}

/// Runs `reaction` at the first signal, instead of ending the process.
pub fn on_first(reaction: impl FnOnce() + Send + 'static) {
    put(&ON_FIRST, Box::new(reaction));
}

/// Runs `reaction` when a signal ends the process.
pub fn on_end(reaction: impl FnOnce() + Send + 'static) {
    put(&ON_END, Box::new(reaction));
}

/// Returns a channel that receives a message at the first signal.
pub fn receiver() -> Receiver<()> {
    let (sender, received) = bounded(1);
    on_first(move || {
        // If it is full, the signal was already reported.
        let _ = sender.try_send(());
    });
    received
}

/// Ends the process without running destructors, because gRPC's threads still run.
pub fn end() {
    if let Some(reaction) = take(&ON_END) {
        reaction();
    }
    low_level::exit(Exit::Interrupted as i32);
}

fn take(reaction: &Mutex<Option<Reaction>>) -> Option<Reaction> {
    reaction.lock().take()
}

fn put(place: &Mutex<Option<Reaction>>, reaction: Reaction) {
    *place.lock() = Some(reaction);
}
