// The known nodes of a cluster, and the connections to them.
#pragma once

#include <grpcpp/channel.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "failure.h"
#include "seriatim/v1/log_service.grpc.pb.h"

namespace seriatim {

class Connection;

struct Node {
  explicit Node(std::string addr) : addr(std::move(addr)) {}

  const std::string addr;
  // Guarded by the lock of Members.
  std::shared_ptr<Connection> connection;
};

using NodePtr = std::shared_ptr<Node>;

/// A connection to a node. It breaks once: then the node gets another one, so that a new attempt does not wait for the
/// backoff of gRPC, and fails only if the node really can't be reached. It is closed when nobody uses it.
class Connection {
 public:
  Connection(NodePtr node, std::shared_ptr<grpc::Channel> channel)
      : node(std::move(node)), channel(std::move(channel)), stub(v1::LogService::NewStub(this->channel)) {}

  /// Whether the request of a call may have left this process.
  bool was_sent(const grpc::ClientContext& context) const;

  const NodePtr node;
  const std::shared_ptr<grpc::Channel> channel;
  const std::unique_ptr<v1::LogService::Stub> stub;
  /// Whether the node has said on this connection that it belongs to the cluster.
  std::atomic<bool> is_checked{false};
};

using ConnectionPtr = std::shared_ptr<Connection>;

/// All methods can be called by any thread.
class Members {
 public:
  using Connect = std::function<std::shared_ptr<grpc::Channel>(const std::string& addr)>;

  Members(const std::vector<std::string>& addrs, Connect connect);

  /// Drops all connections. Those that are in use end with their calls.
  void close();

  /// Returns the connection to a node, or null if the client is closed. It connects when it is used.
  ConnectionPtr connect(const NodePtr& node);

  /// Replaces a connection that broke. Calls that still use it end by themselves.
  void lost(const ConnectionPtr& connection);

  struct Learned {
    bool is_other_cluster = false;
    /// The address of the leader. Empty: unknown.
    std::string leader;
  };

  /// Takes the members from an answer of GetServers.
  Learned learn(const ConnectionPtr& connection, const v1::GetServersResponse& answer);

  /// Returns the node with an address, which may be one that no member has named yet.
  NodePtr at(const std::string& addr);

  /// Returns where a new call begins.
  NodePtr first();
  void answered_by(const NodePtr& node);

  /// Returns the next node after `node` that is not in `tried`, or null.
  NodePtr after(const NodePtr& node, const std::set<NodePtr>& tried);

  std::vector<NodePtr> all();

 private:
  NodePtr find(const std::string& addr) const;
  void discard(Connection& connection);

  const Connect connect_;
  std::mutex mutex_;
  // The addresses that were given, then the members that a node has named.
  std::vector<NodePtr> nodes_;
  std::size_t given_ = 0;
  // The node that answered last.
  NodePtr current_;
  std::string cluster_id_;
  bool is_closed_ = false;
};

}  // namespace seriatim
