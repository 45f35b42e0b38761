// The thread of a consumer that reads: it keeps a stream open, and reads ahead.

#include <algorithm>
#include <utility>

#include "consumer_core.h"
#include "events.h"

namespace seriatim {

namespace {

/// A consumer reads ahead at most this much.
constexpr std::size_t kReadAheadRecords = 10'000;
constexpr std::size_t kReadAheadBytes = 4 << 20;
/// What a record takes in memory in addition to its bytes, and a header.
constexpr std::size_t kRecordBytes = 128;
constexpr std::size_t kHeaderBytes = 96;

std::size_t memory_of(const v1::Record& record) {
  auto size = record.value().size() + record.key().size() + kRecordBytes;
  for (const auto& header : record.headers()) size += header.name().size() + header.value().size() + kHeaderBytes;
  return size;
}

}  // namespace

/// A call of ConsumeStream.
struct ConsumeStream : Stream {
  ConsumeStream(Scope& scope, ConnectionPtr to, const v1::ConsumeRequest& request)
      : Stream(scope),
        connection(std::move(to)),
        call(connection->stub->PrepareAsyncConsumeStream(&context, request, &events)) {}

  /// Returns the status of a stream that has ended.
  grpc::Status finish() {
    grpc::Status status;
    call->Finish(&status, tag(Event::finished));
    next();
    return status;
  }

