// The cursor of a consumer.

#include <algorithm>

#include "consumer_core.h"

namespace seriatim {

/// Takes the cursor over, and begins at its position.
MaybeFailure ConsumerCore::acquire(Deadline deadline) {
  v1::AcquireCursorRequest request;
  request.set_log(log_);
  request.set_cursor(options_.cursor);
  request.set_instance(random_instance());
  request.set_owner(options_.owner);
  request.set_start(request_.start());
  request.set_offset(request_.offset());
  request.set_start_time_us(request_.start_time_us());
  v1::AcquireCursorResponse answer;
  auto route = Route::to_any(*client_);
  const Method<v1::AcquireCursorRequest, v1::AcquireCursorResponse> method = &v1::LogService::Stub::AcquireCursor;
  auto failure = call(*client_, client_->scope, deadline, route, Effect::changes, method, request, answer);
  if (failure) return failure;
  const auto& cursor = answer.cursor();
  request_.set_start(v1::START_OFFSET);
  request_.set_offset(cursor.next_offset());
  request_.clear_start_time_us();
  request_.set_log_id(cursor.log_id());
  request_.set_cursor(cursor.cursor());
  request_.set_cursor_epoch(cursor.epoch());
  log_id_ = cursor.log_id();
  epoch_ = cursor.epoch();
  taken_ = passed_ = committed_ = cursor.next_offset();
  has_position_ = true;
  return std::nullopt;
}

MaybeFailure ConsumerCore::commit(Deadline deadline, std::uint64_t& position) {
  if (options_.cursor.empty()) return invalid("the consumer has no cursor");
  {
    Lock lock(mutex_);
    if (failure_ && (failure_->closed || failure_->kind == Kind::fenced)) return failure_;
  }
  return commit(client_->scope, deadline, taken_, position);
}

/// Stores a position, which is read once no other commit is in flight.
MaybeFailure ConsumerCore::commit(Scope& scope, Deadline deadline, const std::uint64_t& position,
                                  std::uint64_t& committed) {
  v1::CommitCursorRequest request;
  request.set_log(log_);
  request.set_log_id(log_id_);
  request.set_cursor(options_.cursor);
  request.set_epoch(epoch_);
  {
    Lock lock(mutex_);
    if (!wait_until(committed_one_, lock, deadline, [this] { return !is_committing_; })) {
      return timed_out("another commit is in flight", Outcome::none, std::nullopt);
    }
    is_committing_ = true;
    // A commit never moves the cursor back below one that was made.
    request.set_next_offset(std::max(position, committed_));
  }
  v1::CommitCursorResponse answer;
  auto route = Route::to_any(*client_);
  const Method<v1::CommitCursorRequest, v1::CommitCursorResponse> method = &v1::LogService::Stub::CommitCursor;
  auto failure = call(*client_, scope, deadline, route, Effect::changes, method, request, answer);
  if (failure && failure->outcome == Outcome::done) failure.reset();
  {
    Lock lock(mutex_);
    is_committing_ = false;
    if (!failure) committed_ = committed = request.next_offset();
    committed_one_.notify_one();
  }
  if (failure && failure->kind == Kind::fenced) end(*failure);
  return failure;
}

bool ConsumerCore::must_commit() {
  Lock lock(mutex_);
  return passed_ > committed_;
}

/// Commits after each interval, if the position has changed.
void ConsumerCore::commit_regularly() {
  while (scope_.sleep_until(Clock::now() + options_.auto_commit)) {
    if (!must_commit()) continue;
    std::uint64_t committed = 0;
    const auto failure = commit(scope_, Deadline::never(), passed_, committed);
    if (failure && !scope_.has_ended()) {
      client_->log(LogLevel::debug, "commit failed log=" + log_name(log_) + " cursor=" + options_.cursor + " error=\"" +
                                        failure->text() + "\"");
    }
  }
}

}  // namespace seriatim
