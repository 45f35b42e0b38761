// The driver of the conformance test (clients/conformance/README.md): executes commands from standard input with the
// C++ library.

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "command.pb.h"
#include "json.h"
#include "seriatim/client.h"

namespace {

using driver::Fields;
using driver::Json;
using seriatim::conformance::Command;
using std::chrono::milliseconds;

/// Runs tasks one after the other, on a thread of its own.
class Worker {
 public:
  Worker() : thread_([this] { run(); }) {}
  ~Worker() {
    {
      std::lock_guard lock(mutex_);
      is_ending_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void post(std::function<void()> task) {
    {
      std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
      ++posted_;
    }
    changed_.notify_all();
  }

  std::uint64_t posted() {
    std::lock_guard lock(mutex_);
    return posted_;
  }

  /// Waits until the first `count` tasks are done.
  void await(std::uint64_t count, seriatim::Deadline deadline) {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, deadline.at(), [&] { return done_ >= count; });
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return !tasks_.empty() || is_ending_; });
      if (tasks_.empty()) return;
      auto task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      lock.lock();
      ++done_;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::uint64_t posted_ = 0;
  std::uint64_t done_ = 0;
  bool is_ending_ = false;
  std::thread thread_;
};

/// Answers a command once.
class Reply {
 public:
  explicit Reply(std::int64_t id) : id_(id) {}

  void ok(Fields fields = {}) const { write(std::move(fields)); }
  void failed(const seriatim::Error& error) const { write({{"error", Json::of(error)}}); }
  void failed(const std::string& message) const {
    seriatim::Error::Fields fields;
    fields.message = message;
    fields.outcome = seriatim::Outcome::none;
    failed(seriatim::Error(fields));
  }

  /// Answers with what the function returns or throws.
  template <class Do>
  void with(Do action) const {
    try {
      ok(action());
    } catch (const seriatim::Error& error) {
      failed(error);
    } catch (const std::exception& error) {
      failed(error.what());
    }
  }

 private:
  void write(Fields fields) const {
    fields["id"] = Json::of(static_cast<std::uint64_t>(id_));
    const auto line = object(fields).text + "\n";
    static std::mutex output;
    std::lock_guard lock(output);
    std::cout << line << std::flush;
  }

  std::int64_t id_;
};

/// Its sends are executed in the order of the commands. Other commands do not wait for those after them.
struct Producer {
  std::optional<seriatim::Producer> producer;
  Worker sends;
  Worker calls;
  Worker closes;

  seriatim::Producer& get() {
    if (!producer) throw std::runtime_error("the producer could not be made");
    return *producer;
  }
};

struct Consumer {
  std::optional<seriatim::Consumer> consumer;
  Worker reads;
  Worker calls;
  Worker closes;

  /// It is made by the first task of `reads`.
  void await_made() { reads.await(1, seriatim::Deadline(std::chrono::minutes(10))); }

  seriatim::Consumer& get() {
    if (!consumer) throw std::runtime_error("the consumer could not be made");
    return *consumer;
  }
};

/// What `send_many` has acknowledged so far.
struct Many {
  std::int64_t left = 0;
  std::optional<std::uint64_t> first;
  std::uint64_t last = 0;
  std::uint64_t duplicates = 0;
  bool has_failed = false;

  void add(const Reply& reply, const seriatim::SendResult& result) {
    --left;
    if (has_failed) return;
    if (result.error() != nullptr) {
      has_failed = true;
      reply.failed(*result.error());
      return;
    }
    last = result.ack().offset;
    if (!first) first = last;
    if (result.ack().duplicate) ++duplicates;
    if (left > 0) return;
    reply.ok(
        {{"first_offset", Json::of(*first)}, {"last_offset", Json::of(last)}, {"duplicates", Json::of(duplicates)}});
  }
};

class Driver {
 public:
  ~Driver() {
    // Ends the commands that still wait.
    if (client_) client_->close();
  }

  void execute(const std::string& line);

 private:
  using Do = void (Driver::*)(const Command&, Reply);

  void connect(const Command&, Reply);
  void ready(const Command&, Reply);
  void producer(const Command&, Reply);
  void send(const Command&, Reply);
  void send_many(const Command&, Reply);
  void flush(const Command&, Reply);
  void close_producer(const Command&, Reply);
  void consumer(const Command&, Reply);
  void next(const Command&, Reply);
  void commit(const Command&, Reply);
  void close_consumer(const Command&, Reply);
  void get_cursor(const Command&, Reply);
  void close(const Command&, Reply reply) {
    client_->close();
    reply.ok();
  }

  Producer& producer_of(const Command& command) { return *producers_.at(command.producer()); }
  Consumer& consumer_of(const Command& command) { return *consumers_.at(command.consumer()); }

