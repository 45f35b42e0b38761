// What a client, its producers and its consumers share.
#pragma once

#include <grpcpp/security/credentials.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "members.h"
#include "scope.h"
#include "seriatim/client.h"

namespace seriatim {

/// All methods can be called by any thread.
class ClientCore {
 public:
  /// Throws Error if an address or an option is invalid.
  ClientCore(std::vector<std::string> addrs, ClientOptions options);
  ~ClientCore();

  ClientCore(const ClientCore&) = delete;
  ClientCore& operator=(const ClientCore&) = delete;

  /// Ends the client, and waits for its thread.
  void close();

  /// Returns a connection, or null if the client is closed. The first call starts what the client does by itself.
  ConnectionPtr connect(const NodePtr& node);

  /// Notes that a connection broke, and asks for the members.
  void lost(const ConnectionPtr& connection, const Failure& failure);

  /// Takes what a node says about its cluster. Another cluster ends the client.
  MaybeFailure learn(const ConnectionPtr& connection, const v1::GetServersResponse& answer, std::string& leader);

  void log(LogLevel level, const std::string& message) const noexcept;

  const ClientOptions options;
  Scope scope;
  Members members;

 private:
  std::shared_ptr<grpc::Channel> open(const std::string& addr);
  void refresh_members();
  bool await_refresh();

  std::mutex credentials_mutex_;
  // Those that were read last.
  std::shared_ptr<grpc::ChannelCredentials> credentials_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool must_refresh_ = false;
  bool has_ended_ = false;
  // Asks for the members again. Starts with the first connection.
  std::thread refresher_;
};

/// An empty name means the log "default".
std::string log_name(const std::string& name);

/// What people should know about this process.
std::string default_owner();

/// Returns a random number that is not 0.
std::uint64_t random_instance();

void check_positive(const char* what, std::chrono::milliseconds duration);

}  // namespace seriatim
