#include "call.h"

#include <algorithm>
#include <random>
#include <utility>

#include "events.h"

namespace seriatim {

Clock::duration Pauses::next() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  const auto base = std::max(base_, first_);
  base_ = std::min(2 * base, longest_);
  return std::chrono::duration_cast<Clock::duration>(base * std::uniform_real_distribution<>(0.5, 1.5)(random));
}

Clock::duration Pauses::next_but_first() {
  const bool is_first = base_ == base_.zero();
  const auto pause = next();
  return is_first ? Clock::duration::zero() : pause;
}

Route::Route(ClientCore& client, std::string log)
    : client_(client), log_(std::move(log)), pauses_(client.options.backoff_min, client.options.backoff_max) {}

Route Route::to_leader(ClientCore& client, const std::string& log) {
  // GetServers needs the name of a log to say which node leads it.
  return Route(client, log_name(log));
}

MaybeFailure Route::connect(Scope& scope, Deadline deadline, ConnectionPtr& connection) {
  if (!now_) now_ = client_.members.first();
  while (true) {
    turn_to_leader();
    connection = client_.connect(now_);
    if (!connection) return closed_failure("the client");
    if (!connection->is_checked || (!log_.empty() && leader_.empty())) {
      if (auto failure = ask(scope, deadline, connection)) return failure;
    }
    if (!turn_to_leader()) return std::nullopt;
  }
}

/// Chooses the leader, if it is known, and has not failed just now. Returns whether it has changed the node.
bool Route::turn_to_leader() {
  if (leader_.empty() || leader_ == now_->addr) return false;
  NodePtr leader = client_.members.at(leader_);
  if (tried_.count(leader) > 0) return false;
  now_ = std::move(leader);
  return true;
}

MaybeFailure Route::ask(Scope& scope, Deadline deadline, const ConnectionPtr& connection) {
  v1::GetServersRequest request;
  request.set_log(log_);
  v1::GetServersResponse answer;
  const Method<v1::GetServersRequest, v1::GetServersResponse> method = &v1::LogService::Stub::GetServers;
  if (auto failure = attempt(client_, scope, deadline, *connection, Effect::reads, method, request, answer)) {
    return failure->with_outcome(Outcome::none);
  }
  std::string leader;
  if (auto failure = client_.learn(connection, answer, leader)) return failure;
  if (!log_.empty()) leader_ = std::move(leader);
  return std::nullopt;
}

void Route::succeeded() {
  pauses_.reset();
  tried_.clear();
  if (log_.empty()) client_.members.answered_by(now_);
}

std::optional<Clock::duration> Route::failed(const ConnectionPtr& connection, const Failure& failure) {
  if (failure.broken && connection) client_.lost(connection, failure);
  if (!now_) return std::nullopt;
  const NodePtr failed = now_;
  if (leader_ == failed->addr) leader_.clear();
  const auto hint = failure.metadata.find("leader");
  if (!log_.empty() && hint != failure.metadata.end() && !hint->second.empty() && hint->second != failed->addr) {
    leader_ = hint->second;
  }
  Clock::duration pause{0};
  if (failure.broken || failure.retry == Retry::elsewhere) {
    tried_.insert(failed);
    now_ = client_.members.after(failed, tried_);
    if (!now_) {
      tried_.clear();
      now_ = client_.members.after(failed, {});
      pause = pauses_.next();
      // If it is the only node, it may answer after that time.
      if (now_ == failed) pause = std::max(pause, failure.retry_after);
    }
  } else if (failure.retry == Retry::same || failure.retry == Retry::later) {
    pause = std::max(pauses_.next(), failure.retry_after);
  } else {
    return std::nullopt;
  }
  client_.log(LogLevel::debug,
              "retrying node=" + now_->addr + " pause=\"" + text_of(pause) + "\" error=\"" + failure.text() + "\"");
  return pause;
}

void set_deadline(grpc::ClientContext& context, Clock::time_point at) { context.set_deadline(grpc_time(at)); }

MaybeFailure failure_of_attempt(const ClientCore& client, const Connection& connection,
                                const grpc::ClientContext& context, const grpc::Status& status, Effect effect,
                                bool has_ended) {
  if (status.ok()) return std::nullopt;
  auto failure = failure_of(status, connection.was_sent(context));
  if (failure.answered) return failure;
  if (!has_ended && status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    failure = no_answer("no answer from " + connection.node->addr, client.options.attempt_timeout, failure.outcome);
  }
  if (effect == Effect::reads && (failure.broken || has_ended)) return failure.with_outcome(Outcome::none);
  return failure;
}

Attempts::Attempts(const ClientCore& client, Scope& scope, Deadline deadline)
    : client_(client),
      scope_(scope),
      given_(deadline),
      deadline_(std::min(deadline.at(), Clock::now() + client.options.operation_timeout)) {}

MaybeFailure Attempts::next(Route& route, const ConnectionPtr& connection, const Failure& failure) {
  if (auto ended = scope_.failure()) return ended->with_outcome(fate_.outcome());
  if (!deadline_.has_passed()) {
    last_ = failure.with_outcome(fate_.outcome());
    const auto pause = route.failed(connection, *last_);
    if (!pause) return last_;
    if (!scope_.sleep_until(std::min(Clock::now() + *pause, deadline_.at())))
      return scope_.failure()->with_outcome(fate_.outcome());
    if (!deadline_.has_passed()) return std::nullopt;
  }
  std::string what = "the deadline has passed";
  if (!given_.has_passed()) what = "not done within " + text_of(client_.options.operation_timeout);
  return timed_out(what, fate_.outcome(), last_);
}

}  // namespace seriatim
