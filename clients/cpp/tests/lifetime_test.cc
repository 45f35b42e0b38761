// What applications do with threads, callbacks and the lifetime of objects.

#include <atomic>
#include <limits>
#include <optional>
#include <set>
#include <thread>

#include "check.h"
#include "fake_node.h"
#include "seriatim/client.h"

namespace {

using namespace seriatim;
using namespace std::chrono_literals;

constexpr auto kPatience = 30s;

/// The kind of the error that a call throws.
template <class Do>
std::string kind_of(Do action) {
  try {
    action();
  } catch (const Error& error) {
    return to_string(error.kind());
  }
  return "nothing";
}

std::string kind_of(std::future<Ack>& future) {
  return kind_of([&] {
    TRUE(future.wait_for(kPatience) == std::future_status::ready);
    future.get();
  });
}

/// Collects what the library logs.
struct Log {
  Logger logger() {
    return [this](LogLevel level, const std::string& message) {
      std::lock_guard lock(mutex);
      if (level == LogLevel::warning) warnings.push_back(message);
    };
  }
  std::size_t count() {
    std::lock_guard lock(mutex);
    return warnings.size();
  }

  std::mutex mutex;
  std::vector<std::string> warnings;
};

struct Fixture {
  explicit Fixture(ClientOptions options = {}) {
    options.logger = log.logger();
    client.emplace(std::vector<std::string>{node.addr()}, options);
  }

  FakeNode node;
  Log log;
  std::optional<Client> client;
};

void futures_are_ready_after_flush() {
  Fixture f;
  auto producer = f.client->producer();
  std::vector<std::future<Ack>> acks;
  for (int i = 0; i < 3000; ++i) acks.push_back(producer.send("v"));
  producer.flush(kPatience);
  std::uint64_t next = 0;
  for (auto& ack : acks) {
    TRUE(ack.wait_for(0s) == std::future_status::ready);
    EQUAL(ack.get().offset, next++);
  }
  producer.close(kPatience);
  producer.close();
  EQUAL(f.log.count(), 0u);
}

void callbacks_run_in_order_before_flush_returns() {
  Fixture f;
  auto producer = f.client->producer();
  std::vector<std::uint64_t> offsets;
  for (int i = 0; i < 3000; ++i)
    producer.send("v", [&](const SendResult& result) { offsets.push_back(result.ack().offset); });
  producer.flush(kPatience);
  EQUAL(offsets.size(), 3000u);
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    if (offsets[i] != i) EQUAL(offsets[i], i);
  }
}

void a_callback_that_throws_is_logged_and_does_no_harm() {
  Fixture f;
  auto producer = f.client->producer();
  producer.send("a", [](const SendResult&) { throw std::runtime_error("mine"); });
  producer.send("b", [](const SendResult&) { throw 7; });
  std::uint64_t offset = 0;
  producer.send("c", [&](const SendResult& result) { offset = result.ack().offset; });
  producer.close(kPatience);
  EQUAL(offset, 2u);
  EQUAL(f.log.count(), 2u);
  TRUE(f.log.warnings[0].find("mine") != std::string::npos);
}

void a_callback_may_send_flush_and_close() {
  Fixture f;
  ProducerOptions options;
  // Each record fills the buffer.
  options.buffer_bytes = 1;
  auto producer = f.client->producer("default", options);
  std::promise<void> done;
  std::atomic<int> sent{0};
  SendCallback again = [&](const SendResult& result) {
    if (!result) return;
    if (++sent < 100) {
      producer.send("v", again);
      return;
    }
    producer.flush(kPatience);
    producer.close(kPatience);
    done.set_value();
  };
  producer.send("v", again);
  TRUE(done.get_future().wait_for(kPatience) == std::future_status::ready);
  EQUAL(sent.load(), 100);
}

void a_callback_may_destroy_the_producer() {
  Fixture f;
  auto producer = std::make_unique<Producer>(f.client->producer());
  std::promise<void> done;
  f.node.hold(true);
  int left = 3;
  producer->send("first", [&](const SendResult& result) {
    TRUE(result);
    producer.reset();
  });
  f.node.await_received(1);
  for (int i = 0; i < 3; ++i) {
    // They may still be acknowledged.
    producer->send("later", [&](const SendResult& result) {
      TRUE(result || result.error()->kind() == Kind::closed || result.error()->kind() == Kind::outcome_unknown);
      if (--left == 0) done.set_value();
    });
  }
  f.node.hold(false);
  TRUE(done.get_future().wait_for(kPatience) == std::future_status::ready);
}