  const ConnectionPtr connection;
  std::unique_ptr<grpc::ClientAsyncReader<v1::ConsumeResponse>> call;
};

void ConsumerCore::read() {
  try {
    auto route = Route::to_any(*client_);
    while (!scope_.has_ended()) {
      ConnectionPtr connection;
      auto failure = route.connect(scope_, silence_deadline(), connection);
      if (!failure) {
        const auto before = request_.offset();
        failure = stream(connection, route);
        if (request_.offset() != before) damaged_at_.clear();
      }
      if (scope_.has_ended()) return;
      if (is_silent()) return;
      {
        Lock lock(mutex_);
        last_failure_ = failure;
      }
      retry(route, connection, *failure);
    }
  } catch (const std::exception& thrown) {
    end(bug(std::string("the consumer has failed: ") + thrown.what(), Outcome::none));
  }
}

/// Prepares the next attempt, or ends the consumer.
void ConsumerCore::retry(Route& route, const ConnectionPtr& connection, const Failure& failure) {
  if (failure.kind == Kind::trimmed && options_.skip_trimmed && skip_trimmed(failure)) return;
  if (failure.kind == Kind::data_loss && connection && is_damaged_everywhere(connection->node)) {
    end(failure);
    return;
  }
  const auto pause = route.failed(connection, failure);
  if (!pause) {
    client_->log(LogLevel::debug,
                 "the consumer has failed log=" + log_name(log_) + " error=\"" + failure.text() + "\"");
    end(failure);
    return;
  }
  if (scope_.sleep_until(std::min(Clock::now() + *pause, silence_deadline().at()))) is_silent();
}

/// Continues at the first record that exists. Returns false if the failure does not say where that is.
bool ConsumerCore::skip_trimmed(const Failure& failure) {
  const auto first = failure.number("first_offset");
  if (!first || request_.start() != v1::START_OFFSET || *first <= request_.offset()) return false;
  skipped_ += *first - request_.offset();
  request_.set_offset(*first);
  return true;
}

bool ConsumerCore::is_damaged_everywhere(const NodePtr& at) {
  damaged_at_.insert(at);
  const auto nodes = client_->members.all();
  return std::all_of(nodes.begin(), nodes.end(), [this](const NodePtr& node) { return damaged_at_.count(node) > 0; });
}

/// Reads from a node until that fails.
MaybeFailure ConsumerCore::stream(const ConnectionPtr& connection, Route& route) {
  ConsumeStream stream(scope_, connection, request_);
  const auto limit = client_->options.attempt_timeout;
  stream.call->StartCall(tag(Event::opened));
  bool is_late = false;
  if (stream.opens(std::min(Clock::now() + limit, silence_deadline().at()), is_late)) return receive(stream, route);
  const auto status = stream.finish();
  return is_late ? no_answer("no connection to " + connection->node->addr, limit, Outcome::none)
                 : failure_of(status, false);
}

MaybeFailure ConsumerCore::receive(ConsumeStream& stream, Route& route) {
  // The first message is sent at once.
  Clock::duration limit = client_->options.attempt_timeout;
  MaybeFailure failure;
  for (int message = 0; !failure; message = 1) {
    v1::ConsumeResponse response;
    stream.call->Read(&response, tag(Event::read));
    bool ok = false;
    const bool is_late = stream.next(std::min(Clock::now() + limit, silence_deadline().at()), ok) == Event::timeout;
    if (is_late) {
      failure = no_answer("no message", limit, Outcome::none);
      stream.context.TryCancel();
      stream.next();
      break;
    }
    if (!ok) break;
    heard();
    if (message == 0)
      client_->log(LogLevel::debug, "consuming log=" + log_name(log_) + " node=" + stream.connection->node->addr);
    // A node sends the first message before it has read anything.
    if (message > 0 || !response.records().empty()) route.succeeded();
    failure = accept(std::move(response));
    if (!failure && !wait_for_room()) failure = closed_failure("the consumer");
    if (failure) stream.context.TryCancel();
    limit = 3 * options_.heartbeat;
  }
  const auto status = stream.finish();
  if (failure) return failure;
  if (status.ok()) return broken("the node has ended the stream", Outcome::none);
  failure = failure_of(status, true);
  // Nothing is done by reading.
  return failure->broken ? failure->with_outcome(Outcome::none) : failure;
}

/// Takes a message, and notes where to resume.
MaybeFailure ConsumerCore::accept(v1::ConsumeResponse response) {
  auto next = request_.offset();
  bool is_certain = is_contiguous_ || request_.start() == v1::START_OFFSET;
  std::size_t bytes = 0;
  for (const auto& record : response.records()) {
    if (is_certain && record.offset() != next) {
      return bug("offset " + std::to_string(record.offset()) + " was sent instead of " + std::to_string(next) +
                     " of log \"" + log_name(log_) + "\"",
                 Outcome::none);
    }
    next = record.offset() + 1;
    is_certain = true;
    bytes += memory_of(record);
  }
  const bool has_records = !response.records().empty();
  if (has_records) {
    is_contiguous_ = true;
    if (response.resume_offset() != next) {
      return bug("resume_offset is " + std::to_string(response.resume_offset()) + " before record " +
                     std::to_string(next) + " of log \"" + log_name(log_) + "\"",
                 Outcome::none);
    }
  }
  request_.set_start(v1::START_OFFSET);
  request_.set_offset(response.resume_offset());
  request_.clear_start_time_us();
  if (!request_.has_log_id()) request_.set_log_id(response.log_id());
  Lock lock(mutex_);
  if (failure_) return failure_;
  if (!has_records) {
    if (!has_position_ && chunks_.empty()) {
      taken_ = passed_ = response.resume_offset();
      has_position_ = true;
    }
    return std::nullopt;
  }
  records_ += static_cast<std::size_t>(response.records_size());
  bytes_ += bytes;
  chunks_.push_back({std::move(response), 0, std::exchange(skipped_, 0), bytes});
  ready_.notify_one();
  return std::nullopt;
}

/// Waits until the next message fits. Returns false if the consumer has ended. Meanwhile nothing is read from the
/// network, so silence means nothing.
bool ConsumerCore::wait_for_room() {
  const auto has_room = [this] {
    return records_ + request_.max_records() <= kReadAheadRecords && bytes_ + request_.max_bytes() <= kReadAheadBytes;
  };
  Lock lock(mutex_);
  if (!has_room()) {
    room_.wait(lock, [&] { return has_room() || failure_; });
    heard_ = Clock::now();
  }
  return !failure_;
}

void ConsumerCore::heard() {
  Lock lock(mutex_);
  heard_ = Clock::now();
  last_failure_.reset();
}

/// Returns when the consumer has waited too long for a message.
Deadline ConsumerCore::silence_deadline() {
  if (options_.max_silence == Milliseconds::zero()) return Deadline::never();
  Lock lock(mutex_);
  return heard_ + options_.max_silence;
}

/// Ends the consumer if it has waited too long for a message. Returns whether it has.
bool ConsumerCore::is_silent() {
  if (!silence_deadline().has_passed()) return false;
  MaybeFailure last;
  {
    Lock lock(mutex_);
    last = last_failure_;
  }
  end(last ? *last : no_answer("no message", options_.max_silence, Outcome::none));
  return true;
}

}  // namespace seriatim
