#include "seriatim/client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <utility>

#include "call.h"
#include "client_core.h"
#include "consumer_core.h"
#include "producer_core.h"

namespace seriatim {

namespace {

/// It exceeds every response: a node sends at most 4 MiB.
constexpr int kMessageBytesMax = 16 << 20;
constexpr auto kRefreshInterval = std::chrono::minutes(5);

std::vector<std::string> checked(std::vector<std::string> addrs) {
  if (addrs.empty()) throw invalid("no address of a node: pass host:port").error();
  for (const auto& addr : addrs) {
    const auto colon = addr.rfind(':');
    const bool has_host = colon != std::string::npos && colon > 0;
    const std::string port = has_host ? addr.substr(colon + 1) : "";
    const bool has_port =
        !port.empty() && port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos;
    // An IPv6 address contains colons, and needs brackets.
    const bool is_bare = has_host && addr.find(':') != colon && addr.front() != '[';
    if (!has_port || is_bare || addr.find_first_of("/ \t\r\n") != std::string::npos) {
      throw invalid("address \"" + addr + "\" is not host:port").error();
    }
  }
  return addrs;
}

ClientOptions checked(ClientOptions options) {
  check_positive("attempt_timeout", options.attempt_timeout);
  check_positive("operation_timeout", options.operation_timeout);
  check_positive("connect_timeout", options.connect_timeout);
  check_positive("backoff_min", options.backoff_min);
  if (options.backoff_max < options.backoff_min) {
    throw invalid("backoff_max is below backoff_min: choose at least " + text_of(options.backoff_min)).error();
  }
  if (options.tls && options.tls->cert.empty() != options.tls->key.empty()) {
    throw invalid("the certificate and the key of the client belong together: set both, or neither").error();
  }
  return options;
}

std::string read_pem(const std::string& path, const char* what) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file) throw invalid("file " + path + " can't be read").error();
  if (text.find(what) == std::string::npos)
    throw invalid("file " + path + " does not contain \"" + what + "\"").error();
  return text;
}

/// Throws Error if a file can't be read.
std::shared_ptr<grpc::ChannelCredentials> read_credentials(const std::optional<Tls>& tls) {
  if (!tls) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = read_pem(tls->ca, "BEGIN CERTIFICATE");
  if (!tls->cert.empty()) {
    options.pem_cert_chain = read_pem(tls->cert, "BEGIN CERTIFICATE");
    options.pem_private_key = read_pem(tls->key, "PRIVATE KEY");
  }
  return grpc::SslCredentials(options);
}

int to_int(Milliseconds duration) { return static_cast<int>(std::min<Milliseconds::rep>(duration.count(), 1 << 30)); }

}  // namespace

void check_positive(const char* what, Milliseconds duration) {
  // A year: sums with the present time must not overflow.
  constexpr Milliseconds longest = std::chrono::hours(24 * 365);
  if (duration <= duration.zero() || duration > longest) {
    throw invalid(std::string(what) + " is " + std::to_string(duration.count()) + " ms: choose 1 ms to 1 year").error();
  }
}

std::string log_name(const std::string& name) { return name.empty() ? "default" : name; }

std::string default_owner() {
  char host[200] = "";
  ::gethostname(host, sizeof host - 1);
  return std::string(host) + " process " + std::to_string(::getpid());
}

std::uint64_t random_instance() {
  std::random_device random;
  return ((static_cast<std::uint64_t>(random()) << 32) | random()) | 1;
}

ClientCore::ClientCore(std::vector<std::string> addrs, ClientOptions given)
    : options(checked(std::move(given))),
      members(checked(std::move(addrs)), [this](const std::string& addr) { return open(addr); }),
      credentials_(read_credentials(options.tls)) {}

ClientCore::~ClientCore() { close(); }

void ClientCore::close() {
  scope.end(closed_failure("the client"));
  members.close();
  std::thread refresher;
  {
    std::lock_guard lock(mutex_);
    has_ended_ = true;
    changed_.notify_all();
    refresher = std::move(refresher_);
  }
  if (refresher.joinable()) refresher.join();
}

std::shared_ptr<grpc::Channel> ClientCore::open(const std::string& addr) {
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  {
    std::lock_guard lock(credentials_mutex_);
    if (options.tls) {
      try {
        // A certificate may have been renewed.
        credentials_ = read_credentials(options.tls);
      } catch (const Error& error) {
        log(LogLevel::warning, std::string("certificates can't be read, the earlier ones are used: ") + error.what());
      }
    }
    credentials = credentials_;
  }
  grpc::ChannelArguments arguments;
  // This library decides what is sent again, when a node is tried again, and with whom it shares a connection.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, to_int(options.connect_timeout));
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, std::max(to_int(options.backoff_min), 100));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, std::max(to_int(options.backoff_max), 100));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // A connection that is idle stays: pings watch it.
  arguments.SetInt(GRPC_ARG_CLIENT_IDLE_TIMEOUT_MS, INT_MAX);
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetUserAgentPrefix("seriatim-cpp");
  return grpc::CreateCustomChannel("dns:///" + addr, credentials, arguments);
}

