// Records as they are sent. They are encoded when the application sends them: what is sent again must be the same
// bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "failure.h"
#include "seriatim/record.h"

namespace seriatim {

/// What a limit of a log counts: the bytes of value, key and headers.
std::size_t limited_size(const Record& record);

/// Returns why the record can't be sent, if it can't.
MaybeFailure check_record(const Record& record);

/// The size of the record as a field of ProduceRequest.
class EncodedSize {
 public:
  explicit EncodedSize(const Record& record);

  std::size_t bytes() const { return bytes_; }
  std::size_t message() const { return message_; }

 private:
  // Without and with the tag and the length before it.
  std::size_t message_ = 0;
  std::size_t bytes_ = 0;
};

/// Appends the record as a field of ProduceRequest.
void append(std::string& body, const Record& record, const EncodedSize& size);

/// What all requests of a producer have in common.
struct Identity {
  std::string log;
  std::string log_id;
  std::uint64_t producer_id = 0;
  std::uint32_t epoch = 0;
};

/// Returns the fields of ProduceRequest that follow its records.
std::string encode_trailer(const Identity& identity, std::uint64_t sequence);

inline Timestamp timestamp_of(std::uint64_t us) {
  return Timestamp(Timestamp::duration(static_cast<Timestamp::rep>(us)));
}

}  // namespace seriatim
