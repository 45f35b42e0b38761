// The parts of the library that have no threads or I/O: requests, outcomes, errors, times.

#include <atomic>
#include <limits>
#include <memory>
#include <thread>

#include "check.h"
#include "details.pb.h"
#include "queue.h"
#include "scope.h"
#include "seriatim/client.h"
#include "seriatim/v1/log_service.pb.h"

namespace {

using namespace seriatim;
using namespace std::chrono_literals;

// --- Requests ---

struct TestQueue : Queue {
  explicit TestQueue(std::size_t max_records = 1000, std::size_t max_bytes = 512 << 10)
      : Queue(max_records, max_bytes) {
    identity = {"l", "id", 7, 3};
  }

  std::future<Ack> add(const std::string& value) {
    std::promise<Ack> promise;
    auto future = promise.get_future();
    const Record record(value);
    Queue::add(record, EncodedSize(record), std::move(promise));
    return future;
  }

  void add_all(const std::vector<std::string>& values) {
    for (const auto& value : values) add(value);
  }

  /// Sends what may be sent. Returns it as sequence:value,value.
  std::string send_all() {
    std::string text;
    while (peek() != nullptr) {
      const auto& batch = send();
      v1::ProduceRequest request;
      TRUE(request.ParseFromString(*batch.body + encode_trailer(identity, batch.sequence)));
      EQUAL(request.producer_id(), 7u);
      EQUAL(request.producer_epoch(), 3u);
      EQUAL(request.log_id(), "id");
      if (!text.empty()) text += " ";
      text += std::to_string(request.sequence()) + ":";
      for (const auto& record : request.records()) text += (text.back() == ':' ? "" : ",") + record.value();
    }
    return text;
  }

