#include "seriatim/producer.h"

#include <algorithm>
#include <utility>

#include "producer_core.h"

namespace seriatim {

namespace {

/// The least time between two readings of the limits of the log, before a record is refused by them.
constexpr auto kLimitsInterval = std::chrono::seconds(1);
/// How long `close` waits for callbacks once everything is answered, even if its deadline has passed.
constexpr auto kCallbacksMin = std::chrono::seconds(1);

void check_at_least_one(const char* what, std::size_t value) {
  if (value == 0) throw invalid(std::string(what) + " is 0: choose at least 1").error();
}

ProducerOptions checked(ProducerOptions options) {
  check_at_least_one("batch_records", options.batch_records);
  check_at_least_one("batch_bytes", options.batch_bytes);
  check_at_least_one("buffer_bytes", options.buffer_bytes);
  check_positive("delivery_timeout", options.delivery_timeout);
  if (options.owner.empty()) options.owner = default_owner();
  return options;
}

Failure too_large(std::size_t size, std::size_t max, const std::string& log) {
  auto failure = invalid("record of " + std::to_string(size) + " bytes exceeds max_record_bytes (" +
                         std::to_string(max) + ") of log \"" + log_name(log) + "\"");
  failure.reason = "RECORD_TOO_LARGE";
  failure.metadata = {{"log", log_name(log)}, {"limit", "max_record_bytes"}, {"max", std::to_string(max)}};
  failure.kind = Kind::too_large;
  return failure;
}

}  // namespace

ProducerCore::ProducerCore(std::shared_ptr<ClientCore> client, std::string log, ProducerOptions options)
    : client_(std::move(client)),
      options_(checked(std::move(options))),
      log_(std::move(log)),
      route_(Route::to_leader(*client_, log_)),
      queue_(options_.batch_records, options_.batch_bytes) {}

std::shared_ptr<ProducerCore> ProducerCore::start(std::shared_ptr<ClientCore> client, std::string log,
                                                  ProducerOptions options, Deadline deadline) {
  std::shared_ptr<ProducerCore> core(new ProducerCore(std::move(client), std::move(log), std::move(options)));
  v1::Producer registered;
  if (auto failure = core->register_with(core->client_->scope, deadline, registered)) throw failure->error();
  core->registration_ = {registered.last_sequence(), registered.last_offset(), registered.records()};
  core->with_client_ =
      core->client_->scope.on_end([core = core.get()] { core->fail(*core->client_->scope.failure()); });
  core->thread_ = std::thread([core = core.get()] { core->deliver(); });
  return core;
}

void ProducerCore::send(const Record& record, Recipient recipient, Deadline deadline) {
  auto failure = accept(record, recipient, deadline);
  if (!failure) return;
  auto refused = std::make_shared<Batch>();
  refused->failure = std::move(failure);
  refused->recipients.push_back(std::move(recipient));
  completions_.await_room();
  Lock lock(mutex_);
  answer(lock, {std::move(refused)});
}

MaybeFailure ProducerCore::accept(const Record& record, Recipient& recipient, Deadline deadline) {
  if (auto failure = check_record(record)) return failure;
  const EncodedSize size(record);
  const auto limited = limited_size(record);
  Lock lock(mutex_);
  uses_callbacks_ = uses_callbacks_ || std::holds_alternative<SendCallback>(recipient);
  if (!failure_ && !is_closing_ && limited > max_record_bytes_) read_limits(lock, deadline);
  if (auto failure = refusal()) return failure;
  if (limited > max_record_bytes_) return too_large(limited, max_record_bytes_, log_);
  const bool must_wait = buffered_ > 0 && (!waiting_.empty() || !has_room(size.bytes() + kRecordOverhead));
  // A callback must not wait for space, which is not free before it has returned.
  if (must_wait && !completions_.is_current_thread()) return wait_for_room(lock, record, size, recipient, deadline);
  add(record, size, recipient);
  kick(lock);
  return std::nullopt;
}

MaybeFailure ProducerCore::wait_for_room(Lock& lock, const Record& record, const EncodedSize& size,
                                         Recipient& recipient, Deadline deadline) {
  Waiter waiter{record, size, recipient, {}, false, {}};
  const auto self = waiting_.insert(waiting_.end(), &waiter);
  wait_until(waiter.changed, lock, deadline, [&] { return waiter.is_accepted || waiter.failure; });
  if (waiter.is_accepted || waiter.failure) return waiter.failure;
  waiting_.erase(self);
  return timed_out("the buffer of the producer is full", Outcome::none, last_failure_);
}

/// Returns why no record can be accepted.
MaybeFailure ProducerCore::refusal() const {
  if (failure_) return failure_->with_outcome(Outcome::none);
  if (is_closing_) return closed_failure("the producer");
  return std::nullopt;
}

bool ProducerCore::has_room(std::size_t cost) const {
  return buffered_ == 0 || (buffered_ < options_.buffer_bytes && cost <= options_.buffer_bytes - buffered_);
}

void ProducerCore::add(const Record& record, const EncodedSize& size, Recipient& recipient) {
  buffered_ += queue_.add(record, size, std::move(recipient));
  last_ = queue_.batches().back();
}

/// Makes what was added go on its way.
void ProducerCore::kick(Lock& lock) {
  if (!stream_) {
    work_.notify_one();
  } else {
    // The thread that delivers need not wake up.
    pump(lock);
  }
}

/// Asks for the limits again: an admin may have raised them. If no node answers in the time of an attempt, those that
/// are known apply.
void ProducerCore::read_limits(Lock& lock, Deadline deadline) {
  const Deadline limit(std::min(deadline.at(), Clock::now() + client_->options.attempt_timeout));
  if (!wait_until(progress_, lock, limit, [this] { return !is_reading_limits_ || failure_; }) || failure_) return;
  if (limits_read_ && Clock::now() - *limits_read_ < kLimitsInterval) return;
  is_reading_limits_ = true;
  const auto log_id = queue_.identity.log_id;
  lock.unlock();
  auto route = Route::to_leader(*client_, log_);
  v1::LogConfig config;
  const auto failure = limits(scope_, limit, route, log_id, config);
  if (failure)
    client_->log(LogLevel::debug, "limits not read log=" + log_name(log_) + " error=\"" + failure->text() + "\"");
  lock.lock();
  if (!failure) set_limits(config);
  is_reading_limits_ = false;
  limits_read_ = Clock::now();
  progress_.notify_all();
}

/// Releases space, and lets calls in that wait for it.
void ProducerCore::release(std::size_t cost) {
  // After a failure, the space of what failed is free already.
  buffered_ -= std::min(cost, buffered_);
  while (!waiting_.empty() && !failure_) {
    auto& waiter = *waiting_.front();
    if (!has_room(waiter.size.bytes() + kRecordOverhead)) return;
    waiting_.pop_front();
    add(waiter.record, waiter.size, waiter.recipient);
    waiter.is_accepted = true;
    waiter.changed.notify_one();
  }
}

void ProducerCore::refuse_waiting(const Failure& failure) {
  for (auto* waiter : waiting_) {
    waiter->failure = failure;
    waiter->changed.notify_one();
  }
  waiting_.clear();
}

/// Ends the producer: everything that is not answered fails, in order, each request with its own outcome.
void ProducerCore::fail(const Failure& why) {
  {
    Lock lock(mutex_);
    if (failure_) return;
    failure_ = why;
    const auto sent = queue_.sent();
    const auto left = queue_.clear();
    for (std::size_t i = 0; i < left.size(); ++i) {
      auto& batch = *left[i];
      if (i < sent) batch.fate.add(Outcome::unknown);
      const auto outcome = batch.fate.outcome();
      if (outcome == Outcome::done) {
        batch.offset_lost = true;
      } else {
        batch.failure = why.with_outcome(outcome);
      }
    }
    refuse_waiting(why.with_outcome(Outcome::none));
    work_.notify_all();
    progress_.notify_all();
    answer(lock, {left.begin(), left.end()});
  }
  scope_.end(why);
}

/// Passes final results on. Releases the lock while futures become ready.
void ProducerCore::answer(Lock& lock, const std::vector<BatchPtr>& batches) {
  // What no thread for callbacks passes on.
  std::vector<BatchPtr> here;
  for (const auto& batch : batches) {
    batch->is_answered = true;
    const auto pass_on = [self = shared_from_this(), batch] {
      self->complete(*batch);
      Lock relock(self->mutex_);
      batch->is_done = true;
      self->progress_.notify_all();
      self->release(batch->cost);
      self->kick(relock);
    };
    if (uses_callbacks_ && completions_.execute(pass_on)) continue;
    release(batch->cost);
    here.push_back(batch);
  }
  if (!here.empty()) {
    lock.unlock();
    for (const auto& batch : here) complete(*batch);
    lock.lock();
    for (const auto& batch : here) batch->is_done = true;
  }
  progress_.notify_all();
}

void ProducerCore::complete(Batch& batch) {
  batch.complete([this](const std::string& thrown) {
    client_->log(LogLevel::warning, "a callback of a producer of log " + log_name(log_) + " has thrown: " + thrown);
  });
}

MaybeFailure ProducerCore::flush(Deadline deadline) {
  // A callback can't wait for itself.
  const bool is_callback = completions_.is_current_thread();
  Lock lock(mutex_);
  if (const auto last = last_) {
    const auto is_over = [&] { return is_callback ? last->is_answered : last->is_done; };
    if (!wait_until(progress_, lock, deadline, is_over)) {
      return timed_out(std::to_string(buffered_) + " bytes of records are not acknowledged", Outcome::none,
                       last_failure_);
    }
    // Requests are answered in order. If one has failed, so have those after it.
    if (last->failure) return last->failure;
  }
  return failure_ ? failure_->with_outcome(Outcome::none) : failure_;
}

void ProducerCore::shutdown() {
  Lock lock(mutex_);
  is_closing_ = true;
  refuse_waiting(closed_failure("the producer"));
}

MaybeFailure ProducerCore::close(Deadline deadline) {
  shutdown();
  const auto failure = flush(deadline);
  fail(closed_failure("the producer"));
  join();
  if (failure && !failure->closed) {
    // The callbacks of what has failed.
    flush(std::max(deadline.at(), Clock::now() + kCallbacksMin));
    return failure;
  }
  return std::nullopt;
}

void ProducerCore::join() {
  std::lock_guard lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

void ProducerCore::abandon() noexcept {
  bool was_dropped = false;
  {
    Lock lock(mutex_);
    was_dropped = !failure_ && !is_closing_;
    is_closing_ = true;
  }
  if (was_dropped) client_->log(LogLevel::warning, "a producer was dropped without close log=" + log_name(log_));
  fail(closed_failure("the producer"));
  join();
  with_client_ = {};
  completions_.stop();
}

// --- For the application ---

Producer::Producer(std::shared_ptr<ProducerCore> core) : core_(std::move(core)) {}

Producer::Producer(Producer&&) noexcept = default;

Producer& Producer::operator=(Producer&& other) noexcept {
  if (this != &other) {
    abandon();
    core_ = std::move(other.core_);
  }
  return *this;
}

Producer::~Producer() { abandon(); }

void Producer::abandon() noexcept {
  if (const auto core = std::move(core_)) core->abandon();
}

std::shared_ptr<ProducerCore> Producer::core() const {
  if (!core_) throw closed_failure("the producer").error();
  return core_;
}

Registration Producer::registration() const { return core()->registration(); }

std::future<Ack> Producer::send(Record record, Deadline deadline) {
  std::promise<Ack> promise;
  auto future = promise.get_future();
  core()->send(record, std::move(promise), deadline);
  return future;
}

void Producer::send(Record record, SendCallback callback, Deadline deadline) {
  core()->send(record, std::move(callback), deadline);
}

Ack Producer::append(Record record, Deadline deadline) {
  auto future = send(std::move(record), deadline);
  if (!deadline.is_never() && future.wait_until(deadline.at()) != std::future_status::ready) {
    throw timed_out("the record is not acknowledged yet", Outcome::unknown, std::nullopt).error();
  }
  return future.get();
}

void Producer::flush(Deadline deadline) {
  if (const auto failure = core()->flush(deadline)) throw failure->error();
}

void Producer::shutdown() { core()->shutdown(); }

void Producer::close(Deadline deadline) {
  if (const auto failure = core()->close(deadline)) throw failure->error();
}

}  // namespace seriatim
