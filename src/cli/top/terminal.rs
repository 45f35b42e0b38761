//! The screen and the keys: the alternate screen, and a terminal that passes each key on at once. Both are restored
//! however the command ends.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use super::frame::Size;

/// The alternate screen, without a cursor.
const OPEN: &str = "\x1b[?1049h\x1b[?25l";
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";
/// The size of the terminal is compared this often.
const RESIZE_CHECK: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    /// The size of the terminal has changed.
    Resize,
    Other,
}

/// Dropping it restores the terminal.
pub(super) struct Terminal {
    restorer: Restorer,
    /// False if standard input is not a terminal: then only a signal ends the command.
    has_keys: bool,
    drawn: Size,
}

/// Restores the terminal, once. Clones share it.
#[derive(Clone)]
pub(super) struct Restorer(Arc<Mutex<Option<Before>>>);

struct Before {
    /// The modes of standard input, if it is a terminal.
    modes: Option<Termios>,
}

impl Restorer {
    pub fn restore(&self) {
        let Some(before) = self.0.lock().take() else { return };
        if let Some(modes) = before.modes {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &modes);
        }
        let mut out = io::stdout().lock();
        let _ = out.write_all(CLOSE.as_bytes()).and_then(|()| out.flush());
    }
}

impl Terminal {
    pub fn open() -> io::Result<Terminal> {
        let modes = tcgetattr(io::stdin()).ok();
        if let Some(modes) = &modes {
            let mut keys = modes.clone();
            // Ctrl-C stays a signal. Each other key is read at once, and is not shown.
            keys.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            keys.special_codes[SpecialCodeIndex::VMIN] = 1;
            keys.special_codes[SpecialCodeIndex::VTIME] = 0;
            tcsetattr(io::stdin(), OptionalActions::Now, &keys)?;
        }
        let has_keys = modes.is_some();
        let restorer = Restorer(Arc::new(Mutex::new(Some(Before { modes }))));
        let terminal = Terminal { restorer, has_keys, drawn: Size::of_terminal() };
        write(OPEN)?;
        Ok(terminal)
    }

    pub fn restorer(&self) -> Restorer {
        self.restorer.clone()
    }

    pub fn size(&self) -> Size {
        Size::of_terminal()
    }

    /// Draws a frame over the one before. Each line is cleared after its end, so that nothing flickers.
    pub fn draw(&mut self, frame: &str) -> io::Result<()> {
        self.drawn = self.size();
        let mut text = "\x1b[H".to_owned();
        let lines: Vec<&str> = frame.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            text += line;
            text += "\x1b[K";
            if n + 1 < lines.len() {
                text += "\r\n";
            }
        }
        write(&(text + "\x1b[J"))
    }

    /// Returns the next key; `None` if there is none for this time.
    pub fn key(&mut self, time: Duration) -> io::Result<Option<Key>> {
        let until = Instant::now() + time;
        loop {
            if self.size() != self.drawn {
                self.drawn = self.size();
                return Ok(Some(Key::Resize));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            if self.wait(left.min(RESIZE_CHECK))? {
                // Not by `Stdin`, whose buffer `poll` does not know.
                let mut keys = [0; 64];
                let typed = match rustix::io::read(io::stdin(), &mut keys) {
                    Ok(0) => {
                        // The input has ended.
                        self.has_keys = false;
                        continue;
                    }
                    Ok(n) => &keys[..n],
                    Err(Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                };
                let quits = typed.iter().any(|key| matches!(key, b'q' | b'Q'));
                return Ok(Some(if quits { Key::Quit } else { Key::Other }));
            }
        }
    }

    /// Waits for a key. Returns false if there is none for this time.
    fn wait(&self, time: Duration) -> io::Result<bool> {
        let timeout = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        let stdin = io::stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        let fds = if self.has_keys { &mut fds[..] } else { &mut fds[..0] };
        match poll(fds, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.restorer.restore();
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