void a_producer_that_is_dropped_fails_its_records_and_waits_for_callbacks() {
  Fixture f;
  f.node.hold(true);
  std::vector<std::string> kinds;
  std::optional<Producer> producer(f.client->producer());
  const auto note = [&](const SendResult& result) { kinds.push_back(to_string(result.error()->kind())); };
  producer->send("sent", note);
  f.node.await_received(1);
  producer->send("not sent", note);
  auto future = producer->send("also not sent");
  const auto began = std::chrono::steady_clock::now();
  producer.reset();
  TRUE(std::chrono::steady_clock::now() - began < 5s);
  EQUAL(kinds.size(), 2u);
  EQUAL(kinds[0] + " " + kinds[1], "outcome_unknown closed");
  EQUAL(kind_of(future), "closed");
  EQUAL(f.log.count(), 1u);
}

void close_and_destruction_end_sends_that_wait_for_space() {
  for (const bool destroys : {false, true}) {
    Fixture f;
    f.node.hold(true);
    ProducerOptions options;
    options.buffer_bytes = 1000;
    std::optional<Producer> producer(f.client->producer("default", options));
    auto first = producer->send(std::string(2000, 'x'));
    f.node.await_received(1);
    EQUAL(kind_of([&] { producer->append("full", 20ms); }), "timeout");
    std::atomic<int> begun{0};
    std::vector<std::future<Ack>> acks(3);
    std::vector<std::thread> senders;
    for (auto& ack : acks) {
      senders.emplace_back([&] {
        ++begun;
        ack = producer->send("waits");
      });
    }
    // They wait, or are about to.
    while (begun < 3) std::this_thread::yield();
    if (destroys) {
      // They must be inside of `send`: until then, the object is theirs.
      EQUAL(kind_of([&] { producer->append("full", 300ms); }), "timeout");
      producer.reset();
    } else {
      EQUAL(kind_of([&] { producer->close(100ms); }), "timeout");
    }
    for (auto& sender : senders) sender.join();
    for (auto& ack : acks) EQUAL(kind_of(ack), "closed");
    EQUAL(kind_of(first), "outcome_unknown");
  }
}

void a_client_may_be_destroyed_before_the_others() {
  Fixture f;
  f.node.hold(true);
  auto producer = f.client->producer();
  auto consumer = f.client->consumer("default", {}, kPatience);
  consumer.next();
  auto sent = producer.send("a");
  f.node.await_received(1);
  std::thread waits([&] {
    // It reads until the end.
    EQUAL(kind_of([&] {
            while (true) consumer.next();
          }),
          "closed");
  });
  f.client.reset();
  EQUAL(kind_of(sent), "outcome_unknown");
  auto late = producer.send("b");
  EQUAL(kind_of(late), "closed");
  EQUAL(kind_of([&] { producer.flush(); }), "outcome_unknown");
  producer.close();
  waits.join();
  consumer.close();
  TRUE(consumer.begin() == consumer.end());
}

void objects_that_were_moved_from_are_closed() {
  Fixture f;
  auto producer = f.client->producer();
  auto other = std::move(producer);
  EQUAL(other.append("a", kPatience).offset, 0u);
  EQUAL(kind_of([&] { producer.append("b"); }), "closed");
  auto client = std::move(*f.client);
  EQUAL(kind_of([&] { f.client->ready(); }), "closed");
  client.ready(kPatience);
  other = client.producer();
  EQUAL(other.append("c", kPatience).offset, 1u);
  EQUAL(f.log.count(), 1u);
}

void threads_share_a_producer() {
  Fixture f;
  auto producer = f.client->producer();
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::set<std::uint64_t> offsets;
  constexpr int each = 500;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      std::uint64_t last = 0;
      for (int i = 0; i < each; ++i) {
        const auto offset = producer.append("v", kPatience).offset;
        TRUE(i == 0 || offset > last);
        last = offset;
        std::lock_guard lock(mutex);
        offsets.insert(offset);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EQUAL(offsets.size(), 4u * each);
  EQUAL(*offsets.rbegin(), 4u * each - 1);
}

void a_producer_is_closed_while_threads_use_it() {
  Fixture f;
  ProducerOptions options;
  options.buffer_bytes = 2000;
  auto producer = f.client->producer("default", options);
  std::atomic<int> acknowledged{0};
  std::atomic<int> refused{0};
  std::atomic<int> sent{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      // Until it is closed, and a little longer.
      for (int after = 0; after < 10; ++sent) {
        if (thread % 2 == 0) {
          auto ack = producer.send("v");
          const auto kind = kind_of(ack);
          TRUE(kind == "nothing" || kind == "closed");
          ++(kind == "nothing" ? acknowledged : refused);
        } else {
          producer.send("v", [&](const SendResult& result) {
            TRUE(result || result.error()->kind() == Kind::closed);
            ++(result ? acknowledged : refused);
          });
          kind_of([&] { producer.flush(kPatience); });
        }
        if (refused > 0) ++after;
      }
    });
  }
  while (acknowledged < 200) std::this_thread::yield();
  producer.close(kPatience);
  for (auto& thread : threads) thread.join();
  kind_of([&] { producer.flush(kPatience); });
  EQUAL(kind_of([&] { producer.append("v"); }), "closed");
  // The callbacks of those that were refused at last.
  while (acknowledged + refused < sent) std::this_thread::yield();
}