  std::string outcomes() const {
    std::string text;
    for (const auto& batch : batches()) text += std::string(text.empty() ? "" : " ") + to_string(batch->fate.outcome());
    return text;
  }
};

Failure failure(Outcome outcome, std::map<std::string, std::string> metadata = {}) {
  Failure made;
  made.outcome = outcome;
  made.metadata = std::move(metadata);
  return made;
}

void ignore(const std::string&) {}

void an_idle_queue_sends_at_once_and_a_busy_one_gathers() {
  TestQueue q;
  q.add("a");
  EQUAL(q.send_all(), "1:a");
  q.add_all({"b", "c"});
  EQUAL(q.send_all(), "");
  q.pop();
  EQUAL(q.send_all(), "2:b,c");
  // A request that was sent takes no more records.
  q.add("d");
  q.pop();
  EQUAL(q.send_all(), "3:d");
}

void a_full_request_is_sent_while_others_are_unanswered() {
  TestQueue q(2);
  q.add("a");
  EQUAL(q.send_all(), "1:a");
  q.add_all({"b", "c", "d"});
  EQUAL(q.send_all(), "2:b,c");
  q.add("e");
  EQUAL(q.send_all(), "3:d,e");
}

void a_request_is_full_at_its_bytes() {
  TestQueue q(1000, 100);
  const std::string large(60, 'x');
  q.add_all({"a", large, large, std::string(500, 'y'), "b"});
  std::string counts;
  for (const auto& batch : q.batches()) counts += std::to_string(batch->count) + " ";
  // The last but one is larger than the limit: a single record always fits.
  EQUAL(counts, "2 1 1 1 ");
}

void at_most_32_requests_and_4_mib_are_unanswered() {
  TestQueue records(1);
  for (int i = 0; i < 100; ++i) records.add("r");
  records.send_all();
  EQUAL(records.sent(), kUnansweredMax);
  records.pop();
  records.send_all();
  EQUAL(records.sent(), kUnansweredMax);
  TestQueue bytes;
  for (int i = 0; i < 20; ++i) bytes.add(std::string(500 << 10, 'x'));
  bytes.send_all();
  EQUAL(bytes.sent(), 8u);
  TRUE(bytes.sent_bytes() <= kUnansweredBytesMax);
  // One that is larger than the window is sent alone.
  TestQueue one;
  one.add_all({std::string(5 << 20, 'x'), "b"});
  one.send_all();
  EQUAL(one.sent(), 1u);
}

void a_failure_says_what_became_of_each_request() {
  const struct {
    Failure failure;
    std::size_t answered;
    const char* outcomes;
    std::size_t at;
  } cases[] = {
      {failure(Outcome::none), 0, "none none none none", 0},
      {failure(Outcome::unknown), 0, "unknown unknown unknown unknown", 0},
      {failure(Outcome::none, {{"failed_request", "0"}}), 0, "none none none none", 0},
      {failure(Outcome::unknown, {{"failed_request", "0"}}), 0, "unknown none none none", 0},
      {failure(Outcome::unknown, {{"failed_request", "5"}, {"unknown_through", "7"}}), 5,
       "unknown unknown unknown none", 0},
      {failure(Outcome::done, {{"failed_request", "0"}}), 0, "done none none none", 0},
      {failure(Outcome::done), 0, "done unknown unknown unknown", 0},
      // Answers are missing.
      {failure(Outcome::none, {{"failed_request", "2"}}), 0, "unknown unknown none none", 2},
      // Numbers that can't be right.
      {failure(Outcome::unknown, {{"failed_request", "2"}}), 3, "unknown unknown unknown unknown", 0},
      {failure(Outcome::unknown, {{"failed_request", "9"}}), 0, "unknown unknown unknown unknown", 0},
      {failure(Outcome::unknown, {{"failed_request", "-1"}}), 0, "unknown unknown unknown unknown", 0},
  };
  for (const auto& c : cases) {
    TestQueue q(1);
    q.add_all({"a", "b", "c", "d"});
    EQUAL(q.send_all(), "1:a 2:b 3:c 4:d");
    q.add("unsent");
    EQUAL(q.failed(c.failure, c.answered), c.at);
    EQUAL(q.outcomes(), std::string(c.outcomes) + " none");
    EQUAL(q.send_all(), "1:a 2:b 3:c 4:d 5:unsent");
    // What was unknown or done stays so, after a refusal.
    q.failed(failure(Outcome::none, {{"failed_request", "0"}}), 0);
    EQUAL(q.outcomes(), std::string(c.outcomes) + " none");
  }
}

void records_are_taken_out_of_requests_that_were_not_appended() {
  TestQueue q(3);
  std::vector<std::future<Ack>> acks;
  for (const char* value : {"a", "too large", "b", "much too large", "c", "d", "also too large"})
    acks.push_back(q.add(value));
  EQUAL(q.send_all(), "1:a,too large,b 2:much too large,c,d");
  q.failed(failure(Outcome::none, {{"failed_request", "0"}}), 0);
  auto cost = q.batches()[0]->cost;
  auto refuse = [](std::size_t size) { return invalid(std::to_string(size)); };
  auto removed = q.remove(5, std::nullopt, refuse);
  TRUE(removed.any);
  EQUAL(removed.empty.size(), 1u);
  EQUAL(q.batches()[0]->cost, cost - (9 + 4 + kRecordOverhead));
  EQUAL(q.send_all(), "1:a,b 2:c,d");
  // Once more: the positions of those that were removed before count.
  q.failed(failure(Outcome::none, {{"failed_request", "0"}}), 0);
  TRUE(q.remove(5, 1, refuse).any);
  EQUAL(q.send_all(), "1:a 2:c,d");
  auto first = q.pop();
  first->offset = 10;
  first->complete(ignore);
  EQUAL(acks[0].get().offset, 10u);
  for (const int i : {1, 2}) {
    try {
      acks[i].get();
      TRUE(false);
    } catch (const Error& error) {
      TRUE(error.kind() == Kind::invalid);
      EQUAL(error.message(), i == 1 ? "9" : "1");
    }
  }
  // A request that may have been appended keeps its records and its sequence.
  q.failed(failure(Outcome::unknown), 0);
  TRUE(!q.remove(0, 0, refuse).any);
  EQUAL(q.send_all(), "2:c,d");
}

void a_registration_gives_new_sequences() {
  TestQueue q(1);
  q.add_all({"a", "b", "c"});
  EQUAL(q.send_all(), "1:a 2:b 3:c");
  q.failed(failure(Outcome::unknown, {{"failed_request", "0"}}), 0);
  TRUE(q.may_have_been_done());
  TRUE(!q.may_have_been_done_after_first());
  q.forget_attempts();
  TRUE(!q.may_have_been_done());
  q.renumber(41);
  EQUAL(q.send_all(), "41:a 42:b 43:c");
}

void a_record_is_encoded_as_protobuf_does() {
  Record record(std::string("\0\xff", 2));
  record.key = "";
  record.headers = {{"n", ""}, {"n", std::string(300, 'x')}};
  record.type = std::numeric_limits<std::uint32_t>::max();
  record.event_time = Timestamp(1'700'000'000'000'001us);
  std::string body;
  const EncodedSize size(record);
  append(body, record, size);
  EQUAL(body.size(), size.bytes());
  v1::ProduceRequest request;
  TRUE(request.ParseFromString(body));
  EQUAL(request.SerializeAsString(), body);
  const auto& decoded = request.records(0);
  EQUAL(decoded.value(), record.value);
  TRUE(decoded.has_key() && decoded.key().empty());
  EQUAL(decoded.headers(1).value(), record.headers[1].value);
  EQUAL(decoded.type(), record.type);
  EQUAL(decoded.client_time_us(), 1'700'000'000'000'001u);
  EQUAL(limited_size(record), 2 + 1 + 301u);
  append(body, Record(), EncodedSize(Record()));
  TRUE(request.ParseFromString(body));
  EQUAL(request.records_size(), 2);
  TRUE(!request.records(1).has_key() && !request.records(1).has_client_time_us());
}

void a_malformed_record_is_refused() {
  Record record("v");
  TRUE(!check_record(record));
  record.headers = {{"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xff"}};
  TRUE(!check_record(record));
  for (const char* name : {"\xff", "\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    record.headers = {{name, ""}};
    TRUE(check_record(record));
  }
  record.headers.clear();
  record.event_time = Timestamp(-1us);
  TRUE(check_record(record));
}

// --- Errors ---

grpc::Status status(grpc::StatusCode code, const std::map<std::string, std::string>& metadata,
                    std::int64_t retry_seconds = 0) {
  client::details::ErrorInfo info;
  info.set_reason("NEW");
  info.set_domain("seriatim");
  for (const auto& [key, value] : metadata) (*info.mutable_metadata())[key] = value;
  client::details::Status details;
  auto* detail = details.add_details();
  detail->set_type_url("type.googleapis.com/google.rpc.ErrorInfo");
  detail->set_value(info.SerializeAsString());
  if (retry_seconds != 0) {
    client::details::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(retry_seconds);
    detail = details.add_details();
    detail->set_type_url("type.googleapis.com/google.rpc.RetryInfo");
    detail->set_value(retry.SerializeAsString());
  }
  return {code, "it says", details.SerializeAsString()};
}

void an_error_is_decided_by_outcome_and_retry() {
  const auto known =
      failure_of(status(grpc::StatusCode::ABORTED, {{"outcome", "none"}, {"retry", "later"}, {"log", "x"}}, 3), true);
  TRUE(known.answered && !known.broken && known.outcome == Outcome::none && known.retry == Retry::later);
  TRUE(known.retry_after == 3s);
  EQUAL(known.metadata.size(), 1u);
  EQUAL(known.text(), "ABORTED (NEW): it says [outcome none, retry later]");
  const auto foreign = failure_of(status(grpc::StatusCode::ABORTED, {{"outcome", "new"}}), false);
  TRUE(foreign.outcome == Outcome::unknown && foreign.retry == Retry::no && foreign.kind == Kind::outcome_unknown);
  // A server that demands an absurd time does not make the library overflow.
  const auto absurd = std::numeric_limits<std::int64_t>::max();
  TRUE(failure_of(status(grpc::StatusCode::ABORTED, {}, absurd), true).retry_after == 24h);
  TRUE(failure_of(status(grpc::StatusCode::ABORTED, {}, -absurd), true).retry_after == 0h);
}

void a_status_of_grpc_itself_is_a_broken_connection() {
  for (const auto code : {grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::UNKNOWN, grpc::StatusCode::INTERNAL,
                          grpc::StatusCode::CANCELLED}) {
    const auto sent = failure_of({code, "x"}, true);
    TRUE(sent.broken && sent.code == Code::unavailable && sent.outcome == Outcome::unknown &&
         sent.retry == Retry::elsewhere);
    TRUE(failure_of({code, "x"}, false).outcome == Outcome::none);
    TRUE(failure_of({code, "x", "\xff\x01\x02"}, true).broken);
  }
}

void a_closed_failure_has_the_kind_of_its_outcome() {
  const auto closed = closed_failure("the producer");
  TRUE(closed.kind == Kind::closed && closed.outcome == Outcome::none);
  TRUE(closed.with_outcome(Outcome::unknown).kind == Kind::outcome_unknown);
  TRUE(closed.with_outcome(Outcome::unknown).with_outcome(Outcome::none).kind == Kind::closed);
  EQUAL(std::string(closed.error().what()), "CANCELLED: the producer was closed [outcome none, retry no]");
  TRUE(!closed.error().may_have_been_done());
}

void numbers_of_the_metadata_have_64_bits() {
  const auto made =
      failure(Outcome::none, {{"a", "9223372036854775807"}, {"b", "18446744073709551616"}, {"c", "1x"}, {"d", ""}});
  TRUE(made.number("a") == std::numeric_limits<std::int64_t>::max());
  for (const char* key : {"b", "c", "d", "e"}) TRUE(!made.number(key));
}

// --- Times and scopes ---

void a_deadline_does_not_overflow() {
  TRUE(Deadline(std::chrono::hours::max()).is_never());
  TRUE(Deadline(std::chrono::nanoseconds::max()).is_never());
  TRUE(Deadline(std::chrono::duration<double>(1e300)).is_never());
  TRUE(Deadline(std::chrono::hours::min()).has_passed());
  TRUE(Deadline(0s).has_passed());
  TRUE(!Deadline(1h).has_passed() && !Deadline(1h).is_never());
}

void a_client_refuses_options_that_make_no_sense() {
  const auto refuses = [](std::vector<std::string> addrs, const ClientOptions& options) {
    try {
      Client client(std::move(addrs), options);
    } catch (const Error& error) {
      return error.kind() == Kind::invalid;
    }
    return false;
  };
  ClientOptions options;
  TRUE(!refuses({"a:1", "[::1]:65535"}, options));
  TRUE(refuses({}, options));
  for (const char* addr : {"", "a", "a:", ":1", "::1:8400", "a:b", "dns:///a:1", "a b:1"})
    TRUE(refuses({addr}, options));
  options.backoff_max = 1ms;
  TRUE(refuses({"a:1"}, options));
  options = {};
  options.attempt_timeout = std::chrono::milliseconds::max();
  TRUE(refuses({"a:1"}, options));
  options = {};
  options.tls = Tls{"/nonexistent/ca.pem", "", ""};
  TRUE(refuses({"a:1"}, options));
}

void a_scope_ends_once_and_runs_its_hooks() {
  Scope parent;
  Scope child(parent);
  int ended = 0;
  const auto first = child.on_end([&] { ++ended; });
  {
    const auto gone = child.on_end([&] { ended += 100; });
  }
  TRUE(child.sleep_until(Clock::now() + 1ms));
  TRUE(parent.end(closed_failure("x")));
  TRUE(!parent.end(closed_failure("y")));
  EQUAL(child.failure()->message, "x was closed");
  EQUAL(ended, 1);
  const auto late = child.on_end([&] { ++ended; });
  EQUAL(ended, 2);
  TRUE(!child.sleep_until(Clock::time_point::max()));
}

void a_hook_that_runs_is_waited_for() {
  Scope scope;
  std::atomic<bool> runs{false};
  std::atomic<bool> may_end{false};
  std::atomic<bool> has_ended{false};
  auto registration = std::make_unique<Scope::Registration>(scope.on_end([&] {
    runs = true;
    while (!may_end) std::this_thread::yield();
    has_ended = true;
  }));
  std::thread ends([&] { scope.end(closed_failure("x")); });
  while (!runs) std::this_thread::yield();
  std::thread releases([&] { may_end = true; });
  registration.reset();
  TRUE(has_ended);
  ends.join();
  releases.join();
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(
      {
          TEST(an_idle_queue_sends_at_once_and_a_busy_one_gathers),
          TEST(a_full_request_is_sent_while_others_are_unanswered),
          TEST(a_request_is_full_at_its_bytes),
          TEST(at_most_32_requests_and_4_mib_are_unanswered),
          TEST(a_failure_says_what_became_of_each_request),
          TEST(records_are_taken_out_of_requests_that_were_not_appended),
          TEST(a_registration_gives_new_sequences),
          TEST(a_record_is_encoded_as_protobuf_does),
          TEST(a_malformed_record_is_refused),
          TEST(an_error_is_decided_by_outcome_and_retry),
          TEST(a_status_of_grpc_itself_is_a_broken_connection),
          TEST(a_closed_failure_has_the_kind_of_its_outcome),
          TEST(numbers_of_the_metadata_have_64_bits),
          TEST(a_deadline_does_not_overflow),
          TEST(a_client_refuses_options_that_make_no_sense),
          TEST(a_scope_ends_once_and_runs_its_hooks),
          TEST(a_hook_that_runs_is_waited_for),
      },
      argc, argv);
}