  std::optional<seriatim::Client> client_;
  Worker calls_;
  // Those that were replaced by others of the same name, too.
  std::deque<Producer> all_producers_;
  std::deque<Consumer> all_consumers_;
  std::map<std::string, Producer*> producers_;
  std::map<std::string, Consumer*> consumers_;
};

void Driver::execute(const std::string& line) {
  Command command;
  if (const auto status = google::protobuf::util::JsonStringToMessage(line, &command); !status.ok()) {
    std::cerr << "driver: " << status.ToString() << ": " << line << std::endl;
    std::exit(1);
  }
  static const std::map<std::string, Do> all = {
      {"connect", &Driver::connect},
      {"ready", &Driver::ready},
      {"producer", &Driver::producer},
      {"send", &Driver::send},
      {"send_many", &Driver::send_many},
      {"flush", &Driver::flush},
      {"close_producer", &Driver::close_producer},
      {"consumer", &Driver::consumer},
      {"next", &Driver::next},
      {"commit", &Driver::commit},
      {"close_consumer", &Driver::close_consumer},
      {"get_cursor", &Driver::get_cursor},
      {"close", &Driver::close},
  };
  const Reply reply(command.id());
  const auto found = all.find(command.op());
  if (found == all.end()) return reply.failed("unknown op \"" + command.op() + "\"");
  if (!client_ && command.op() != "connect") return reply.failed("not connected");
  try {
    (this->*found->second)(command, reply);
  } catch (const seriatim::Error& error) {
    reply.failed(error);
  } catch (const std::exception& error) {
    reply.failed(command.op() + ": " + error.what());
  }
}

void Driver::connect(const Command& command, Reply reply) {
  seriatim::ClientOptions options;
  if (command.has_tls()) options.tls = seriatim::Tls{command.tls().ca(), command.tls().cert(), command.tls().key()};
  const auto& given = command.options();
  if (given.attempt_ms() != 0) options.attempt_timeout = milliseconds(given.attempt_ms());
  if (given.operation_ms() != 0) options.operation_timeout = milliseconds(given.operation_ms());
  if (given.connect_ms() != 0) options.connect_timeout = milliseconds(given.connect_ms());
  if (given.backoff_max_ms() != 0) options.backoff_max = milliseconds(given.backoff_max_ms());
  options.backoff_min = std::min(options.backoff_min, options.backoff_max);
  if (given.backoff_min_ms() != 0) options.backoff_min = milliseconds(given.backoff_min_ms());
  options.backoff_max = std::max(options.backoff_max, options.backoff_min);
  client_.emplace(std::vector<std::string>(command.addrs().begin(), command.addrs().end()), options);
  reply.ok();
}

void Driver::ready(const Command& command, Reply reply) {
  const seriatim::Deadline deadline(milliseconds(command.timeout_ms()));
  calls_.post([this, deadline, reply] {
    reply.with([&] {
      client_->ready(deadline);
      return Fields();
    });
  });
}

void Driver::producer(const Command& command, Reply reply) {
  seriatim::ProducerOptions options;
  options.name = command.name();
  if (command.batch_records() != 0) options.batch_records = command.batch_records();
  if (command.batch_bytes() != 0) options.batch_bytes = command.batch_bytes();
  if (command.buffer_bytes() != 0) options.buffer_bytes = command.buffer_bytes();
  if (command.delivery_ms() != 0) options.delivery_timeout = milliseconds(command.delivery_ms());
  auto& made = all_producers_.emplace_back();
  producers_[command.producer()] = &made;
  made.sends.post([this, &made, log = command.log(), options, reply] {
    reply.with([&]() -> Fields {
      made.producer.emplace(client_->producer(log, options));
      const auto begin = made.producer->registration();
      return {{"last_sequence", Json::of(begin.last_sequence)},
              {"last_offset", Json::of(begin.last_offset)},
              {"records", Json::of(begin.records)}};
    });
  });
}

void Driver::send(const Command& command, Reply reply) {
  seriatim::Record record(driver::from_latin1(command.value()));
  if (command.has_key()) record.key = driver::from_latin1(command.key());
  for (const auto& header : command.headers()) {
    record.headers.push_back(
        {driver::from_latin1(header.values(0).string_value()), driver::from_latin1(header.values(1).string_value())});
  }
  record.type = command.type();
  auto& to = producer_of(command);
  to.sends.post([&to, record = std::move(record), reply]() mutable {
    const auto answer = [reply](const seriatim::SendResult& result) {
      reply.with([&]() -> Fields {
        const auto& ack = result.ack();
        return {{"offset", ack.offset_lost ? Json::null() : Json::of(ack.offset)},
                {"duplicate", Json::of(ack.duplicate)}};
      });
    };
    try {
      to.get().send(std::move(record), answer);
    } catch (const std::exception& error) {
      reply.failed(error.what());
    }
  });
}

void Driver::send_many(const Command& command, Reply reply) {
  auto& to = producer_of(command);
  to.sends.post([&to, prefix = driver::from_latin1(command.prefix()), count = command.count(), reply] {
    try {
      // Callbacks run on one thread.
      auto many = std::make_shared<Many>();
      many->left = count;
      for (std::int64_t i = 0; i < count; ++i) {
        to.get().send(prefix + std::to_string(i), [many, reply](const auto& result) { many->add(reply, result); });
      }
    } catch (const std::exception& error) {
      reply.failed(error.what());
    }
  });
}

void Driver::flush(const Command& command, Reply reply) {
  const seriatim::Deadline deadline(milliseconds(command.timeout_ms()));
  auto& to = producer_of(command);
  // Of what was sent before.
  to.calls.post([&to, deadline, reply, sends = to.sends.posted()] {
    to.sends.await(sends, deadline);
    reply.with([&] {
      to.get().flush(deadline);
      return Fields();
    });
  });
}

void Driver::close_producer(const Command& command, Reply reply) {
  const seriatim::Deadline deadline(milliseconds(command.timeout_ms()));
  auto& to = producer_of(command);
  const auto sends = to.sends.posted();
  // For the sends after this command.
  to.sends.post([&to] {
    if (to.producer) to.producer->shutdown();
  });
  to.closes.post([&to, deadline, reply, sends] {
    to.sends.await(sends, deadline);
    reply.with([&] {
      to.get().close(deadline);
      return Fields();
    });
  });
}

void Driver::consumer(const Command& command, Reply reply) {
  seriatim::ConsumerOptions options;
  options.cursor = command.cursor();
  options.skip_trimmed = command.skip_trimmed();
  options.auto_commit = milliseconds(command.auto_commit_ms());
  if (command.heartbeat_ms() != 0) options.heartbeat = milliseconds(command.heartbeat_ms());
  options.max_silence = milliseconds(command.max_silence_ms());
  const seriatim::Timestamp time{std::chrono::microseconds(command.time_us())};
  const std::map<std::string, seriatim::Start> starts = {
      {"", seriatim::Start::earliest()},        {"earliest", seriatim::Start::earliest()},
      {"latest", seriatim::Start::latest()},    {"offset", seriatim::Start::at_offset(command.offset())},
      {"time", seriatim::Start::at_time(time)}, {"last", seriatim::Start::last(command.offset())},
  };
  options.start = starts.at(command.start());
  auto& made = all_consumers_.emplace_back();
  consumers_[command.consumer()] = &made;
  made.reads.post([this, &made, log = command.log(), options, reply] {
    reply.with([&] {
      made.consumer.emplace(client_->consumer(log, options));
      return Fields();
    });
  });
}

void Driver::next(const Command& command, Reply reply) {
  const milliseconds timeout(command.timeout_ms());
  auto& from = consumer_of(command);
  from.reads.post([&from, timeout, reply, max = static_cast<std::size_t>(command.max())] {
    reply.with([&]() -> Fields {
      const seriatim::Deadline deadline(timeout);
      std::vector<Json> records;
      std::uint64_t skipped = 0;
      try {
        while (records.size() < max) {
          const auto record = from.get().next(deadline);
          if (!record) break;
          records.push_back(driver::object(
              {{"offset", Json::of(record->offset)}, {"value", Json::of(driver::to_latin1(record->value))}}));
          skipped += record->skipped;
        }
      } catch (const seriatim::Error&) {
        // The next command gets the error.
        if (records.empty()) throw;
      }
      return {{"records", driver::array(records)}, {"skipped", Json::of(skipped)}};
    });
  });
}

void Driver::commit(const Command& command, Reply reply) {
  auto& from = consumer_of(command);
  from.calls.post([&from, reply] {
    from.await_made();
    reply.with([&]() -> Fields { return {{"next_offset", Json::of(from.get().commit())}}; });
  });
}

void Driver::close_consumer(const Command& command, Reply reply) {
  auto& from = consumer_of(command);
  from.closes.post([&from, reply] {
    from.await_made();
    reply.with([&] {
      from.get().close();
      return Fields();
    });
  });
}

void Driver::get_cursor(const Command& command, Reply reply) {
  calls_.post([this, log = command.log(), name = command.cursor(), reply] {
    reply.with([&]() -> Fields {
      const auto cursor = client_->cursor(log, name);
      return {{"next_offset", Json::of(cursor.next_offset)},
              {"epoch", Json::of(cursor.epoch)},
              {"lag", Json::of(cursor.lag)}};
    });
  });
}

}  // namespace

int main() {
  Driver driver;
  std::string line;
  while (std::getline(std::cin, line)) {
    if (line.find_first_not_of(" \t\r") != std::string::npos) driver.execute(line);
  }
  return 0;
}
