#include "queue.h"

#include <algorithm>
#include <exception>

#include "seriatim/v1/log_service.pb.h"

namespace seriatim {

void Batch::complete(const std::function<void(const std::string&)>& report) {
  // The records of a request share the exception.
  std::exception_ptr exception;
  std::optional<Error> error;
  if (failure) {
    error = failure->error();
    exception = std::make_exception_ptr(*error);
  }
  std::uint64_t next = offset;
  auto refused = removed.begin();
  for (std::size_t position = 0; position < recipients.size(); ++position) {
    Ack ack;
    ack.append_time = append_time;
    std::optional<Error> own;
    if (refused != removed.end() && refused->first == position) {
      own = (refused++)->second.error();
    } else if (offset_lost) {
      ack = {0, {}, true, true};
    } else if (!failure) {
      ack.offset = next++;
      ack.duplicate = is_duplicate;
    }
    const Error* failed = own ? &*own : error ? &*error : nullptr;
    if (auto* promise = std::get_if<std::promise<Ack>>(&recipients[position])) {
      if (failed == nullptr) {
        promise->set_value(ack);
      } else {
        promise->set_exception(own ? std::make_exception_ptr(*own) : exception);
      }
      continue;
    }
    auto& callback = std::get<SendCallback>(recipients[position]);
    if (!callback) continue;
    try {
      callback(failed == nullptr ? SendResult(ack) : SendResult(*failed));
    } catch (const std::exception& thrown) {
      report(thrown.what());
    } catch (...) {
      report("an exception of another type");
    }
    // What it refers to may end with it, and need not wait for the other records.
    callback = nullptr;
  }
  recipients = std::vector<Recipient>();
  body = nullptr;
}

std::size_t Queue::add(const Record& record, const EncodedSize& size, Recipient recipient) {
  Batch* last = batches_.empty() ? nullptr : batches_.back().get();
  if (last != nullptr && !last->is_sealed && last->body->size() + size.bytes() > max_bytes_) last->is_sealed = true;
  if (last == nullptr || last->is_sealed) {
    auto made = std::make_shared<Batch>();
    made->since = Clock::now();
    // Records gather: as many as in the last request, probably.
    made->body->reserve(std::max(size.bytes(), last == nullptr ? 0 : last->body->size()));
    batches_.push_back(std::move(made));
    last = batches_.back().get();
  }
  const auto cost = size.bytes() + kRecordOverhead;
  append(*last->body, record, size);
  last->recipients.push_back(std::move(recipient));
  ++last->count;
  last->cost += cost;
  if (last->count >= max_records_ || last->body->size() >= max_bytes_) last->is_sealed = true;
  return cost;
}

const Batch* Queue::peek() const {
  if (sent_ == batches_.size() || sent_ >= kUnansweredMax) return nullptr;
  const Batch& next = *batches_[sent_];
  // While a request is unanswered, records gather.
  if (sent_ > 0 && (!next.is_sealed || sent_bytes_ + next.size() > kUnansweredBytesMax)) return nullptr;
  return &next;
}

const Batch& Queue::send() {
  Batch& next = *batches_[sent_];
  next.is_sealed = true;
  if (next.sequence == 0) next.sequence = sequence_++;
  ++sent_;
  sent_bytes_ += next.size();
  return next;
}

BatchPtr Queue::pop() {
  BatchPtr first = std::move(batches_.front());
  batches_.pop_front();
  if (sent_ > 0) {
    --sent_;
    sent_bytes_ -= first->size();
  }
  return first;
}

std::deque<BatchPtr> Queue::clear() {
  sent_ = sent_bytes_ = 0;
  return std::exchange(batches_, {});
}

std::size_t Queue::failed(const Failure& failure, std::size_t answered) {
  std::size_t at = 0;
  bool is_numbered = false;
  if (const auto number = failure.number("failed_request");
      number && *number >= answered && *number - answered < sent_) {
    at = static_cast<std::size_t>(*number - answered);
    is_numbered = true;
  }
  const auto through = failure.number("unknown_through");
  for (std::size_t i = 0; i < sent_; ++i) {
    Outcome outcome = failure.outcome;
    if (i < at) {
      // The server has answered it, and the answer is lost.
      outcome = Outcome::unknown;
    } else if (i > at && is_numbered) {
      // No request after the failed one is appended, with this exception.
      const bool is_exception = failure.outcome == Outcome::unknown && through && answered + i <= *through;
      outcome = is_exception ? Outcome::unknown : Outcome::none;
    } else if (i > at && outcome == Outcome::done) {
      outcome = Outcome::unknown;
    }
    batches_[i]->fate.add(outcome);
  }
  sent_ = sent_bytes_ = 0;
  return at;
}

bool Queue::may_have_been_done() const {
  // Requests are sent in order, so the first has at least as many such attempts as the others.
  return !batches_.empty() && batches_.front()->fate.outcome() != Outcome::none;
}

bool Queue::may_have_been_done_after_first() const {
  if (batches_.empty()) return false;
  return std::any_of(batches_.begin() + 1, batches_.end(),
                     [](const BatchPtr& b) { return b->fate.outcome() != Outcome::none; });
}

void Queue::forget_attempts() {
  for (const auto& batch : batches_) batch->fate = {};
}

void Queue::renumber(std::uint64_t first) {
  sequence_ = first;
  for (const auto& batch : batches_) {
    if (batch->sequence != 0) batch->sequence = sequence_++;
  }
}

namespace {

std::size_t limited_size(const v1::Record& record) {
  std::size_t size = record.value().size() + record.key().size();
  for (const auto& header : record.headers()) size += header.name().size() + header.value().size();
  return size;
}

/// Takes records out of a request, and returns what they took in the buffer.
std::size_t remove_from(Batch& batch, std::size_t max, std::optional<std::size_t> position,
                        const std::function<Failure(std::size_t)>& refuse) {
  v1::ProduceRequest records;
  records.ParseFromString(*batch.body);
  v1::ProduceRequest kept;
  // The position at which the caller knows the record, which counts those that were removed before.
  std::size_t known = 0;
  std::size_t cost = 0;
  for (int i = 0; i < records.records_size(); ++i, ++known) {
    while (batch.removed.count(known) > 0) ++known;
    auto& record = *records.mutable_records(i);
    const auto size = limited_size(record);
    if (size <= max && position != static_cast<std::size_t>(i)) {
      kept.add_records()->Swap(&record);
      continue;
    }
    batch.removed.emplace(known, refuse(size));
    --batch.count;
    v1::ProduceRequest alone;
    alone.add_records()->Swap(&record);
    cost += alone.ByteSizeLong() + kRecordOverhead;
  }
  if (cost > 0) {
    batch.body = std::make_shared<std::string>(kept.SerializeAsString());
    batch.cost -= cost;
  }
  return cost;
}

}  // namespace

Queue::Removed Queue::remove(std::size_t max, std::optional<std::size_t> position,
                             const std::function<Failure(std::size_t)>& refuse) {
  Removed result;
  std::deque<BatchPtr> kept;
  std::uint64_t next = 0;
  for (std::size_t i = 0; i < batches_.size(); ++i) {
    auto& batch = batches_[i];
    if (batch->fate.outcome() == Outcome::none) {
      if (next == 0) next = batch->sequence;
      result.cost += remove_from(*batch, max, i == 0 ? position : std::nullopt, refuse);
      if (batch->count == 0) {
        result.empty.push_back(batch);
        continue;
      }
    }
    kept.push_back(batch);
  }
  result.any = result.cost > 0;
  if (!result.any) return result;
  batches_ = std::move(kept);
  for (const auto& batch : batches_) {
    if (batch->fate.outcome() == Outcome::none && batch->sequence != 0) batch->sequence = next++;
  }
  if (next != 0) sequence_ = next;
  return result;
}

}  // namespace seriatim
