#ifndef SERIATIM_CONSUMER_H
#define SERIATIM_CONSUMER_H

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>

#include "seriatim/deadline.h"
#include "seriatim/error.h"
#include "seriatim/record.h"

namespace seriatim {

/// Where a consumer begins.
class Start {
 public:
  /// At the first record that exists.
  static Start earliest() { return {Where::earliest, 0}; }
  /// After the last record.
  static Start latest() { return {Where::latest, 0}; }
  static Start at_offset(std::uint64_t offset) { return {Where::offset, offset}; }
  /// At the first record that was appended at or after a time.
  static Start at_time(Timestamp time) {
    const auto us = time.time_since_epoch().count();
    return {Where::time, us < 0 ? 0 : static_cast<std::uint64_t>(us)};
  }
  /// With the last `count` records.
  static Start last(std::uint64_t count) { return {Where::last, count}; }

 private:
  friend class ConsumerCore;
  enum class Where { earliest, latest, offset, time, last };
  Start(Where where, std::uint64_t number) : where_(where), number_(number) {}

  Where where_;
  std::uint64_t number_;
};

struct ConsumerOptions {
  /// Where to begin; with a cursor, where a new cursor begins.
  Start start = Start::earliest();
  /// The name of the cursor that stores the position. The consumer takes it over from another process.
  std::string cursor = {};
  /// Commit the position by itself after this interval, and in `close`. A record counts once the application has asked
  /// for the next one. 0: it does not. Only with a cursor.
  std::chrono::milliseconds auto_commit{0};
  /// Continue after records that were trimmed. By default, the consumer fails with Kind::trimmed.
  bool skip_trimmed = false;
  /// The time without records after which a node says that it is alive, at least 1 s. Three of them without a message
  /// mean that the connection is broken.
  std::chrono::milliseconds heartbeat = std::chrono::seconds(10);
  /// How long to wait without any message from a node. 0: without an end.
  std::chrono::milliseconds max_silence{0};
  /// What people should know about this process. Empty: its host and number. At most 255 bytes. Only with a cursor.
  std::string owner = {};
};

class ConsumerCore;

/// Reads one log, continues after failures, and returns no record twice and skips none.
///
///     for (const seriatim::ConsumedRecord& record : consumer) { ... }
///
/// One thread at a time takes records. Any thread may call the other methods at the same time.
///
/// The destructor ends the consumer, and does not commit: call `close` before, if `auto_commit` is set.
class Consumer {
 public:
  class Iterator;

  Consumer(Consumer&&) noexcept;
  Consumer& operator=(Consumer&&) noexcept;
  ~Consumer();

  /// Waits for the next record. Returns nothing at `deadline`.
  ///
  /// Throws why the consumer has ended, and then always the same; Kind::closed after `close`.
  std::optional<ConsumedRecord> next(Deadline deadline);

  /// Waits for the next record.
  ConsumedRecord next();

  /// Takes the first record, and waits for it. An iterator continues where the last one has stopped. It ends when the
  /// consumer is closed, and throws other errors.
  Iterator begin();
  Iterator end() noexcept;

  /// Returns the offset after the last record that the application has taken. A consumer that has received nothing yet,
  /// and has no cursor, has none.
  std::optional<std::uint64_t> position() const;

  /// Stores that position in the cursor, and returns it.
  std::uint64_t commit(Deadline deadline = {});

  /// Ends the consumer. With `auto_commit`, it commits once more, and throws if that fails. A second call does nothing.
  void close(Deadline deadline = {});

 private:
  friend class Client;
  explicit Consumer(std::shared_ptr<ConsumerCore> core);

  std::shared_ptr<ConsumerCore> core() const;
  void abandon() noexcept;

  std::shared_ptr<ConsumerCore> core_;
};

/// An input iterator: copies share the position.
class Consumer::Iterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = ConsumedRecord;
  using difference_type = std::ptrdiff_t;
  using pointer = const ConsumedRecord*;
  using reference = const ConsumedRecord&;

  Iterator() = default;

  reference operator*() const { return *record_; }
  pointer operator->() const { return record_.get(); }
  Iterator& operator++() {
    take();
    return *this;
  }
  void operator++(int) { take(); }

  /// Whether both have ended, or neither has.
  friend bool operator==(const Iterator& a, const Iterator& b) noexcept { return !a.record_ == !b.record_; }
  friend bool operator!=(const Iterator& a, const Iterator& b) noexcept { return !(a == b); }

 private:
  friend class Consumer;
  explicit Iterator(std::shared_ptr<ConsumerCore> core) : core_(std::move(core)) { take(); }
  void take();

  std::shared_ptr<ConsumerCore> core_;
  std::shared_ptr<ConsumedRecord> record_;
};

}  // namespace seriatim

#endif  // SERIATIM_CONSUMER_H
