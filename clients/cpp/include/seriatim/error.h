#ifndef SERIATIM_ERROR_H
#define SERIATIM_ERROR_H

#include <exception>
#include <map>
#include <memory>
#include <string>

namespace seriatim {

/// Tells errors apart.
enum class Kind {
  not_found,
  mismatch,  ///< An expected offset, revision, epoch, log id or cluster.
  fenced,    ///< Another process has taken the producer or the cursor over.
  too_large,
  trimmed,
  past_end,
  not_allowed,
  unavailable,
  exhausted,
  data_loss,
  outcome_unknown,  ///< The request may have been done.
  invalid,
  timeout,
  cancelled,
  closed,  ///< The client, the producer or the consumer was closed.
  other,
};

/// What became of a request.
enum class Outcome {
  none,     ///< Nothing was done, and nothing will be.
  done,     ///< It was done, although the answer is lost.
  unknown,  ///< It may have been done, or may be done later.
};

/// Whether the same request can succeed when it is sent again.
enum class Retry { no, same, elsewhere, later };

/// The codes of gRPC, with their numbers.
enum class Code {
  ok = 0,
  cancelled = 1,
  unknown = 2,
  invalid_argument = 3,
  deadline_exceeded = 4,
  not_found = 5,
  already_exists = 6,
  permission_denied = 7,
  resource_exhausted = 8,
  failed_precondition = 9,
  aborted = 10,
  out_of_range = 11,
  unimplemented = 12,
  internal = 13,
  unavailable = 14,
  data_loss = 15,
  unauthenticated = 16,
};

/// Returns the name as the other libraries write it, such as `outcome_unknown`.
const char* to_string(Kind kind) noexcept;
const char* to_string(Outcome outcome) noexcept;
const char* to_string(Retry retry) noexcept;
/// Returns gRPC's name, such as `UNAVAILABLE`.
const char* to_string(Code code) noexcept;

/// The type of all errors of this library. `errors.proto` describes its fields.
///
/// A copy shares the contents, which never change.
class Error : public std::exception {
 public:
  struct Fields {
    Kind kind = Kind::other;
    Code code = Code::unknown;
    std::string reason;
    std::string message;
    std::map<std::string, std::string> metadata;
    Outcome outcome = Outcome::unknown;
    Retry retry = Retry::no;
  };

  explicit Error(Fields fields);

  Kind kind() const noexcept;
  Code code() const noexcept;
  /// A name of `errors.proto`, or empty if the error does not come from a node.
  const std::string& reason() const noexcept;
  const std::string& message() const noexcept;
  /// The keys of ErrorInfo except `outcome` and `retry`.
  const std::map<std::string, std::string>& metadata() const noexcept;
  /// The outcome of all attempts together.
  Outcome outcome() const noexcept;
  /// The retry of the last attempt.
  Retry retry() const noexcept;

  /// Whether the request may have had an effect, or may have one later.
  bool may_have_been_done() const noexcept { return outcome() != Outcome::none; }

  /// `CODE (REASON): message [outcome O, retry R]`.
  const char* what() const noexcept override;

 private:
  struct Contents;
  std::shared_ptr<const Contents> contents_;
};

}  // namespace seriatim

#endif  // SERIATIM_ERROR_H
