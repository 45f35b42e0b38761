// What the threads of a producer share: those of the application that send, one that delivers, and one for callbacks.
#pragma once

#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "call.h"
#include "completions.h"
#include "queue.h"

namespace seriatim {

struct ProduceStream;

class ProducerCore : public std::enable_shared_from_this<ProducerCore> {
 public:
  /// Registers a producer, and starts its thread. Throws Error.
  static std::shared_ptr<ProducerCore> start(std::shared_ptr<ClientCore> client, std::string log,
                                             ProducerOptions options, Deadline deadline);

  const Registration& registration() const { return registration_; }

  /// Puts a record into the buffer, or passes the failure to its recipient.
  void send(const Record& record, Recipient recipient, Deadline deadline);

  /// Returns the failure of the last record, or why the producer has failed, or that the time is up.
  MaybeFailure flush(Deadline deadline);
  MaybeFailure close(Deadline deadline);
  void shutdown();

  /// Ends the producer, and waits for its threads.
  void abandon() noexcept;

 private:
  using Lock = std::unique_lock<std::mutex>;

  /// A call of `send` that waits until the buffer has room.
  struct Waiter {
    const Record& record;
    const EncodedSize& size;
    Recipient& recipient;
    std::condition_variable changed;
    bool is_accepted = false;
    MaybeFailure failure;
  };

  ProducerCore(std::shared_ptr<ClientCore> client, std::string log, ProducerOptions options);

  // --- producer.cc: for the application ---
  MaybeFailure accept(const Record& record, Recipient& recipient, Deadline deadline);
  MaybeFailure wait_for_room(Lock& lock, const Record& record, const EncodedSize& size, Recipient& recipient,
                             Deadline deadline);
  MaybeFailure refusal() const;
  bool has_room(std::size_t cost) const;
  void add(const Record& record, const EncodedSize& size, Recipient& recipient);
  void kick(Lock& lock);
  void read_limits(Lock& lock, Deadline deadline);
  void refuse_waiting(const Failure& failure);
  void fail(const Failure& why);
  void answer(Lock& lock, const std::vector<BatchPtr>& batches);
  void complete(Batch& batch);
  void release(std::size_t cost);
  void join();

  // --- deliver.cc: the thread that delivers ---
  MaybeFailure register_with(Scope& scope, Deadline deadline, v1::Producer& registered);
  MaybeFailure limits(Scope& scope, Deadline deadline, Route& route, const std::string& log_id, v1::LogConfig& config);
  void set_limits(const v1::LogConfig& config);
  void deliver();
  bool await_work();
  MaybeFailure open(const ConnectionPtr& connection, std::shared_ptr<ProduceStream>& stream);
  MaybeFailure receive(ProduceStream& stream);
  void pump(Lock& lock);
  MaybeFailure take(ProduceStream& stream, const v1::ProduceResponse& answer);
  void gather();
  Clock::time_point next_check(const ProduceStream& stream);
  void check(ProduceStream& stream);
  bool check_delivery();
  bool recover(ProduceStream* stream, const ConnectionPtr& connection, Failure failure);
  bool decide(const ConnectionPtr& connection, Failure failure, std::size_t failed_at, bool was_sent, bool is_new);
  void complete_first();
  bool begin_again();
  bool remove_too_large(const Failure& refused, MaybeFailure& failure);
  Deadline delivery_deadline();
  bool pause(Clock::duration duration);

  const std::shared_ptr<ClientCore> client_;
  const ProducerOptions options_;
  const std::string log_;
  Registration registration_;
  // Ends when the producer has failed or was closed.
  Scope scope_;
  // Used by the thread that delivers only, once the producer is registered.
  Route route_;

  std::mutex mutex_;
  // Records wait to be delivered, or the producer has ended.
  std::condition_variable work_;
  // Records are answered, limits were read, or the producer has ended.
  std::condition_variable progress_;
  Queue queue_;
  // The last request that was made.
  BatchPtr last_;
  std::size_t max_record_bytes_ = 0;
  bool is_reading_limits_ = false;
  // When the limits were read again.
  std::optional<Clock::time_point> limits_read_;
  // What the records take whose space is not free yet.
  std::size_t buffered_ = 0;
  // In their order.
  std::list<Waiter*> waiting_;
  std::shared_ptr<ProduceStream> stream_;
  // Why no record is accepted any more.
  MaybeFailure failure_;
  bool is_closing_ = false;
  // The failure of the last attempt.
  MaybeFailure last_failure_;
  // From the first callback on, results are passed on by that thread, so that they stay in order.
  bool uses_callbacks_ = false;
  Completions completions_;

  std::mutex join_mutex_;
  std::thread thread_;
  Scope::Registration with_client_;
};

}  // namespace seriatim
