/// A client of Seriatim, a replicated commit log.
///
///     seriatim::ClientOptions options;
///     options.tls = seriatim::Tls{"ca.pem", "client.pem", "client-key.pem"};
///     seriatim::Client client({"host1:8400", "host2:8400"}, options);
///
///     auto producer = client.producer("orders");
///     seriatim::Ack ack = producer.send("hello").get();
///     producer.close();
///
///     auto consumer = client.consumer("orders");
///     for (const auto& record : consumer) { ... }
///
/// A Client finds the nodes of a cluster and retries what can be retried. A Producer batches records and appends each
/// exactly once, in the order of the calls. A Consumer continues after a failure where it was, and stores its position
/// in a cursor if it has one. All failures are of the type Error.
///
/// These headers include nothing of gRPC or protobuf.
#ifndef SERIATIM_CLIENT_H
#define SERIATIM_CLIENT_H

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "seriatim/consumer.h"
#include "seriatim/deadline.h"
#include "seriatim/error.h"
#include "seriatim/producer.h"
#include "seriatim/record.h"

namespace seriatim {

/// Files in the format PEM. They are read again for each new connection, because certificates are renewed.
struct Tls {
  /// The authority that has signed the nodes' certificates.
  std::string ca;
  /// The certificate of the client, and its key. Both may be empty.
  std::string cert;
  std::string key;
};

enum class LogLevel { debug, warning };

/// Receives what the library logs, on any of its threads. It must not call the library.
using Logger = std::function<void(LogLevel, const std::string&)>;

// Each option has an initializer, because compilers warn about one without, if an application sets only some.
struct ClientOptions {
  /// Without it, connections are not encrypted.
  std::optional<Tls> tls = {};
  /// Limits one attempt of a call,
  std::chrono::milliseconds attempt_timeout = std::chrono::seconds(5);
  /// a call with all its attempts,
  std::chrono::milliseconds operation_timeout = std::chrono::seconds(120);
  /// and one attempt to connect.
  std::chrono::milliseconds connect_timeout = std::chrono::seconds(3);
  /// The first and the longest pause between attempts.
  std::chrono::milliseconds backoff_min{100};
  std::chrono::milliseconds backoff_max = std::chrono::seconds(5);
  /// By default, warnings are written to std::clog.
  Logger logger = {};
};

/// The position of a reader, which the cluster stores under a name.
struct Cursor {
  std::string name;
  /// The next record to read.
  std::uint64_t next_offset = 0;
  /// Increases when another process takes the cursor over. 0: none has.
  std::uint64_t epoch = 0;
  /// The number of records from the position to the end of the log, without those that were trimmed.
  std::uint64_t lag = 0;
  /// The number of records from the position on that were trimmed.
  std::uint64_t trimmed = 0;
  /// What the process that has taken it over says about itself.
  std::string owner;
  /// When the position was stored. Absent: it is the one at which the cursor was created.
  std::optional<Timestamp> commit_time;
};

class ClientCore;

/// A client of one cluster. Threads share it; one for each process is enough.
///
/// It connects when it is first used. Methods throw Error.
class Client {
 public:
  /// `addrs` are those of nodes, each `host:port`. One is enough to find the others.
  explicit Client(std::vector<std::string> addrs, ClientOptions options = {});
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;
  /// Closes the client. Producers and consumers may be destroyed later.
  ~Client();

  /// Waits until a node answers.
  void ready(Deadline deadline = {}) const;

  /// Registers a producer.
  Producer producer(std::string log = "default", ProducerOptions options = {}, Deadline deadline = {}) const;

  /// Begins to read a log. Acquires the cursor, if the options name one.
  Consumer consumer(std::string log = "default", ConsumerOptions options = {}, Deadline deadline = {}) const;

  /// Returns a cursor of a log.
  Cursor cursor(const std::string& log, const std::string& name, Deadline deadline = {}) const;

  /// Ends all producers and consumers at once. Close producers before: what they have not delivered fails.
  void close() noexcept;

 private:
  std::shared_ptr<ClientCore> core() const;

  std::shared_ptr<ClientCore> core_;
};

}  // namespace seriatim

#endif  // SERIATIM_CLIENT_H
