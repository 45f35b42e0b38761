//! SIGINT and SIGTERM for a command that has something to say before it ends.

use std::convert::Infallible;
use std::io;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::emulate_default_handler;

use crate::thread::{self, Joiner, fatal_channel};

/// Tells of the first signal; the second ends the process as if nobody listened. Ends its thread when dropped.
pub struct Interrupt {
    received: Receiver<()>,
    handle: Handle,
    #[expect(dead_code, reason = "joins on drop")]
    thread: Joiner,
}

impl Interrupt {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> io::Result<Interrupt> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let handle = signals.handle();
        // One is all that is ever sent.
        let (sender, received) = bounded(1);
        let (fatal, _) = fatal_channel();
        let thread = thread::spawn("signals", &fatal, move || -> Result<(), Infallible> {
            let mut told = false;
            for signal in &mut signals {
                if std::mem::replace(&mut told, true) {
                    // It does not come back.
                    let _ = emulate_default_handler(signal);
                }
                let _ = sender.try_send(());
            }
            Ok(())
        })?;
        Ok(Interrupt { received, handle, thread })
    }

    /// Gets one message, at the first signal.
    pub fn received(&self) -> &Receiver<()> {
        &self.received
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.handle.close();
    }
}
