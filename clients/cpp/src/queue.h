// What a producer has not delivered yet: requests that are sent and not answered, then those that are not sent. It does
// no I/O and has no lock.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "encode.h"
#include "seriatim/producer.h"

namespace seriatim {

// At most this many requests and bytes are unanswered. The server keeps the answers to the last 64 requests of a
// producer.
inline constexpr std::size_t kUnansweredMax = 32;
inline constexpr std::size_t kUnansweredBytesMax = 4 << 20;
// What a record takes in the buffer in addition to its encoded size: the state of its future, or its callback.
inline constexpr std::size_t kRecordOverhead = 128;
// Bounds the fields of a request besides its records, with names of common length.
inline constexpr std::size_t kTrailerBytesMax = 128;

/// Who gets the result of a record.
using Recipient = std::variant<std::promise<Ack>, SendCallback>;

/// A request with its records. It keeps its records and its sequence once it was sent, so that the server recognizes
/// it.
struct Batch {
  std::size_t size() const { return body->size() + kTrailerBytesMax; }

  /// Passes the results on, and forgets the records. Calls `report` with what a callback throws.
  void complete(const std::function<void(const std::string&)>& report);

  /// The encoded records. The string does not change once it was sent, because a stream may still read it.
  std::shared_ptr<std::string> body = std::make_shared<std::string>();
  std::size_t count = 0;
  /// What its records take in the buffer.
  std::size_t cost = 0;
  /// When its first record was sent.
  Clock::time_point since;
  /// No record joins any more.
  bool is_sealed = false;
  /// 0: not sent yet.
  std::uint64_t sequence = 0;
  Fate fate;

  /// In the order of the records, including those that were removed.
  std::vector<Recipient> recipients;

  /// Whether the results below are final.
  bool is_answered = false;
  /// Whether they were passed on.
  bool is_done = false;
  MaybeFailure failure;
  std::uint64_t offset = 0;
  Timestamp append_time;
  bool is_duplicate = false;
  /// The records were appended, and the cluster no longer knows their offset.
  bool offset_lost = false;
  /// Records that failed alone, by their position.
  std::map<std::size_t, Failure> removed;
};

using BatchPtr = std::shared_ptr<Batch>;

class Queue {
 public:
  Queue(std::size_t max_records, std::size_t max_bytes) : max_records_(max_records), max_bytes_(max_bytes) {}

  Identity identity;

  void set_max_bytes(std::size_t bytes) { max_bytes_ = bytes; }

  const std::deque<BatchPtr>& batches() const { return batches_; }
  bool empty() const { return batches_.empty(); }
  /// The number of requests at the front that were sent on the present stream.
  std::size_t sent() const { return sent_; }
  std::size_t sent_bytes() const { return sent_bytes_; }

  /// Puts a record into the last request, or into a new one. Returns what it takes in the buffer.
  std::size_t add(const Record& record, const EncodedSize& size, Recipient recipient);

  /// Returns the request that may be sent now, or null.
  const Batch* peek() const;

  /// Takes the request of `peek` as sent, and assigns its sequence.
  const Batch& send();

  /// Removes the first request: its outcome is final.
  BatchPtr pop();

  /// Removes all requests.
  std::deque<BatchPtr> clear();

  /// Notes what a failure of the present stream says about each request that was sent on it, and makes the queue send
  /// everything again, on a new stream. `answered` is the number of answers on that stream. Returns the position of the
  /// request that failed.
  std::size_t failed(const Failure& failure, std::size_t answered);

  /// Whether a request may have been appended by an attempt before the present stream.
  bool may_have_been_done() const;

  /// Whether a request after the first one may have been appended.
  bool may_have_been_done_after_first() const;

  /// Forgets earlier attempts, because none of the requests was appended.
  void forget_attempts();

  /// Assigns sequences from `first` on to the requests. None of them may have been appended.
  void renumber(std::uint64_t first);

  struct Removed {
    bool any = false;
    /// Requests that have become empty: they are final.
    std::vector<BatchPtr> empty;
    /// What the records took in the buffer.
    std::size_t cost = 0;
  };

  /// Takes the records that are larger than `max` out of requests that can't have been appended, and the one at
  /// `position` of the first request. `refuse` returns the failure of each, by its size. Nothing may be sent at the
  /// moment.
  Removed remove(std::size_t max, std::optional<std::size_t> position,
                 const std::function<Failure(std::size_t)>& refuse);

 private:
  const std::size_t max_records_;
  std::size_t max_bytes_;
  std::deque<BatchPtr> batches_;
  std::size_t sent_ = 0;
  std::size_t sent_bytes_ = 0;
  // The sequence of the next request that is sent for the first time.
  std::uint64_t sequence_ = 1;
};

}  // namespace seriatim