void a_consumer_is_closed_while_threads_use_it() {
  Fixture f;
  ConsumerOptions options;
  options.cursor = "k";
  options.auto_commit = 1ms;
  auto consumer = f.client->consumer("default", options);
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::set<std::uint64_t> offsets;
  for (int thread = 0; thread < 2; ++thread) {
    threads.emplace_back([&] {
      EQUAL(kind_of([&] {
              while (true) {
                const auto offset = consumer.next().offset;
                TRUE(*consumer.position() > offset);
                std::lock_guard lock(mutex);
                TRUE(offsets.insert(offset).second);
              }
            }),
            "closed");
    });
  }
  threads.emplace_back([&] {
    for (std::uint64_t last = 0;;) {
      try {
        const auto committed = consumer.commit();
        TRUE(committed >= last);
        last = committed;
      } catch (const Error& error) {
        EQUAL(std::string(to_string(error.kind())), "closed");
        return;
      }
    }
  });
  const auto count = [&] {
    std::lock_guard lock(mutex);
    return offsets.size();
  };
  while (count() < 20'000) std::this_thread::yield();
  consumer.close(kPatience);
  for (auto& thread : threads) thread.join();
  EQUAL(*offsets.rbegin() + 1, offsets.size());
}

void the_largest_offsets_are_read_and_written() {
  Fixture f;
  const auto largest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  f.node.first_offset = largest - 1;
  auto producer = f.client->producer();
  EQUAL(producer.append("a", kPatience).offset, largest - 1);
  EQUAL(producer.append("b", kPatience).offset, largest);
  ConsumerOptions options;
  options.start = Start::at_offset(largest);
  auto consumer = f.client->consumer("default", options);
  EQUAL(consumer.next(kPatience)->offset, largest);
  EQUAL(*consumer.position(), largest + 1);
}

void a_slow_consumer_reads_ahead_a_bounded_number_of_bytes() {
  Fixture f;
  f.node.consumed_bytes = 10'000;
  auto consumer = f.client->consumer();
  TRUE(consumer.next(kPatience));
  // Until nothing more is sent.
  std::size_t before = 0;
  for (std::size_t now = f.node.sent; now != before; now = f.node.sent) {
    before = now;
    std::this_thread::sleep_for(300ms);
  }
  TRUE(before * f.node.consumed_bytes < 30'000'000);
  std::uint64_t next = 1;
  for (const auto& record : consumer) {
    EQUAL(record.offset, next);
    if (++next == 5000) break;
  }
}

void close_ends_a_consumer_that_waits_in_a_loop() {
  Fixture f;
  auto consumer = f.client->consumer();
  std::atomic<std::size_t> seen{0};
  std::thread reads([&] {
    for (const auto& record : consumer) seen += record.value.size() > 0;
  });
  while (seen < 1000) std::this_thread::yield();
  consumer.close();
  reads.join();
  EQUAL(kind_of([&] { consumer.next(); }), "closed");
  EQUAL(kind_of([&] { consumer.commit(); }), "invalid");
}

void a_call_ends_when_its_client_is_closed() {
  ClientOptions options;
  // Nobody listens there.
  Client client({"127.0.0.1:1"}, options);
  EQUAL(kind_of([&] { client.ready(50ms); }), "timeout");
  std::thread closes([&] { client.close(); });
  EQUAL(kind_of([&] { client.producer(); }), "closed");
  closes.join();
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(
      {
          TEST(futures_are_ready_after_flush),
          TEST(callbacks_run_in_order_before_flush_returns),
          TEST(a_callback_that_throws_is_logged_and_does_no_harm),
          TEST(a_callback_may_send_flush_and_close),
          TEST(a_callback_may_destroy_the_producer),
          TEST(a_producer_that_is_dropped_fails_its_records_and_waits_for_callbacks),
          TEST(close_and_destruction_end_sends_that_wait_for_space),
          TEST(a_client_may_be_destroyed_before_the_others),
          TEST(objects_that_were_moved_from_are_closed),
          TEST(threads_share_a_producer),
          TEST(a_producer_is_closed_while_threads_use_it),
          TEST(a_consumer_is_closed_while_threads_use_it),
          TEST(the_largest_offsets_are_read_and_written),
          TEST(a_slow_consumer_reads_ahead_a_bounded_number_of_bytes),
          TEST(close_ends_a_consumer_that_waits_in_a_loop),
          TEST(a_call_ends_when_its_client_is_closed),
      },
      argc, argv);
}
