// The thread of a producer that delivers: it opens streams, takes their answers, and decides what follows a failure.

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "events.h"
#include "producer_core.h"

namespace seriatim {

namespace {

/// Bounds how often the thread lets others run before it sends what they have added.
constexpr int kGatherRounds = 16;

grpc::Slice slice_of(std::shared_ptr<std::string> bytes) {
  void* data = bytes->data();
  const auto size = bytes->size();
  auto* owner = new std::shared_ptr<std::string>(std::move(bytes));
  SERIATIM_TSAN_RELEASE(owner);
  const auto release = [](void* owned) {
    SERIATIM_TSAN_ACQUIRE(owned);
    delete static_cast<std::shared_ptr<std::string>*>(owned);
  };
  return {data, size, release, owner};
}

/// Requests are encoded already, and are not copied.
grpc::ByteBuffer encode(const Batch& batch, const Identity& identity) {
  const grpc::Slice slices[] = {slice_of(batch.body), grpc::Slice(encode_trailer(identity, batch.sequence))};
  return {slices, 2};
}

}  // namespace

/// A call of ProduceStream. One thread takes its events; the others write while they hold `is_writing`.
struct ProduceStream : Stream {
  ProduceStream(Scope& scope, ConnectionPtr to)
      : Stream(scope),
        connection(std::move(to)),
        stub(connection->channel),
        call(stub.PrepareCall(&context, "/seriatim.v1.LogService/ProduceStream", &events)) {}

  /// Returns the status of a stream that has ended, and that nobody uses any more. A request that is being written ends
  /// first.
  grpc::Status finish() {
    if (is_writing) next();
    grpc::Status status;
    call->Finish(&status, tag(Event::finished));
    next();
    return status;
  }

  const ConnectionPtr connection;
  grpc::TemplatedGenericStub<grpc::ByteBuffer, v1::ProduceResponse> stub;
  std::unique_ptr<grpc::ClientAsyncReaderWriter<grpc::ByteBuffer, v1::ProduceResponse>> call;

