// Decodes and encodes the golden messages with the code that protoc generates for C++: roundtrip GOLDEN.

#include <cmath>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <limits>
#include <memory>
#include <sstream>
#include <string>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/util/json_util.h>

#include "seriatim/v1/cluster_service.pb.h"
#include "seriatim/v1/errors.pb.h"
#include "seriatim/v1/log_service.pb.h"

namespace {

namespace pb = google::protobuf;
namespace v1 = seriatim::v1;

[[noreturn]] void fail(const std::string& why) {
  std::cerr << "error: " << why << std::endl;
  std::exit(1);
}

#define EXPECT(condition) \
  if (!(condition)) fail("not true: " #condition)

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("cannot read " + path);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

std::string hex(const std::string& bytes) {
  const char* digits = "0123456789abcdef";
  std::string out;
  for (unsigned char c : bytes) {
    out += digits[c >> 4];
    out += digits[c & 15];
  }
  return out;
}

std::string encoded(const pb::Message& message) {
  std::string out;
  pb::io::StringOutputStream stream(&out);
  pb::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  if (!message.SerializeToCodedStream(&coded)) fail("cannot encode " + message.GetTypeName());
  coded.Trim();
  return out;
}

// Reads some fields by their generated names. Returns whether the message has a check.
bool check(const std::string& name, const pb::Message& message) {
  const std::string unicode = "größe 大小 😀";
  if (name == "record_extreme") {
    const auto& m = dynamic_cast<const v1::Record&>(message);
    EXPECT(m.offset() == std::numeric_limits<std::int64_t>::max());
    EXPECT(m.term() == (std::uint64_t{1} << 53) + 1);
    EXPECT(m.append_time_us() == std::numeric_limits<std::uint64_t>::max());
    EXPECT(m.type() == std::numeric_limits<std::uint32_t>::max());
    EXPECT(m.has_key() && m.key().empty());
    EXPECT(m.client_time_us() == std::numeric_limits<std::uint64_t>::max() - 1);
    EXPECT(m.headers_size() == 3 && m.headers(1).name() == unicode);
  } else if (name == "record_without_key") {
    const auto& m = dynamic_cast<const v1::Record&>(message);
    EXPECT(!m.has_key() && !m.has_client_time_us() && m.value() == "v");
  } else if (name == "get_node_response_full") {
    const auto& m = dynamic_cast<const v1::GetNodeResponse&>(message);
    EXPECT(m.metrics(2).value_case() == v1::Metric::kGauge);
    EXPECT(m.metrics(2).gauge() == -(std::int64_t{1} << 53) - 1);
    EXPECT(m.metrics(0).labels().at("ä") == "1");
    EXPECT(std::isinf(m.metrics(4).histogram().buckets(1).upper_bound()));
    EXPECT(m.groups(1).role() == v1::ROLE_LEADER && m.disk().state() == v1::DISK_STATE_FULL);
    EXPECT(m.groups(1).damaged_ranges(0).has_next_offset() && !m.groups(1).damaged_ranges(1).has_next_offset());
  } else if (name == "update_log_request_full") {
    const auto& m = dynamic_cast<const v1::UpdateLogRequest&>(message);
    EXPECT(m.has_log_id() && m.config().has_min_retained_bytes() && !m.config().has_max_record_bytes());
    EXPECT(m.update_mask().paths_size() == 3);
  } else if (name == "create_log_request_full") {
    const auto& m = dynamic_cast<const v1::CreateLogRequest&>(message);
    EXPECT(m.has_log_id() && m.validate_only() && m.config().labels().at("team") == unicode);
    EXPECT(m.config().replicas() == std::numeric_limits<std::uint32_t>::max());
  } else if (name == "update_cluster_request_full") {
    const auto& m = dynamic_cast<const v1::UpdateClusterRequest&>(message);
    const auto& settings = m.settings();
    EXPECT(settings.has_create_on_append() && !settings.create_on_append() && settings.has_deleted_log_retention());
    EXPECT(settings.log_defaults().has_replicas() && !settings.log_defaults().has_retention_age());
    EXPECT(m.has_expected_revision() && m.update_mask().paths(0) == "log_defaults.retention_age");
  } else {
    return false;
  }
  return true;
}

void show(const pb::EnumDescriptor& type) {
  std::cout << "{\"name\":\"" << type.full_name() << "\",\"enum\":{";
  for (int i = 0; i < type.value_count(); ++i) {
    std::cout << (i ? "," : "") << "\"" << type.value(i)->name() << "\":" << type.value(i)->number();
  }
  std::cout << "}}\n";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) fail("roundtrip GOLDEN");
  const std::string golden = argv[1];
  std::istringstream samples(read_file(golden + "/samples.txt"));
  std::string name, type_name;
  int checked = 0;
  while (samples >> name >> type_name) {
    const pb::Descriptor* type = pb::DescriptorPool::generated_pool()->FindMessageTypeByName(type_name);
    if (type == nullptr) fail("there is no message " + type_name);
    std::unique_ptr<pb::Message> message(pb::MessageFactory::generated_factory()->GetPrototype(type)->New());
    if (!message->ParseFromString(read_file(golden + "/" + name + ".bin"))) fail(name + " cannot be decoded");
    checked += check(name, *message);
    std::string json;
    if (!pb::util::MessageToJsonString(*message, &json).ok()) fail(name + " has no JSON");
    std::cout << "{\"name\":\"" << name << "\",\"bytes\":\"" << hex(encoded(*message)) << "\",\"json\":" << json << "}\n";
  }
  EXPECT(checked == 6);
  // One enum and one message of each file.
  for (const pb::FileDescriptor* file : {v1::Reason_descriptor()->file(), v1::Record::descriptor()->file(),
                                         v1::GetNodeResponse::descriptor()->file()}) {
    for (int i = 0; i < file->enum_type_count(); ++i) show(*file->enum_type(i));
  }
}
