//! `seriatim backup`: copies of a log in files, from which a log with the same offsets and times is restored.
//!
//! - `format`: the format of the files
//! - `files`: reading and checking them, also a backup that consists of several
//! - `create`, `inspect`, `restore`: the commands

pub mod create;
mod files;
mod format;
pub mod inspect;
pub mod restore;
mod upload;

#[cfg(test)]
mod tests;
