//! Receipts of logs with a hash chain: `seriatim log receipt`, `seriatim log prove`, `seriatim log verify-receipt`.

mod file;
pub mod get;
mod proof;
pub mod prove;
mod stored;
pub mod verify;

#[cfg(test)]
mod tests;

pub use file::{Receipt, read as read_receipts};
pub use prove::TAMPERED;
pub use stored::{Compared, compare};
pub use verify::check as check_receipt;
