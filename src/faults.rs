//! Rules that tests break, one at a time, to check that another test detects it. `faults!` declares a set of them.
//!
//! Outside tests `broken` is constantly false, and the code that depends on it is removed by the compiler.

/// Declares the enum `Fault`, `broken`, and for tests `set`, which breaks a rule on the present thread.
macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// A broken rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Fault {
            $($(#[$doc])* $name,)+
        }

        /// All rules that can be broken.
        #[cfg(test)]
        #[allow(dead_code, reason = "not every set of rules is listed by a test")]
        pub(crate) const ALL: &[Fault] = &[$(Fault::$name),+];

        /// True if this rule is broken.
        #[cfg(not(test))]
        #[inline(always)]
        pub(crate) const fn broken(_: Fault) -> bool {
            false
        }

        #[cfg(test)]
        thread_local! {
            static BROKEN: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
        }

        /// True if this rule is broken.
        #[cfg(test)]
        pub(crate) fn broken(fault: Fault) -> bool {
            BROKEN.get() == Some(fault)
        }

        /// From now on this thread breaks this rule, or none.
        #[cfg(test)]
        pub(crate) fn set(fault: Option<Fault>) {
            BROKEN.set(fault);
        }
    };
}

pub(crate) use faults;
