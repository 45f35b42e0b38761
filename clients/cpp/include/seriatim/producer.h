#ifndef SERIATIM_PRODUCER_H
#define SERIATIM_PRODUCER_H

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <variant>

#include "seriatim/deadline.h"
#include "seriatim/error.h"
#include "seriatim/record.h"

namespace seriatim {

struct ProducerOptions {
  /// A named producer continues after the last request of the process before it, which it fences.
  std::string name = {};
  /// A request contains at most this many records,
  std::size_t batch_records = 1000;
  /// and bytes, unless a single record is larger.
  std::size_t batch_bytes = 512 << 10;
  /// How much `send` accepts before it waits. Each record counts with 128 bytes in addition to its own.
  std::size_t buffer_bytes = 32 << 20;
  /// How long a record may take until it is acknowledged. Then the producer fails.
  std::chrono::milliseconds delivery_timeout = std::chrono::seconds(120);
  /// What people should know about this process. Empty: its host and number. At most 255 bytes.
  std::string owner = {};
};

/// What the cluster knows about a named producer when it begins.
struct Registration {
  /// The sequence of the last request that was appended. 0: none was.
  std::uint64_t last_sequence = 0;
  /// The offset of the last record of that request.
  std::uint64_t last_offset = 0;
  /// How many records it has appended. A source with one record for each item continues with the item after that many.
  std::uint64_t records = 0;
};

/// Says where a record was appended.
struct Ack {
  std::uint64_t offset = 0;
  Timestamp append_time;
  /// The request was sent more than once, and this is the answer to the first.
  bool duplicate = false;
  /// The record was appended, but the cluster no longer knows where. `offset` is 0.
  bool offset_lost = false;
};

/// What became of a record: an Ack, or an Error.
class SendResult {
 public:
  SendResult(Ack ack) : result_(ack) {}
  SendResult(Error error) : result_(std::move(error)) {}

  /// Whether the record was acknowledged.
  explicit operator bool() const noexcept { return result_.index() == 0; }
  /// Throws the error if the record was not acknowledged.
  const Ack& ack() const {
    if (const auto* failed = error()) throw *failed;
    return std::get<Ack>(result_);
  }
  /// Returns null if the record was acknowledged.
  const Error* error() const noexcept { return std::get_if<Error>(&result_); }

 private:
  std::variant<Ack, Error> result_;
};

/// Called with the result of a record.
using SendCallback = std::function<void(const SendResult&)>;

class ProducerCore;

/// Appends records to one log, each once, in the order of the calls. Threads share it.
///
/// An error that can't be retried closes the producer: the record fails, and then all later ones, so that none is
/// skipped. Only a record that is too large or malformed fails alone.
///
/// The destructor does not flush. It fails the records that are not acknowledged with Kind::closed, and waits for the
/// callbacks of all records. Call `close` before.
class Producer {
 public:
  Producer(Producer&&) noexcept;
  Producer& operator=(Producer&&) noexcept;
  ~Producer();

  /// What the cluster knew when the producer was registered.
  Registration registration() const;

  /// Sends a record, and returns its acknowledgement. All failures are in the future.
  ///
  /// Waits only while the buffer is full, at most until `deadline`; then the record fails with Kind::timeout. Before a
  /// record fails because it is too large, the limit of the log is read again, which takes at most the time of an
  /// attempt.
  ///
  /// The destructor of the future does not wait.
  std::future<Ack> send(Record record, Deadline deadline = {});

  /// The same, for results without a thread that waits.
  ///
  /// Callbacks run one after the other, in the order of the records, on a thread of the producer. A callback that takes
  /// long delays the ones after it, and the space in the buffer that their records take. It may call any method of the
  /// producer, and destroy it; `send` does not wait for space there. What it throws is logged and dropped.
  void send(Record record, SendCallback callback, Deadline deadline = {});

  /// Sends a record, and waits until it is acknowledged. Concurrent calls share requests. After `deadline`, the record
  /// may still be appended: the outcome is unknown.
  Ack append(Record record, Deadline deadline = {});

  /// Waits until everything that was sent before is acknowledged, and its callbacks have returned.
  ///
  /// Throws why the producer has failed, if it has, and Kind::timeout after `deadline`.
  void flush(Deadline deadline = {});

  /// Accepts no more records, and returns at once. What was sent before is still delivered; a `send` that waits for
  /// space fails.
  void shutdown();

  /// Accepts no more records, flushes, and fails what is not acknowledged at `deadline`. A second call does nothing.
  ///
  /// Throws why the producer has failed, if it has, and Kind::timeout if records were left.
  void close(Deadline deadline = {});

 private:
  friend class Client;
  explicit Producer(std::shared_ptr<ProducerCore> core);

  std::shared_ptr<ProducerCore> core() const;
  void abandon() noexcept;

  std::shared_ptr<ProducerCore> core_;
};

}  // namespace seriatim

#endif  // SERIATIM_PRODUCER_H
