//! Enums that are stored or sent: each is encoded and decoded from one list.
//!
//! ```text
//! codes! {
//!     /// What an entry is.
//!     pub enum EntryKind: u8, "entry kind" {
//!         /// Records of a client.
//!         Records = 1,
//!         /// ...
//!         Trim = 4,
//!     }
//! }
//! ```
//!
//! This declares the enum, `EntryKind::ALL`, `EntryKind::code` and `TryFrom<u8>`, whose error is an [`UnknownCode`].
//! With the type `str` the codes are texts: `code` returns a `&'static str`, and `TryFrom<&str>` decodes it. A code
//! that is not in the list was written by a newer version. It is refused with an error that contains it, and never
//! treated as damage or as a torn write.
//!
//! `value as usize` is the position of a value in `ALL`, for tables with one element for each value.

use std::fmt::{Debug, Display};

/// A code that this version does not know: a newer version stored or sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {code}, which this version does not know; start a newer version")]
pub struct UnknownCode<C: Debug + Display> {
    /// The enum, in words.
    pub what: &'static str,
    /// The code that was read.
    pub code: C,
}

/// Declares an enum that is stored or sent (see the module's documentation).
macro_rules! codes {
    ($(#[$meta:meta])* $vis:vis enum $name:ident: str, $what:literal { $($list:tt)+ }) => {
        $crate::codes::codes! {
            @declare [&'static str, &str, String] $(#[$meta])* $vis enum $name, $what { $($list)+ }
        }
    };
    ($(#[$meta:meta])* $vis:vis enum $name:ident: $int:ty, $what:literal { $($list:tt)+ }) => {
        $crate::codes::codes! {
            @declare [$int, $int, $int] $(#[$meta])* $vis enum $name, $what { $($list)+ }
        }
    };
    // The types of a code: in the list, as the argument of `TryFrom`, and in the error.
    (@declare [$written:ty, $read:ty, $unknown:ty] $(#[$meta:meta])* $vis:vis enum $name:ident, $what:literal {
        $($(#[$variant_meta:meta])* $variant:ident = $code:literal),+ $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $name { $($(#[$variant_meta])* $variant),+ }

        impl $name {
            /// All values, in the order of the list.
            $vis const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The code as it is stored and sent.
            $vis const fn code(self) -> $written {
                match self { $($name::$variant => $code),+ }
            }
        }

        // Tables with one element for each value depend on this.
        const _: () = {
            let mut position = 0;
            while position < $name::ALL.len() {
                assert!($name::ALL[position] as usize == position);
                position += 1;
            }
        };

        impl TryFrom<$read> for $name {
            type Error = $crate::codes::UnknownCode<$unknown>;

            fn try_from(code: $read) -> Result<$name, Self::Error> {
                match code {
                    $($code => Ok($name::$variant),)+
                    _ => Err($crate::codes::UnknownCode { what: $what, code: <$unknown>::from(code) }),
                }
            }
        }
    };
}

pub(crate) use codes;

#[cfg(test)]
mod tests {
    use super::*;

    codes! {
        enum Number: u32, "number" {
            One = 1,
            Seven = 7,
        }
    }

    codes! {
        enum Word: str, "word" {
            Yes = "YES",
            No = "NO",
        }
    }

    #[test]
    fn every_code_decodes_to_its_value() {
        assert!(Number::ALL.iter().all(|number| Number::try_from(number.code()) == Ok(*number)));
        assert!(Word::ALL.iter().all(|word| Word::try_from(word.code()) == Ok(*word)));
        assert_eq!((Number::Seven.code(), Word::No.code()), (7, "NO"));
    }

    #[test]
    fn an_unknown_code_is_refused_by_name() {
        let error = Number::try_from(9).expect_err("not in the list");
        assert_eq!(error, UnknownCode { what: "number", code: 9 });
        assert_eq!(error.to_string(), "number 9, which this version does not know; start a newer version");
        assert_eq!(Word::try_from("MAYBE").expect_err("not in the list").code, "MAYBE");
    }
}
