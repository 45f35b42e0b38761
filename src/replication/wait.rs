//! Waiting on one thread for futures and a deadline, without a runtime.
