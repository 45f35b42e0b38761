//! Why a request of a producer, or a command, does not fit the log state.

use std::fmt;

/// Declares the refusals: one line for each, with its code between peers, and its text for people. The number is sent
/// with the code; its meaning is in the text.
macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)+) => {
        /// Why a request of a producer is not appended, or a command is not.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum StateRefusal {
            $($(#[$doc])* $name(u64),)+
        }

        impl StateRefusal {
            /// Returns the code and the number, for a peer.
            pub fn code(self) -> (u32, u64) {
                match self { $(StateRefusal::$name(number) => ($code, number),)+ }
            }

            /// Decodes the output of [`StateRefusal::code`]; `None` for a code that only a newer version knows.
            pub fn of_code(code: u32, number: u64) -> Option<StateRefusal> {
                match code {
                    $($code => Some(StateRefusal::$name(number)),)+
                    _ => None,
                }
            }

            /// One of each kind, with this number.
            #[cfg(test)]
            pub fn all(number: u64) -> Vec<StateRefusal> {
                vec![$(StateRefusal::$name(number)),+]
            }
        }

        impl fmt::Display for StateRefusal {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(StateRefusal::$name(number) => f.write_str(&$text.replace("{}", &number.to_string())),)+
                }
            }
        }
    };
}

refusals! {
    /// No producer has the id, or not any more. A request with the same sequence may have been appended before.
    ProducerUnknown = 101, "no producer of the log has this id, or not any more";
    /// Another instance has taken the producer's name over. The number is its epoch.
    ProducerFenced = 102, "another process has taken the producer over: its epoch is {}";
    /// Requests before this one are missing. The number is the last sequence.
    SequenceGap = 103, "requests before this one are missing: the last sequence is {}";
    /// The request was appended, but the answer is not kept any more. The number is the last sequence.
    SequenceTooOld = 104, "it was appended before, and its offset is not kept any more: the last sequence is {}";
    /// A request with this sequence was appended, and has another number of records, which is given here.
    SequenceReused = 105, "another request with this sequence was appended before: it has {} records";
    /// The producer has another epoch than expected. The number is its epoch, 0 if it does not exist.
    ProducerEpoch = 106, "the producer has another epoch than expected: {}";
    /// The log has the maximum number of named producers.
    ProducersFull = 107, "the log has {} named producers: it can have no more";
    /// A new producer has the id of another one.
    ProducerIdTaken = 108, "the id {} belongs to another producer";
    /// The log has no cursor with this name.
    NoSuchCursor = 109, "the log has no such cursor";
    /// Another reader has acquired the cursor. The number is its epoch.
    CursorFenced = 110, "another reader has acquired the cursor: its epoch is {}";
    /// The cursor has another epoch than expected. The number is its epoch, 0 if it does not exist.
    CursorEpoch = 111, "the cursor has another epoch than expected: {}";
    /// The cursor has another revision than expected. The number is its revision, 0 if it does not exist.
    CursorRevision = 112, "the cursor has another revision than expected: {}";
    /// The cursor would move back. The number is its position.
    CursorBehind = 113, "the cursor is at offset {}, and moves back only on demand";
    /// The log has the maximum number of cursors.
    CursorsFull = 114, "the log has {} cursors: it can have no more";
    /// The log state is already as the command wants it.
    Unchanged = 115, "it is done already";
}
