#include "failure.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <unordered_map>
#include <utility>

#include "details.pb.h"

namespace seriatim {

namespace {

const char* const kKinds[] = {"not_found",   "mismatch",    "fenced",    "too_large", "trimmed",         "past_end",
                              "not_allowed", "unavailable", "exhausted", "data_loss", "outcome_unknown", "invalid",
                              "timeout",     "cancelled",   "closed",    "other"};
const char* const kOutcomes[] = {"none", "done", "unknown"};
const char* const kRetries[] = {"no", "same", "elsewhere", "later"};
const char* const kCodes[] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

template <class Enum, std::size_t size>
const char* name(const char* const (&names)[size], Enum value) {
  const auto at = static_cast<std::size_t>(value);
  return at < size ? names[at] : "unknown";
}

/// Returns false if the bytes are malformed: then they count as missing.
bool read_details(const std::string& bytes, Failure& failure) {
  client::details::Status status;
  if (bytes.empty() || !status.ParseFromString(bytes)) return false;
  client::details::ErrorInfo info;
  client::details::RetryInfo retry;
  bool has_info = false;
  for (const auto& detail : status.details()) {
    const std::string& url = detail.type_url();
    const std::string type = url.substr(url.rfind('/') + 1);
    if (type == "google.rpc.ErrorInfo") {
      client::details::ErrorInfo candidate;
      if (!candidate.ParseFromString(detail.value())) return false;
      if (candidate.domain() == "seriatim") {
        info = candidate;
        has_info = true;
      }
    } else if (type == "google.rpc.RetryInfo" && !retry.ParseFromString(detail.value())) {
      return false;
    }
  }
  // A day is longer than any operation.
  constexpr std::int64_t longest = 24 * 3600;
  const auto& delay = retry.retry_delay();
  const auto seconds = std::clamp<std::int64_t>(delay.seconds(), 0, longest);
  failure.retry_after = std::chrono::seconds(seconds) + std::chrono::nanoseconds(std::max(delay.nanos(), 0));
  if (!has_info) return true;
  failure.answered = true;
  failure.reason = info.reason();
  failure.metadata = {info.metadata().begin(), info.metadata().end()};
  return true;
}

/// Takes a value out of the metadata. One that is not known here counts as the one that promises least.
template <class Enum, std::size_t size>
Enum take(Failure& failure, const char* key, const char* const (&names)[size], Enum otherwise) {
  const auto found = failure.metadata.find(key);
  if (found == failure.metadata.end()) return otherwise;
  const auto known = std::find(std::begin(names), std::end(names), found->second);
  failure.metadata.erase(found);
  return known == std::end(names) ? otherwise : static_cast<Enum>(known - std::begin(names));
}

}  // namespace

const char* to_string(Kind kind) noexcept { return name(kKinds, kind); }
const char* to_string(Outcome outcome) noexcept { return name(kOutcomes, outcome); }
const char* to_string(Retry retry) noexcept { return name(kRetries, retry); }
const char* to_string(Code code) noexcept { return name(kCodes, code); }

struct Error::Contents {
  Fields fields;
  std::string text;
};

namespace {

std::string text_of(const Error::Fields& fields) {
  std::string text = to_string(fields.code);
  if (!fields.reason.empty()) text += " (" + fields.reason + ")";
  text += ": " + fields.message + " [outcome " + to_string(fields.outcome);
  return text + ", retry " + to_string(fields.retry) + "]";
}

}  // namespace

Error::Error(Fields fields) {
  auto contents = std::make_shared<Contents>();
  contents->fields = std::move(fields);
  contents->text = text_of(contents->fields);
  contents_ = std::move(contents);
}

Kind Error::kind() const noexcept { return contents_->fields.kind; }
Code Error::code() const noexcept { return contents_->fields.code; }
const std::string& Error::reason() const noexcept { return contents_->fields.reason; }
const std::string& Error::message() const noexcept { return contents_->fields.message; }
const std::map<std::string, std::string>& Error::metadata() const noexcept { return contents_->fields.metadata; }
Outcome Error::outcome() const noexcept { return contents_->fields.outcome; }
Retry Error::retry() const noexcept { return contents_->fields.retry; }
const char* Error::what() const noexcept { return contents_->text.c_str(); }

std::string Failure::text() const { return text_of(*this); }

Failure Failure::with_outcome(Outcome other) const {
  Failure copy = *this;
  copy.outcome = other;
  copy.kind = closed && other != Outcome::unknown ? Kind::closed : kind_of(reason, other, code);
  return copy;
}

std::optional<std::uint64_t> Failure::number(const std::string& key) const {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return std::nullopt;
  const char* begin = found->second.data();
  const char* end = begin + found->second.size();
  std::uint64_t value = 0;
  const auto [stopped, error] = std::from_chars(begin, end, value);
  if (error != std::errc() || stopped != end) return std::nullopt;
  return value;
}

Kind kind_of(const std::string& reason, Outcome outcome, Code code) {
  static const std::unordered_map<std::string, Kind> by_reason = {
      {"NO_SUCH_LOG", Kind::not_found},
      {"LOG_DELETED", Kind::not_found},
      {"NO_SUCH_PRODUCER", Kind::not_found},
      {"NO_SUCH_CURSOR", Kind::not_found},
      {"EXPECTED_OFFSET_MISMATCH", Kind::mismatch},
      {"REVISION_MISMATCH", Kind::mismatch},
      {"EPOCH_MISMATCH", Kind::mismatch},
      {"LOG_ID_MISMATCH", Kind::mismatch},
      {"CURSOR_BEHIND", Kind::mismatch},
      {kClusterChanged, Kind::mismatch},
      {"PRODUCER_FENCED", Kind::fenced},
      {"CURSOR_FENCED", Kind::fenced},
      {"RECORD_TOO_LARGE", Kind::too_large},
      {"REQUEST_TOO_LARGE", Kind::too_large},
      {"OFFSET_TRIMMED", Kind::trimmed},
      {"OFFSET_PAST_END", Kind::past_end},
      {"RECORD_DAMAGED", Kind::data_loss},
  };
  if (const auto found = by_reason.find(reason); found != by_reason.end()) return found->second;
  if (outcome == Outcome::unknown) return Kind::outcome_unknown;
  switch (code) {
    case Code::permission_denied:
    case Code::unauthenticated:
      return Kind::not_allowed;
    case Code::unavailable:
      return Kind::unavailable;
    case Code::resource_exhausted:
      return Kind::exhausted;
    case Code::invalid_argument:
    case Code::unimplemented:
      return Kind::invalid;
    case Code::deadline_exceeded:
      return Kind::timeout;
    case Code::cancelled:
      return Kind::cancelled;
    case Code::not_found:
      return Kind::not_found;
    case Code::out_of_range:
      return Kind::past_end;
    case Code::data_loss:
      return Kind::data_loss;
    case Code::ok:
    case Code::unknown:
    case Code::already_exists:
    case Code::failed_precondition:
    case Code::aborted:
    case Code::internal:
      return Kind::other;
  }
  return Kind::other;
}

Failure failure_of(const grpc::Status& status, bool was_sent) {
  Failure failure;
  failure.code = static_cast<Code>(status.error_code());
  failure.message = status.error_message();
  failure.outcome = Outcome::unknown;
  failure.retry = Retry::no;
  if (!read_details(status.error_details(), failure)) failure.retry_after = {};
  if (failure.answered) {
    failure.outcome = take(failure, "outcome", kOutcomes, Outcome::unknown);
    failure.retry = take(failure, "retry", kRetries, Retry::no);
  } else {
    switch (failure.code) {
      case Code::unauthenticated:
      case Code::permission_denied:
      case Code::unimplemented:
        failure.outcome = Outcome::none;
        break;
      case Code::unavailable:
      case Code::deadline_exceeded:
        failure.broken = true;
        failure.retry = Retry::elsewhere;
        break;
      case Code::unknown:
      case Code::internal:
      case Code::cancelled:
        // A caller that has cancelled knows that, and does not look at this.
        failure.broken = true;
        failure.retry = Retry::elsewhere;
        failure.message = std::string(to_string(failure.code)) + ": " + failure.message;
        failure.code = Code::unavailable;
        break;
      default:
        break;
    }
    if (!was_sent) failure.outcome = Outcome::none;
  }
  failure.kind = kind_of(failure.reason, failure.outcome, failure.code);
  return failure;
}

namespace {

Failure make(Code code, std::string message, Outcome outcome, Retry retry) {
  Failure failure;
  failure.code = code;
  failure.message = std::move(message);
  failure.outcome = outcome;
  failure.retry = retry;
  failure.kind = kind_of("", outcome, code);
  return failure;
}

}  // namespace

Failure no_answer(const std::string& what, Clock::duration after, Outcome outcome) {
  Failure failure = make(Code::deadline_exceeded, what + " within " + text_of(after), outcome, Retry::elsewhere);
  failure.broken = true;
  return failure;
}

Failure broken(const std::string& message, Outcome outcome) {
  Failure failure = make(Code::unavailable, message, outcome, Retry::elsewhere);
  failure.broken = true;
  return failure;
}

Failure timed_out(const std::string& what, Outcome outcome, const MaybeFailure& last) {
  Failure failure = make(Code::deadline_exceeded, what, outcome, Retry::no);
  if (last) failure.message += "; the last error was " + last->text();
  return failure;
}

Failure closed_failure(const std::string& what) {
  Failure failure = make(Code::cancelled, what + " was closed", Outcome::none, Retry::no);
  failure.closed = true;
  failure.kind = Kind::closed;
  return failure;
}

Failure invalid(const std::string& message) { return make(Code::invalid_argument, message, Outcome::none, Retry::no); }

Failure bug(const std::string& message, Outcome outcome) {
  return make(Code::internal, message + ": report this as a bug", outcome, Retry::no);
}

std::string text_of(Clock::duration duration) {
  char text[32];
  std::snprintf(text, sizeof text, "%g s", std::chrono::duration<double>(duration).count());
  return text;
}

}  // namespace seriatim
