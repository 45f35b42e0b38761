#include "encode.h"

#include "seriatim/v1/log_service.pb.h"

namespace seriatim {

namespace {

// The fields of messages that are encoded here have numbers below 16, so that a tag has one byte.
constexpr std::size_t kTag = 1;
enum WireType : unsigned { kVarint = 0, kFixed64 = 1, kBytes = 2 };

void append_tag(std::string& to, int field, WireType type) {
  to.push_back(static_cast<char>(static_cast<unsigned>(field) << 3 | type));
}

std::size_t varint_size(std::uint64_t value) {
  std::size_t size = 1;
  for (; value >= 0x80; value >>= 7) ++size;
  return size;
}

void append_varint(std::string& to, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) to.push_back(static_cast<char>(value | 0x80));
  to.push_back(static_cast<char>(value));
}

std::size_t bytes_size(std::size_t size) { return kTag + varint_size(size) + size; }

void append_bytes(std::string& to, int field, const std::string& value) {
  append_tag(to, field, kBytes);
  append_varint(to, value.size());
  to += value;
}

/// An empty field is not written, as protobuf does it.
std::size_t optional_size(std::size_t size) { return size == 0 ? 0 : bytes_size(size); }

void append_optional(std::string& to, int field, const std::string& value) {
  if (!value.empty()) append_bytes(to, field, value);
}

std::size_t size_of(const Header& header) {
  return optional_size(header.name.size()) + optional_size(header.value.size());
}

/// Accepts what protobuf accepts as a string.
bool is_utf8(const std::string& text) {
  const auto* at = reinterpret_cast<const unsigned char*>(text.data());
  const auto* end = at + text.size();
  while (at < end) {
    const unsigned first = *at++;
    if (first < 0x80) continue;
    const int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
    if (first < 0xC2 || first > 0xF4 || end - at < more) return false;
    unsigned code = first & (0x3Fu >> more);
    for (int i = 0; i < more; ++i, ++at) {
      if ((*at & 0xC0) != 0x80) return false;
      code = code << 6 | (*at & 0x3F);
    }
    const bool is_overlong = (more == 2 && code < 0x800) || (more == 3 && code < 0x10000);
    if (is_overlong || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return false;
  }
  return true;
}

}  // namespace

std::size_t limited_size(const Record& record) {
  std::size_t size = record.value.size() + (record.key ? record.key->size() : 0);
  for (const auto& header : record.headers) size += header.name.size() + header.value.size();
  return size;
}

MaybeFailure check_record(const Record& record) {
  for (const auto& header : record.headers) {
    if (!is_utf8(header.name)) return invalid("the name of a header is not UTF-8");
  }
  if (record.event_time && record.event_time->time_since_epoch().count() < 0)
    return invalid("the event time is before 1970");
  return std::nullopt;
}

EncodedSize::EncodedSize(const Record& record) {
  message_ += optional_size(record.value.size());
  if (record.type != 0) message_ += kTag + varint_size(record.type);
  if (record.key) message_ += bytes_size(record.key->size());
  for (const auto& header : record.headers) message_ += bytes_size(size_of(header));
  if (record.event_time) message_ += kTag + sizeof(std::uint64_t);
  bytes_ = bytes_size(message_);
}

namespace {

void append_fixed64(std::string& to, int field, std::uint64_t value) {
  append_tag(to, field, kFixed64);
  for (int i = 0; i < 8; ++i, value >>= 8) to.push_back(static_cast<char>(value));
}

}  // namespace

void append(std::string& body, const Record& record, const EncodedSize& size) {
  append_tag(body, v1::ProduceRequest::kRecordsFieldNumber, kBytes);
  append_varint(body, size.message());
  append_optional(body, v1::Record::kValueFieldNumber, record.value);
  if (record.type != 0) {
    append_tag(body, v1::Record::kTypeFieldNumber, kVarint);
    append_varint(body, record.type);
  }
  if (record.key) append_bytes(body, v1::Record::kKeyFieldNumber, *record.key);
  for (const auto& header : record.headers) {
    append_tag(body, v1::Record::kHeadersFieldNumber, kBytes);
    append_varint(body, size_of(header));
    append_optional(body, v1::Header::kNameFieldNumber, header.name);
    append_optional(body, v1::Header::kValueFieldNumber, header.value);
  }
  if (record.event_time) {
    append_fixed64(body, v1::Record::kClientTimeUsFieldNumber,
                   static_cast<std::uint64_t>(record.event_time->time_since_epoch().count()));
  }
}

std::string encode_trailer(const Identity& identity, std::uint64_t sequence) {
  v1::ProduceRequest trailer;
  trailer.set_log(identity.log);
  trailer.set_producer_id(identity.producer_id);
  trailer.set_sequence(sequence);
  trailer.set_log_id(identity.log_id);
  trailer.set_producer_epoch(identity.epoch);
  return trailer.SerializeAsString();
}

}  // namespace seriatim
