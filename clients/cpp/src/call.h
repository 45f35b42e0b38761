// The choice of the node for each attempt, pauses, and calls with one answer.
#pragma once

#include <grpcpp/client_context.h>

#include <memory>
#include <set>
#include <string>

#include "client_core.h"

namespace seriatim {

/// Pauses that double, with a random part.
class Pauses {
 public:
  Pauses(Clock::duration first, Clock::duration longest) : first_(first), longest_(longest) {}

  Clock::duration next();
  /// The same, without a pause before the first attempt after a success.
  Clock::duration next_but_first();
  void reset() { base_ = Clock::duration::zero(); }

 private:
  const Clock::duration first_;
  const Clock::duration longest_;
  // The next one without its random part. 0: first_.
  Clock::duration base_{0};
};

/// Chooses the node of each attempt. It belongs to one call or stream, and is used by one thread at a time.
class Route {
 public:
  /// With the name of a log, its leader is preferred.
  static Route to_leader(ClientCore& client, const std::string& log);
  static Route to_any(ClientCore& client) { return Route(client, ""); }

  /// Returns a connection to the node of the next attempt, which belongs to the cluster. With a failure, `connection`
  /// may be set.
  MaybeFailure connect(Scope& scope, Deadline deadline, ConnectionPtr& connection);

  /// Asks a node for the members and the leader.
  MaybeFailure ask(Scope& scope, Deadline deadline, const ConnectionPtr& connection);

  /// Notes an answer. The pauses begin anew.
  void succeeded();

  /// Chooses the node of the next attempt after a failure. Returns the pause before it, or nothing if there must not be
  /// one.
  std::optional<Clock::duration> failed(const ConnectionPtr& connection, const Failure& failure);

  Pauses& pauses() { return pauses_; }

 private:
  Route(ClientCore& client, std::string log);

  bool turn_to_leader();

  ClientCore& client_;
  // The log whose leader is preferred. Empty: none.
  const std::string log_;
  // The node of the next attempt. Null: the client's.
  NodePtr now_;
  // The address of the leader. Empty: unknown.
  std::string leader_;
  // The nodes that have failed since the last success or pause.
  std::set<NodePtr> tried_;
  Pauses pauses_;
};

template <class Request, class Response>
using Method = grpc::Status (v1::LogService::Stub::*)(grpc::ClientContext*, const Request&, Response*);

/// Whether the server does nothing but read, so that a lost answer leaves nothing unknown.
enum class Effect { reads, changes };

/// Sets the deadline, which does not depend on the time of day.
void set_deadline(grpc::ClientContext& context, Clock::time_point at);

/// What `attempt` makes of a status.
MaybeFailure failure_of_attempt(const ClientCore& client, const Connection& connection,
                                const grpc::ClientContext& context, const grpc::Status& status, Effect effect,
                                bool has_ended);

/// Sends a request once.
template <class Request, class Response>
MaybeFailure attempt(const ClientCore& client, Scope& scope, Deadline deadline, const Connection& connection,
                     Effect effect, Method<Request, Response> method, const Request& request, Response& response) {
  grpc::ClientContext context;
  set_deadline(context, std::min(Clock::now() + client.options.attempt_timeout, deadline.at()));
  grpc::Status status;
  {
    const auto registration = scope.on_end([&context] { context.TryCancel(); });
    status = (connection.stub.get()->*method)(&context, request, &response);
  }
  return failure_of_attempt(client, connection, context, status, effect, scope.has_ended() || deadline.has_passed());
}

/// The attempts of a call that can always be sent again.
class Attempts {
 public:
  Attempts(const ClientCore& client, Scope& scope, Deadline deadline);

  Deadline deadline() const { return deadline_; }
  void add(Outcome outcome) { fate_.add(outcome); }

  /// Decides what follows a failed attempt: null, after a pause, if there is another one. Otherwise the failure of the
  /// call.
  MaybeFailure next(Route& route, const ConnectionPtr& connection, const Failure& failure);

 private:
  const ClientCore& client_;
  Scope& scope_;
  const Deadline given_;
  Deadline deadline_;
  Fate fate_;
  MaybeFailure last_;
};

/// Sends a request until it is answered.
template <class Request, class Response>
MaybeFailure call(const ClientCore& client, Scope& scope, Deadline deadline, Route& route, Effect effect,
                  Method<Request, Response> method, const Request& request, Response& response) {
  Attempts attempts(client, scope, deadline);
  while (true) {
    if (auto ended = scope.failure()) return ended;
    ConnectionPtr connection;
    auto failure = route.connect(scope, attempts.deadline(), connection);
    if (!failure) {
      response.Clear();
      failure = attempt(client, scope, attempts.deadline(), *connection, effect, method, request, response);
      if (!failure) {
        route.succeeded();
        return std::nullopt;
      }
      attempts.add(failure->outcome);
    }
    if (auto final = attempts.next(route, connection, *failure)) return final;
  }
}

}  // namespace seriatim