ConnectionPtr ClientCore::connect(const NodePtr& node) {
  {
    std::lock_guard lock(mutex_);
    if (!has_ended_ && !refresher_.joinable()) refresher_ = std::thread([this] { refresh_members(); });
  }
  return members.connect(node);
}

void ClientCore::lost(const ConnectionPtr& connection, const Failure& failure) {
  log(LogLevel::debug, "lost node=" + connection->node->addr + " error=\"" + failure.text() + "\"");
  members.lost(connection);
  std::lock_guard lock(mutex_);
  must_refresh_ = true;
  changed_.notify_all();
}

MaybeFailure ClientCore::learn(const ConnectionPtr& connection, const v1::GetServersResponse& answer,
                               std::string& leader) {
  const bool was_checked = connection->is_checked;
  auto learned = members.learn(connection, answer);
  if (!learned.is_other_cluster) {
    if (!was_checked)
      log(LogLevel::debug, "connected node=" + connection->node->addr + " cluster_id=" + answer.cluster_id());
    leader = std::move(learned.leader);
    return std::nullopt;
  }
  Failure failure;
  failure.code = Code::failed_precondition;
  failure.reason = kClusterChanged;
  failure.message = connection->node->addr + " belongs to another cluster than the nodes before it";
  failure.metadata = {{"cluster_id", answer.cluster_id()}};
  failure.outcome = Outcome::none;
  failure.retry = Retry::no;
  failure.kind = kind_of(failure.reason, failure.outcome, failure.code);
  scope.end(failure);
  return failure;
}

void ClientCore::log(LogLevel level, const std::string& message) const noexcept {
  try {
    if (options.logger) {
      options.logger(level, message);
    } else if (level == LogLevel::warning) {
      std::clog << "seriatim: " + message + "\n" << std::flush;
    }
  } catch (...) {
    // A logger that fails must not end a thread of the library.
  }
}

bool ClientCore::await_refresh() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kRefreshInterval, [this] { return must_refresh_ || has_ended_; });
  must_refresh_ = false;
  return !has_ended_;
}

/// Asks for the members every 5 minutes, and after a connection was lost, until a node answers.
void ClientCore::refresh_members() {
  auto route = Route::to_any(*this);
  while (await_refresh()) {
    while (!scope.has_ended()) {
      ConnectionPtr connection;
      auto failure = route.connect(scope, Deadline::never(), connection);
      if (!failure) failure = route.ask(scope, Deadline::never(), connection);
      if (!failure) {
        route.succeeded();
        break;
      }
      const auto pause = route.failed(connection, *failure);
      if (!pause || !scope.sleep_until(Clock::now() + *pause)) break;
    }
  }
}

// --- For the application ---

Client::Client(std::vector<std::string> addrs, ClientOptions options)
    : core_(std::make_shared<ClientCore>(std::move(addrs), std::move(options))) {}

Client::Client(Client&&) noexcept = default;

Client& Client::operator=(Client&& other) noexcept {
  if (this != &other) {
    close();
    core_ = std::move(other.core_);
  }
  return *this;
}

Client::~Client() { close(); }

std::shared_ptr<ClientCore> Client::core() const {
  if (!core_) throw closed_failure("the client").error();
  return core_;
}

void Client::ready(Deadline deadline) const {
  const auto client = core();
  auto route = Route::to_any(*client);
  v1::GetServersResponse answer;
  const Method<v1::GetServersRequest, v1::GetServersResponse> method = &v1::LogService::Stub::GetServers;
  const auto failure = call(*client, client->scope, deadline, route, Effect::reads, method, {}, answer);
  if (failure) throw failure->error();
}

Producer Client::producer(std::string log, ProducerOptions options, Deadline deadline) const {
  return Producer(ProducerCore::start(core(), std::move(log), std::move(options), deadline));
}

Consumer Client::consumer(std::string log, ConsumerOptions options, Deadline deadline) const {
  return Consumer(ConsumerCore::start(core(), std::move(log), std::move(options), deadline));
}

Cursor Client::cursor(const std::string& log, const std::string& name, Deadline deadline) const {
  const auto client = core();
  auto route = Route::to_any(*client);
  v1::GetCursorRequest request;
  request.set_log(log);
  request.set_cursor(name);
  v1::GetCursorResponse answer;
  const Method<v1::GetCursorRequest, v1::GetCursorResponse> method = &v1::LogService::Stub::GetCursor;
  const auto failure = call(*client, client->scope, deadline, route, Effect::reads, method, request, answer);
  if (failure) throw failure->error();
  const auto& from = answer.cursor();
  Cursor cursor;
  cursor.name = from.cursor();
  cursor.next_offset = from.next_offset();
  cursor.epoch = from.epoch();
  cursor.lag = from.lag();
  cursor.trimmed = from.trimmed();
  cursor.owner = from.owner();
  if (from.commit_time_us() != 0) cursor.commit_time = timestamp_of(from.commit_time_us());
  return cursor;
}

void Client::close() noexcept {
  if (core_) core_->close();
}

}  // namespace seriatim
