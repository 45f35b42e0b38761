//! `seriatim cursor`: the positions of readers that the cluster keeps.

use clap::Args;
use serde_json::{Value, json};

use super::connect::ConnectArgs;
use super::exit::Failure;
use super::log_name::{LogArg, LogOperand};
use super::output::{self, OutputArgs};
use super::producer::{new_instance, owner};
use super::subcommand::{Process, Subcommand};
use crate::calendar::rfc3339;
use crate::pb::v1::{AcquireCursorRequest, CommitCursorRequest, Cursor, DeleteCursorRequest, Start};
use crate::types::CursorName;

/// Checks the name of a cursor.
///
/// # Errors
/// A text that says which names are valid.
pub fn parse_name(text: &str) -> Result<String, String> {
    CursorName::new(text).map(|name| name.to_string()).map_err(|bad| bad.to_string())
}

/// Print the cursors of a log
///
/// A cursor is the position of a reader, which the cluster keeps (`seriatim consume --cursor`). LAG is the number of
/// records that the reader has still to read. It requires the action `consume`, `commit` or `admin`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    log: LogOperand,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Move a cursor, and create it if it does not exist
///
/// A reader that uses the cursor ends, because its position has changed. Start it again, and it reads from the new
/// position. It requires the action `commit`.
#[derive(Clone, Debug, Args)]
pub struct SetArgs {
    #[command(flatten)]
    log: LogArg,
    /// Name of the cursor
    #[arg(value_parser = parse_name)]
    cursor: String,
    /// The next record to read: an offset; `earliest`, the first record; or `latest`, the next one that is appended
    #[arg(value_name = "WHERE", value_parser = parse_position)]
    position: Position,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Delete a cursor
///
/// A reader that uses it ends, and the position is gone; the records stay. It prints where the cursor was. It requires
/// the action `commit`.
#[derive(Clone, Debug, Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    log: LogArg,
    /// Name of the cursor
    #[arg(value_parser = parse_name)]
    cursor: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Offset(u64),
    Earliest,
    Latest,
}

fn parse_position(text: &str) -> Result<Position, String> {
    match text {
        "earliest" => Ok(Position::Earliest),
        "latest" => Ok(Position::Latest),
        number => number.parse().map(Position::Offset).map_err(|_| "expected an offset, earliest or latest".to_owned()),
    }
}

impl Subcommand for ListArgs {
    const NAME: &'static str = "list";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim cursor list --certs certs orders", "seriatim cursor list --certs certs orders -o json"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let log = self.log.name(&dialer)?;
        let (_, cursors) = dialer.ask(|client| client.list_cursors(&log))?;
        let json = || json!({ "log": log, "cursors": cursors.iter().map(to_json).collect::<Vec<_>>() });
        self.output.say(|| table(&cursors), json)
    }
}

impl Subcommand for SetArgs {
    const NAME: &'static str = "set";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim cursor set --certs certs --log orders billing earliest",
        "seriatim cursor set --certs certs --log orders billing 1200",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let log = self.log.name(&dialer)?;
        let instance = new_instance()?;
        let (start, next_offset) = match self.position {
            Position::Offset(offset) => (Start::START_OFFSET, offset),
            Position::Earliest | Position::Latest => {
                let (_, found) = dialer.ask_until_served(|client| client.get_log(&log))?;
                let position = found.position.unwrap_or_default();
                let is_first = self.position == Position::Earliest;
                (Start::START_OFFSET, if is_first { position.first_offset } else { position.next_offset })
            }
        };
        let acquire = AcquireCursorRequest {
            log: log.clone(),
            cursor: self.cursor.clone(),
            instance,
            start: start.into(),
            offset: next_offset,
            owner: owner("cursor set"),
            ..AcquireCursorRequest::default()
        };
        let (_, acquired) = dialer.ask_until_served(|client| client.acquire_cursor(&acquire))?;
        let commit = CommitCursorRequest {
            log,
            log_id: Some(acquired.log_id.clone()),
            cursor: self.cursor.clone(),
            next_offset,
            epoch: acquired.epoch,
            allow_rewind: true,
            metadata: acquired.metadata.clone(),
            ..CommitCursorRequest::default()
        };
        let (_, cursor) = dialer.ask_until_served(|client| client.commit_cursor(&commit))?;
        self.output.confirm(|| table(std::slice::from_ref(&cursor)), || to_json(&cursor));
        Ok(())
    }
}

impl Subcommand for DeleteArgs {
    const NAME: &'static str = "delete";
    const EXAMPLES: &'static [&'static str] = &["seriatim cursor delete --certs certs --log orders billing"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let log = self.log.name(&dialer)?;
        let get = |client: &crate::client::Client| client.get_cursor(&log, &self.cursor);
        let (_, cursor) = dialer.ask_until_served(get)?;
        let request = DeleteCursorRequest {
            log: log.clone(),
            log_id: Some(cursor.log_id.clone()),
            cursor: self.cursor.clone(),
            ..DeleteCursorRequest::default()
        };
        dialer.ask_until_served(|client| client.delete_cursor(&request))?;
        let text =
            || format!("cursor {} of log {log} is deleted; it was at offset {}\n", self.cursor, cursor.next_offset);
        self.output.confirm(text, || to_json(&cursor));
        Ok(())
    }
}

fn table(cursors: &[Cursor]) -> String {
    let heading = ["CURSOR", "NEXT OFFSET", "LAG", "TRIMMED", "COMMITTED", "OWNER"].map(str::to_owned);
    let row = |cursor: &Cursor| {
        let committed = match cursor.commit_time_us {
            0 => "never".to_owned(),
            time_us => rfc3339(time_us),
        };
        let number = |number: u64| number.to_string();
        [
            cursor.cursor.clone(),
            number(cursor.next_offset),
            number(cursor.lag),
            number(cursor.trimmed),
            committed,
            output::printable(&cursor.owner),
        ]
    };
    let rows: Vec<[String; 6]> = [heading].into_iter().chain(cursors.iter().map(row)).collect();
    output::columns(&rows)
}

fn to_json(cursor: &Cursor) -> Value {
    json!({
        "log": cursor.log,
        "log_id": cursor.log_id,
        "cursor": cursor.cursor,
        "next_offset": cursor.next_offset,
        "lag": cursor.lag,
        "trimmed": cursor.trimmed,
        "epoch": cursor.epoch,
        "revision": cursor.revision,
        "commit_time_us": cursor.commit_time_us,
        "owner": cursor.owner,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_cursors_with_their_lag() {
        let cursor = Cursor {
            cursor: "billing".to_owned(),
            next_offset: 7,
            lag: 3,
            owner: "a\u{1b}[31m".to_owned(),
            ..Cursor::default()
        };
        assert_eq!(
            table(&[cursor]),
            "CURSOR   NEXT OFFSET  LAG  TRIMMED  COMMITTED  OWNER\nbilling  7            3    0        never      a\u{fffd}[31m\n"
        );
    }
}
