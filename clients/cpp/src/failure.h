// Errors as the library handles them, and the outcome of several attempts. Failures are values inside the library; they
// become exceptions of the type Error where the application calls.
#pragma once

#include <grpcpp/support/status.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "seriatim/deadline.h"
#include "seriatim/error.h"

namespace seriatim {

using Clock = Deadline::Clock;
using Milliseconds = std::chrono::milliseconds;

inline constexpr char kClusterChanged[] = "CLUSTER_CHANGED";

struct Failure : Error::Fields {
  /// The time that RetryInfo demands.
  Clock::duration retry_after{0};
  /// The connection broke, or an attempt had no answer in time: the next node may answer.
  bool broken = false;
  /// The status has an ErrorInfo of Seriatim.
  bool answered = false;
  /// The client, the producer or the consumer was closed.
  bool closed = false;

  Error error() const { return Error(*this); }
  std::string text() const;

  /// Returns a copy with another outcome, and the kind that follows from it.
  Failure with_outcome(Outcome outcome) const;

  /// Returns a number of the metadata.
  std::optional<std::uint64_t> number(const std::string& key) const;
};

using MaybeFailure = std::optional<Failure>;

Kind kind_of(const std::string& reason, Outcome outcome, Code code);

/// Reads the details of a status. `was_sent` says whether the request may have left this process.
Failure failure_of(const grpc::Status& status, bool was_sent);

/// An attempt, or a stream, was silent for too long.
Failure no_answer(const std::string& what, Clock::duration after, Outcome outcome);

/// A connection is of no use any more.
Failure broken(const std::string& message, Outcome outcome);

/// An operation was not done at its deadline. `last` is the failure of its last attempt.
Failure timed_out(const std::string& what, Outcome outcome, const MaybeFailure& last);

Failure closed_failure(const std::string& what);
Failure invalid(const std::string& message);
/// A node or this library does what it must not do.
Failure bug(const std::string& message, Outcome outcome);

std::string text_of(Clock::duration duration);

/// The outcome of several attempts of the same request.
///
/// After an attempt with an unknown outcome it stays unknown, until the server answers the request itself. A refusal of
/// a later attempt proves nothing about an earlier one.
class Fate {
 public:
  void add(Outcome attempt) {
    unknown_ = unknown_ || attempt == Outcome::unknown;
    done_ = done_ || attempt == Outcome::done;
  }

  Outcome outcome() const { return done_ ? Outcome::done : unknown_ ? Outcome::unknown : Outcome::none; }

 private:
  bool unknown_ = false;
  bool done_ = false;
};

}  // namespace seriatim
