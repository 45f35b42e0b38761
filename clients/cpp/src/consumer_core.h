// What the threads of a consumer share: the application's, one that reads, and one that commits if it commits by
// itself.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "call.h"
#include "seriatim/consumer.h"

namespace seriatim {

struct ConsumeStream;

class ConsumerCore {
 public:
  /// Acquires the cursor, if the options name one, and begins to read. Throws Error.
  static std::shared_ptr<ConsumerCore> start(std::shared_ptr<ClientCore> client, std::string log,
                                             ConsumerOptions options, Deadline deadline);

  /// Returns nothing at the deadline. Throws Error.
  std::optional<ConsumedRecord> next(Deadline deadline);
  std::optional<std::uint64_t> position();
  MaybeFailure commit(Deadline deadline, std::uint64_t& position);
  MaybeFailure close(Deadline deadline);

  /// Ends the consumer, and waits for its threads.
  void abandon() noexcept;

 private:
  using Lock = std::unique_lock<std::mutex>;

  /// A response that the application has not taken, or only in part.
  struct Chunk {
    v1::ConsumeResponse response;
    int taken = 0;
    std::uint64_t skipped = 0;
    std::size_t bytes = 0;
  };

  ConsumerCore(std::shared_ptr<ClientCore> client, std::string log, ConsumerOptions options);

  // --- consumer.cc ---
  void end(const Failure& why);
  ConsumedRecord take();
  void join();

  // --- cursor.cc ---
  MaybeFailure acquire(Deadline deadline);
  MaybeFailure commit(Scope& scope, Deadline deadline, const std::uint64_t& position, std::uint64_t& committed);
  bool must_commit();
  void commit_regularly();

  // --- read.cc: the thread that reads ---
  void read();
  MaybeFailure stream(const ConnectionPtr& connection, Route& route);
  MaybeFailure receive(ConsumeStream& stream, Route& route);
  void retry(Route& route, const ConnectionPtr& connection, const Failure& failure);
  bool skip_trimmed(const Failure& failure);
  bool is_damaged_everywhere(const NodePtr& at);
  MaybeFailure accept(v1::ConsumeResponse response);
  bool wait_for_room();
  void heard();
  Deadline silence_deadline();
  bool is_silent();

  const std::shared_ptr<ClientCore> client_;
  const ConsumerOptions options_;
  const std::string log_;
  // Ends when the consumer has failed or was closed.
  Scope scope_;
  // The epoch of the cursor.
  std::uint64_t epoch_ = 0;

  // Used by the thread that reads only, once it runs.
  v1::ConsumeRequest request_;
  // Whether a record was received, so that the next offset is certain.
  bool is_contiguous_ = false;
  // The number of records that were trimmed before the next.
  std::uint64_t skipped_ = 0;
  // The nodes on which the next record is damaged.
  std::set<NodePtr> damaged_at_;

  std::mutex mutex_;
  // Records were read, or the consumer has ended.
  std::condition_variable ready_;
  // More records fit, or the consumer has ended.
  std::condition_variable room_;
  // No commit is in flight.
  std::condition_variable committed_one_;
  std::deque<Chunk> chunks_;
  std::size_t records_ = 0;
  std::size_t bytes_ = 0;
  // The position after the last record that the application has taken, and after the last one whose successor it has
  // asked for.
  std::uint64_t taken_ = 0;
  std::uint64_t passed_ = 0;
  // Whether these positions are known. A consumer without a cursor learns its position from the first response.
  bool has_position_ = false;
  std::uint64_t committed_ = 0;
  bool is_committing_ = false;
  std::string log_id_;
  MaybeFailure failure_;
  MaybeFailure last_failure_;
  // When the last message was received, or reading began again.
  Clock::time_point heard_ = Clock::now();

  std::mutex close_mutex_;
  bool is_closed_ = false;
  std::thread reader_;
  std::thread committer_;
  Scope::Registration with_client_;
};

}  // namespace seriatim
