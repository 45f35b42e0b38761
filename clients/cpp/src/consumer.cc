#include "seriatim/consumer.h"

#include <utility>

#include "consumer_core.h"
#include "encode.h"

namespace seriatim {

namespace {

/// What one response contains at most, unless a single record is larger.
constexpr std::uint32_t kResponseRecords = 1000;
constexpr std::uint32_t kResponseBytes = 1 << 20;

ConsumerOptions checked(ConsumerOptions options) {
  constexpr auto zero = Milliseconds::zero();
  if (options.auto_commit != zero) check_positive("auto_commit", options.auto_commit);
  if (options.max_silence != zero) check_positive("max_silence", options.max_silence);
  if (options.auto_commit != zero && options.cursor.empty()) throw invalid("auto_commit needs a cursor").error();
  if (options.heartbeat < std::chrono::seconds(1) || options.heartbeat > std::chrono::hours(24)) {
    throw invalid("heartbeat is " + std::to_string(options.heartbeat.count()) + " ms: choose 1 second to 1 day")
        .error();
  }
  if (options.owner.empty()) options.owner = default_owner();
  return options;
}

}  // namespace

ConsumerCore::ConsumerCore(std::shared_ptr<ClientCore> client, std::string log, ConsumerOptions options)
    : client_(std::move(client)), options_(checked(std::move(options))), log_(std::move(log)) {
  request_.set_log(log_);
  request_.set_heartbeat_ms(static_cast<std::uint32_t>(options_.heartbeat.count()));
  request_.set_max_records(kResponseRecords);
  request_.set_max_bytes(kResponseBytes);
  switch (options_.start.where_) {
    case Start::Where::earliest:
      request_.set_start(v1::START_EARLIEST);
      break;
    case Start::Where::latest:
      request_.set_start(v1::START_LATEST);
      break;
    case Start::Where::offset:
      request_.set_start(v1::START_OFFSET);
      request_.set_offset(options_.start.number_);
      break;
    case Start::Where::time:
      request_.set_start(v1::START_TIME);
      request_.set_start_time_us(options_.start.number_);
      break;
    case Start::Where::last:
      request_.set_start(v1::START_LAST);
      request_.set_offset(options_.start.number_);
      break;
  }
}

std::shared_ptr<ConsumerCore> ConsumerCore::start(std::shared_ptr<ClientCore> client, std::string log,
                                                  ConsumerOptions options, Deadline deadline) {
  std::shared_ptr<ConsumerCore> core(new ConsumerCore(std::move(client), std::move(log), std::move(options)));
  if (auto ended = core->client_->scope.failure()) throw ended->error();
  if (!core->options_.cursor.empty()) {
    if (auto failure = core->acquire(deadline)) throw failure->error();
  }
  core->heard_ = Clock::now();
  core->with_client_ = core->client_->scope.on_end([core = core.get()] { core->end(*core->client_->scope.failure()); });
  core->reader_ = std::thread([core = core.get()] { core->read(); });
  if (core->options_.auto_commit != Milliseconds::zero()) {
    try {
      core->committer_ = std::thread([core = core.get()] { core->commit_regularly(); });
    } catch (...) {
      core->abandon();
      throw;
    }
  }
  return core;
}

std::optional<ConsumedRecord> ConsumerCore::next(Deadline deadline) {
  Lock lock(mutex_);
  passed_ = taken_;
  wait_until(ready_, lock, deadline, [this] { return !chunks_.empty() || failure_; });
  // What was read before a failure is returned, unless the application has closed the consumer.
  if (failure_ && (failure_->closed || chunks_.empty())) throw failure_->error();
  if (chunks_.empty()) return std::nullopt;
  return take();
}

ConsumedRecord ConsumerCore::take() {
  auto& first = chunks_.front();
  auto& from = *first.response.mutable_records(first.taken++);
  ConsumedRecord record;
  record.value = std::move(*from.mutable_value());
  if (from.has_key()) record.key = std::move(*from.mutable_key());
  record.headers.reserve(static_cast<std::size_t>(from.headers_size()));
  for (auto& header : *from.mutable_headers()) {
    record.headers.push_back({std::move(*header.mutable_name()), std::move(*header.mutable_value())});
  }
  record.type = from.type();
  if (from.has_client_time_us()) record.event_time = timestamp_of(from.client_time_us());
  record.offset = from.offset();
  record.append_time = timestamp_of(from.append_time_us());
  record.term = from.term();
  record.skipped = std::exchange(first.skipped, 0);
  taken_ = record.offset + 1;
  has_position_ = true;
  --records_;
  if (first.taken == first.response.records_size()) {
    bytes_ -= first.bytes;
    chunks_.pop_front();
    room_.notify_one();
  }
  return record;
}

std::optional<std::uint64_t> ConsumerCore::position() {
  Lock lock(mutex_);
  return has_position_ ? std::optional(taken_) : std::nullopt;
}

/// Makes all later calls fail.
void ConsumerCore::end(const Failure& why) {
  {
    Lock lock(mutex_);
    if (failure_) return;
    failure_ = why;
    ready_.notify_all();
    room_.notify_all();
  }
  scope_.end(why);
}

void ConsumerCore::join() {
  if (reader_.joinable()) reader_.join();
  if (committer_.joinable()) committer_.join();
}

MaybeFailure ConsumerCore::close(Deadline deadline) {
  std::lock_guard lock(close_mutex_);
  if (std::exchange(is_closed_, true)) return std::nullopt;
  end(closed_failure("the consumer"));
  join();
  if (options_.auto_commit == Milliseconds::zero() || !must_commit()) return std::nullopt;
  {
    Lock state(mutex_);
    // One that was fenced, for example, can't commit.
    if (!failure_->closed) return std::nullopt;
  }
  std::uint64_t committed = 0;
  return commit(client_->scope, deadline, passed_, committed);
}

void ConsumerCore::abandon() noexcept {
  end(closed_failure("the consumer"));
  {
    std::lock_guard lock(close_mutex_);
    join();
  }
  with_client_ = {};
}

// --- For the application ---

Consumer::Consumer(std::shared_ptr<ConsumerCore> core) : core_(std::move(core)) {}

Consumer::Consumer(Consumer&&) noexcept = default;

Consumer& Consumer::operator=(Consumer&& other) noexcept {
  if (this != &other) {
    abandon();
    core_ = std::move(other.core_);
  }
  return *this;
}

Consumer::~Consumer() { abandon(); }

void Consumer::abandon() noexcept {
  if (const auto core = std::move(core_)) core->abandon();
}

std::shared_ptr<ConsumerCore> Consumer::core() const {
  if (!core_) throw closed_failure("the consumer").error();
  return core_;
}

std::optional<ConsumedRecord> Consumer::next(Deadline deadline) { return core()->next(deadline); }

ConsumedRecord Consumer::next() { return *core()->next(Deadline::never()); }

Consumer::Iterator Consumer::begin() { return Iterator(core()); }

Consumer::Iterator Consumer::end() noexcept { return {}; }

void Consumer::Iterator::take() {
  record_ = nullptr;
  try {
    record_ = std::make_shared<ConsumedRecord>(*core_->next(Deadline::never()));
  } catch (const Error& error) {
    if (error.kind() != Kind::closed) throw;
  }
}

std::optional<std::uint64_t> Consumer::position() const { return core()->position(); }

std::uint64_t Consumer::commit(Deadline deadline) {
  std::uint64_t position = 0;
  if (const auto failure = core()->commit(deadline, position)) throw failure->error();
  return position;
}

void Consumer::close(Deadline deadline) {
  if (const auto failure = core()->close(deadline)) throw failure->error();
}

}  // namespace seriatim