  // Guarded by the lock of the producer.
  bool is_writing = false;
  // The thread that takes the answers sends what others add.
  bool is_gathering = false;
  std::size_t answered = 0;
  // Since when the first unanswered request is the first.
  Clock::time_point waiting_since;
  // It was cancelled because no answer came.
  bool is_silent = false;
};

/// Registers the producer with the cluster, and asks for the limits of the log.
MaybeFailure ProducerCore::register_with(Scope& scope, Deadline deadline, v1::Producer& registered) {
  v1::InitProducerRequest request;
  request.set_log(log_);
  request.set_producer(options_.name);
  request.set_instance(random_instance());
  request.set_owner(options_.owner);
  // If it registers again, never in another log of the same name.
  if (!queue_.identity.log_id.empty()) request.set_log_id(queue_.identity.log_id);
  v1::InitProducerResponse answer;
  const Method<v1::InitProducerRequest, v1::InitProducerResponse> method = &v1::LogService::Stub::InitProducer;
  auto failure = call(*client_, scope, deadline, route_, Effect::changes, method, request, answer);
  if (failure) return failure;
  registered = answer.producer();
  v1::LogConfig config;
  if ((failure = limits(scope, deadline, route_, registered.log_id(), config))) return failure;
  Lock lock(mutex_);
  set_limits(config);
  queue_.identity = {log_, registered.log_id(), registered.producer_id(), registered.epoch()};
  queue_.renumber(registered.last_sequence() + 1);
  return std::nullopt;
}

/// Asks for the maximum sizes of a record and of a request.
MaybeFailure ProducerCore::limits(Scope& scope, Deadline deadline, Route& route, const std::string& log_id,
                                  v1::LogConfig& config) {
  v1::GetLogRequest request;
  request.set_log(log_);
  request.set_log_id(log_id);
  v1::GetLogResponse answer;
  const Method<v1::GetLogRequest, v1::GetLogResponse> method = &v1::LogService::Stub::GetLog;
  auto failure = call(*client_, scope, deadline, route, Effect::reads, method, request, answer);
  if (!failure) config = answer.log().config();
  return failure;
}

void ProducerCore::set_limits(const v1::LogConfig& config) {
  max_record_bytes_ = config.max_record_bytes();
  queue_.set_max_bytes(std::min<std::size_t>(options_.batch_bytes, config.max_request_bytes()));
}

void ProducerCore::deliver() {
  try {
    while (await_work()) {
      ConnectionPtr connection;
      std::shared_ptr<ProduceStream> stream;
      auto failure = route_.connect(scope_, delivery_deadline(), connection);
      if (!failure) failure = open(connection, stream);
      if (!failure) failure = receive(*stream);
      if (!recover(stream.get(), connection, *failure)) return;
    }
  } catch (const std::exception& thrown) {
    fail(bug(std::string("the producer has failed: ") + thrown.what(), Outcome::none));
  }
}

/// Waits for records to deliver. Returns false if the producer has ended.
bool ProducerCore::await_work() {
  Lock lock(mutex_);
  work_.wait(lock, [this] { return failure_ || !queue_.empty(); });
  return !failure_;
}

Deadline ProducerCore::delivery_deadline() {
  Lock lock(mutex_);
  if (queue_.empty()) return Deadline::never();
  return queue_.batches().front()->since + options_.delivery_timeout;
}

MaybeFailure ProducerCore::open(const ConnectionPtr& connection, std::shared_ptr<ProduceStream>& stream) {
  auto opened = std::make_shared<ProduceStream>(scope_, connection);
  const auto limit = client_->options.attempt_timeout;
  const auto until = std::min(Clock::now() + limit, delivery_deadline().at());
  opened->call->StartCall(tag(Event::opened));
  bool is_late = false;
  if (!opened->opens(until, is_late)) {
    const auto status = opened->finish();
    // No request was sent.
    return is_late ? no_answer("no connection to " + connection->node->addr, limit, Outcome::none)
                   : failure_of(status, false);
  }
  client_->log(LogLevel::debug, "producing log=" + log_name(log_) + " node=" + connection->node->addr);
  stream = std::move(opened);
  Lock lock(mutex_);
  if (!failure_) stream_ = stream;
  pump(lock);
  return std::nullopt;
}

/// Sends the next request, if it may be sent, and nobody else does.
void ProducerCore::pump(Lock& lock) {
  const auto stream = stream_;
  if (!stream || stream->is_writing || stream->is_gathering || queue_.peek() == nullptr) return;
  if (queue_.sent() == 0) stream->waiting_since = Clock::now();
  const auto request = encode(queue_.send(), queue_.identity);
  stream->is_writing = true;
  lock.unlock();
  SERIATIM_TSAN_RELEASE(&stream->events);
  // It returns at once: the event comes when the network has taken the request.
  stream->call->Write(request, tag(Event::written));
  lock.lock();
}

/// Takes answers until the stream fails.
MaybeFailure ProducerCore::receive(ProduceStream& stream) {
  v1::ProduceResponse answer;
  stream.call->Read(&answer, tag(Event::read));
  MaybeFailure failure;
  while (!failure) {
    bool ok = false;
    const auto event = stream.next(next_check(stream), ok);
    if (event == Event::timeout) {
      check(stream);
    } else if (event == Event::written) {
      Lock lock(mutex_);
      stream.is_writing = false;
      // If it has failed, the stream has ended, and the read returns why.
      if (ok) pump(lock);
    } else if (!ok) {
      break;
    } else if (!(failure = take(stream, answer))) {
      stream.call->Read(&answer, tag(Event::read));
    }
  }
  {
    // From now on, nobody begins to write.
    Lock lock(mutex_);
    stream_ = nullptr;
  }
  if (failure) stream.context.TryCancel();
  const auto status = stream.finish();
  if (failure) return failure;
  if (stream.is_silent) return no_answer("no answer to a request", client_->options.attempt_timeout, Outcome::unknown);
  // Only this side ends streams.
  if (status.ok()) return broken("the node has ended the stream", Outcome::unknown);
  return failure_of(status, true);
}

/// Assigns an answer to the first request.
MaybeFailure ProducerCore::take(ProduceStream& stream, const v1::ProduceResponse& answered) {
  Lock lock(mutex_);
  if (failure_) return failure_;
  if (queue_.sent() == 0 || answered.count() != queue_.batches().front()->count) {
    const auto count = std::to_string(answered.count());
    return bug("an answer for " + count + " records does not belong to any request", Outcome::unknown);
  }
  const auto batch = queue_.pop();
  batch->offset = answered.offset();
  batch->append_time = timestamp_of(answered.append_time_us());
  batch->is_duplicate = answered.duplicate();
  ++stream.answered;
  stream.waiting_since = Clock::now();
  last_failure_.reset();
  route_.succeeded();
  stream.is_gathering = true;
  answer(lock, {batch});
  if (batch->count > 1) {
    lock.unlock();
    gather();
    lock.lock();
  }
  stream.is_gathering = false;
  pump(lock);
  return std::nullopt;
}

/// Lets the callers run that an answer has woken, as long as they send more. Otherwise the first of them would get a
/// request of its own, and the others would wait for the answer to that.
void ProducerCore::gather() {
  std::size_t before = 0;
  for (int round = 0; round < kGatherRounds; ++round) {
    std::size_t now = 0;
    {
      Lock lock(mutex_);
      if (!queue_.empty()) now = queue_.batches().back()->count + queue_.batches().size() * options_.batch_records;
    }
    if (round > 0 && now == before) return;
    before = now;
    std::this_thread::yield();
  }
}

/// Returns when `check` has something to do, at the latest.
Clock::time_point ProducerCore::next_check(const ProduceStream& stream) {
  const auto attempt = Clock::duration(client_->options.attempt_timeout);
  Lock lock(mutex_);
  // What is sent from now on has a later time.
  auto at = Clock::now() + std::min<Clock::duration>(attempt, options_.delivery_timeout);
  if (!queue_.empty()) at = std::min(at, queue_.batches().front()->since + options_.delivery_timeout);
  if (queue_.sent() > 0 && !stream.is_silent) at = std::min(at, stream.waiting_since + attempt);
  return at;
}

/// Enforces the delivery timeout, and ends a stream that does not answer.
void ProducerCore::check(ProduceStream& stream) {
  if (check_delivery()) return;
  Lock lock(mutex_);
  if (queue_.sent() == 0 || Clock::now() < stream.waiting_since + client_->options.attempt_timeout) return;
  stream.is_silent = true;
  lock.unlock();
  stream.context.TryCancel();
}

/// Fails the producer if a record was not acknowledged in its time. Returns whether the producer has failed.
bool ProducerCore::check_delivery() {
  MaybeFailure late;
  {
    Lock lock(mutex_);
    if (failure_) return true;
    if (queue_.empty() || Clock::now() < queue_.batches().front()->since + options_.delivery_timeout) return false;
    const auto what = "a record was not acknowledged within " + text_of(options_.delivery_timeout);
    late = timed_out(what, Outcome::none, last_failure_);
  }
  fail(*late);
  return true;
}

/// Waits between attempts. Returns false if the producer has failed.
bool ProducerCore::pause(Clock::duration duration) {
  if (!scope_.sleep_until(std::min(Clock::now() + duration, delivery_deadline().at()))) return false;
  return !check_delivery();
}

/// Decides what follows the failure of an attempt. Returns false if the producer has ended.
bool ProducerCore::recover(ProduceStream* stream, const ConnectionPtr& connection, Failure failure) {
  std::size_t failed_at = 0;
  bool is_new = false;
  bool was_sent = false;
  bool is_idle = false;
  {
    Lock lock(mutex_);
    if (failure_) return false;
    last_failure_ = failure;
    is_new = !queue_.may_have_been_done();
    was_sent = queue_.sent() > 0;
    failed_at = queue_.failed(failure, stream == nullptr ? 0 : stream->answered);
    is_idle = queue_.empty();
  }
  if (is_idle) {
    // No record has failed. The next one opens a stream.
    route_.failed(connection, failure);
    return true;
  }
  return !check_delivery() && decide(connection, std::move(failure), failed_at, was_sent, is_new);
}

bool ProducerCore::decide(const ConnectionPtr& connection, Failure failure, std::size_t failed_at, bool was_sent,
                          bool is_new) {
  if (failed_at > 0) {
    // Requests before the failed one are answered when they are sent again, and it fails again.
    failure = broken("answers are missing before: " + failure.message, Outcome::unknown);
  } else if (was_sent && failure.outcome == Outcome::done && failure.retry == Retry::no) {
    complete_first();
    return true;
  } else if (was_sent && failure.reason == "PRODUCER_UNKNOWN" && options_.name.empty() && is_new) {
    Lock lock(mutex_);
    if (!queue_.may_have_been_done_after_first()) {
      lock.unlock();
      return pause(route_.pauses().next_but_first()) && begin_again();
    }
  } else if (was_sent && failure.kind == Kind::too_large && failure.outcome == Outcome::none && is_new) {
    MaybeFailure other;
    if (remove_too_large(failure, other)) return true;
    if (check_delivery()) return false;
    if (other) failure = *other;
  }
  const auto duration = route_.failed(connection, failure);
  if (!duration) {
    client_->log(LogLevel::debug,
                 "the producer has failed log=" + log_name(log_) + " error=\"" + failure.text() + "\"");
    fail(failure);
    return false;
  }
  return pause(*duration);
}

/// Notes that the first request was appended, although its answer can't be had.
void ProducerCore::complete_first() {
  Lock lock(mutex_);
  if (failure_) return;
  const auto batch = queue_.pop();
  batch->offset_lost = true;
  answer(lock, {batch});
}

/// Registers the producer under a new id, with the requests that are not answered.
bool ProducerCore::begin_again() {
  {
    Lock lock(mutex_);
    queue_.forget_attempts();
  }
  v1::Producer registered;
  const auto failure = register_with(scope_, delivery_deadline(), registered);
  if (failure && !check_delivery()) fail(*failure);
  return !failure;
}

/// Asks for the limits of the log, and fails the records that exceed them. Returns whether there were any.
bool ProducerCore::remove_too_large(const Failure& refused, MaybeFailure& failure) {
  std::string log_id;
  {
    Lock lock(mutex_);
    log_id = queue_.identity.log_id;
  }
  v1::LogConfig config;
  if ((failure = limits(scope_, delivery_deadline(), route_, log_id, config))) return false;
  Lock lock(mutex_);
  if ((failure = failure_)) return false;
  set_limits(config);
  const auto refuse = [&](std::size_t size) {
    if (size <= max_record_bytes_) return refused;
    auto copy = refused;
    copy.reason = "RECORD_TOO_LARGE";
    copy.message = "record of " + std::to_string(size) + " bytes exceeds max_record_bytes (" +
                   std::to_string(max_record_bytes_) + ") of log \"" + log_name(log_) + "\"";
    copy.metadata = {
        {"log", log_name(log_)}, {"limit", "max_record_bytes"}, {"max", std::to_string(max_record_bytes_)}};
    return copy;
  };
  auto removed = queue_.remove(max_record_bytes_, refused.number("position"), refuse);
  release(removed.cost);
  answer(lock, removed.empty);
  return removed.any;
}

}  // namespace seriatim
