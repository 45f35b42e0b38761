#ifndef SERIATIM_RECORD_H
#define SERIATIM_RECORD_H

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace seriatim {

/// Microseconds since 1970, as the cluster stores them.
using Timestamp = std::chrono::time_point<std::chrono::system_clock, std::chrono::microseconds>;

/// Describes a record. Names may repeat.
struct Header {
  std::string name;   ///< UTF-8.
  std::string value;  ///< Any bytes.
};

/// An entry of a log. Strings contain any bytes.
struct Record {
  Record() = default;
  Record(std::string value) : value(std::move(value)) {}
  Record(const char* value) : value(value) {}

  std::string value;
  /// An absent key differs from an empty one.
  std::optional<std::string> key;
  std::vector<Header> headers;
  /// A number that the producer chooses.
  std::uint32_t type = 0;
  /// When the event happened, by the producer's clock.
  std::optional<Timestamp> event_time;
};

/// A record that was read.
struct ConsumedRecord : Record {
  std::uint64_t offset = 0;
  Timestamp append_time;
  /// The Raft term in which it was appended.
  std::uint64_t term = 0;
  /// How many records directly before this one were trimmed, and not returned. Only with ConsumerOptions::skip_trimmed.
  std::uint64_t skipped = 0;
};

}  // namespace seriatim

#endif  // SERIATIM_RECORD_H
