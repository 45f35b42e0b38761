#include "members.h"

#include <algorithm>
#include <utility>

namespace seriatim {

bool Connection::was_sent(const grpc::ClientContext& context) const {
  // Until a call has a connection, its peer is the name of the channel.
  const std::string peer = context.peer();
  return peer != "unknown" && peer.compare(0, 4, "dns:") != 0;
}

Members::Members(const std::vector<std::string>& addrs, Connect connect) : connect_(std::move(connect)) {
  for (const auto& addr : addrs) {
    if (!find(addr)) nodes_.push_back(std::make_shared<Node>(addr));
  }
  given_ = nodes_.size();
  current_ = nodes_.front();
}

void Members::close() {
  // Connections end after the lock is released, because that takes its time.
  std::vector<ConnectionPtr> ended;
  std::lock_guard lock(mutex_);
  is_closed_ = true;
  for (const auto& node : nodes_) ended.push_back(std::move(node->connection));
}

ConnectionPtr Members::connect(const NodePtr& node) {
  ConnectionPtr broken;
  std::lock_guard lock(mutex_);
  if (is_closed_) return nullptr;
  auto& connection = node->connection;
  // One that broke while nobody used it may lead to another cluster by now.
  if (connection && connection->is_checked && connection->channel->GetState(false) != GRPC_CHANNEL_READY) {
    broken = std::move(connection);
  }
  if (!connection) connection = std::make_shared<Connection>(node, connect_(node->addr));
  return connection;
}

void Members::lost(const ConnectionPtr& connection) {
  ConnectionPtr broken;
  std::lock_guard lock(mutex_);
  if (connection->node->connection == connection) broken = std::move(connection->node->connection);
}

Members::Learned Members::learn(const ConnectionPtr& connection, const v1::GetServersResponse& answer) {
  std::vector<ConnectionPtr> ended;
  std::lock_guard lock(mutex_);
  Learned learned;
  if (cluster_id_.empty()) cluster_id_ = answer.cluster_id();
  if (cluster_id_ != answer.cluster_id()) {
    learned.is_other_cluster = true;
    return learned;
  }
  connection->is_checked = true;
  if (answer.servers().empty()) return learned;
  std::vector<NodePtr> nodes(nodes_.begin(), nodes_.begin() + static_cast<std::ptrdiff_t>(given_));
  const auto is_in = [&nodes](const NodePtr& node) {
    return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
  };
  for (const auto& server : answer.servers()) {
    if (server.is_leader()) learned.leader = server.rpc_addr();
    if (server.rpc_addr().empty()) continue;
    NodePtr node = find(server.rpc_addr());
    if (!node) node = std::make_shared<Node>(server.rpc_addr());
    if (!is_in(node)) nodes.push_back(std::move(node));
  }
  for (const auto& old : nodes_) {
    // It is not a member any more. Streams that it still serves continue.
    if (!is_in(old)) ended.push_back(std::move(old->connection));
  }
  nodes_ = std::move(nodes);
  return learned;
}

NodePtr Members::find(const std::string& addr) const {
  const auto found =
      std::find_if(nodes_.begin(), nodes_.end(), [&](const NodePtr& node) { return node->addr == addr; });
  return found == nodes_.end() ? nullptr : *found;
}

NodePtr Members::at(const std::string& addr) {
  std::lock_guard lock(mutex_);
  NodePtr node = find(addr);
  if (!node) nodes_.push_back(node = std::make_shared<Node>(addr));
  return node;
}

NodePtr Members::first() {
  std::lock_guard lock(mutex_);
  return current_;
}

void Members::answered_by(const NodePtr& node) {
  std::lock_guard lock(mutex_);
  current_ = node;
}

NodePtr Members::after(const NodePtr& node, const std::set<NodePtr>& tried) {
  std::lock_guard lock(mutex_);
  const auto found = std::find(nodes_.begin(), nodes_.end(), node);
  // After one that is not a member any more, the first.
  const std::size_t begin = found == nodes_.end() ? 0 : static_cast<std::size_t>(found - nodes_.begin()) + 1;
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const auto& next = nodes_[(begin + i) % nodes_.size()];
    if (tried.count(next) == 0) return next;
  }
  return nullptr;
}

std::vector<NodePtr> Members::all() {
  std::lock_guard lock(mutex_);
  return nodes_;
}

}  // namespace seriatim
