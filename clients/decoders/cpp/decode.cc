// Prints the golden responses as C++ decodes them: decode GOLDEN.

#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/health/v1/health.pb.h"
#include "log/v1/log.pb.h"
#include "seriatim/v1/cluster_service.pb.h"
#include "seriatim/v1/log_service.pb.h"

namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MessageFactory;
using google::protobuf::Reflection;

[[noreturn]] void fail(const std::string& why) {
  std::cerr << why << std::endl;
  std::exit(1);
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("cannot read " + path);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (unsigned char c : text) {
    char escaped[8];
    if (c < 0x20 || c == '"' || c == '\\') {
      std::snprintf(escaped, sizeof escaped, "\\u%04x", c);
      out += escaped;
    } else {
      out += static_cast<char>(c);
    }
  }
  return out + "\"";
}

std::string hex(const std::string& bytes) {
  std::string out;
  for (unsigned char c : bytes) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", c);
    out += two;
  }
  return out;
}

template <typename Number>
std::string number(Number value) {
  return quoted(std::to_string(value));
}

std::unique_ptr<Message> parsed(const std::string& type_name, const std::string& bytes) {
  const Descriptor* type = DescriptorPool::generated_pool()->FindMessageTypeByName(type_name);
  if (type == nullptr) fail("there is no message " + type_name);
  std::unique_ptr<Message> message(MessageFactory::generated_factory()->GetPrototype(type)->New());
  if (!message->ParseFromString(bytes)) fail(type_name + " cannot be read");
  return message;
}

std::string text(const Message& message);

// Returns a value as text. `i` is its position in a repeated field, otherwise -1.
std::string one(const Message& m, const FieldDescriptor* f, int i) {
  const Reflection& r = *m.GetReflection();
  std::string scratch;
  switch (f->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return number(i < 0 ? r.GetInt32(m, f) : r.GetRepeatedInt32(m, f, i));
    case FieldDescriptor::CPPTYPE_INT64:
      return number(i < 0 ? r.GetInt64(m, f) : r.GetRepeatedInt64(m, f, i));
    case FieldDescriptor::CPPTYPE_UINT32:
      return number(i < 0 ? r.GetUInt32(m, f) : r.GetRepeatedUInt32(m, f, i));
    case FieldDescriptor::CPPTYPE_UINT64:
      return number(i < 0 ? r.GetUInt64(m, f) : r.GetRepeatedUInt64(m, f, i));
    case FieldDescriptor::CPPTYPE_ENUM:
      return number(i < 0 ? r.GetEnumValue(m, f) : r.GetRepeatedEnumValue(m, f, i));
    case FieldDescriptor::CPPTYPE_BOOL:
      return (i < 0 ? r.GetBool(m, f) : r.GetRepeatedBool(m, f, i)) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return text(i < 0 ? r.GetMessage(m, f) : r.GetRepeatedMessage(m, f, i));
    case FieldDescriptor::CPPTYPE_STRING: {
      const std::string& value =
          i < 0 ? r.GetStringReference(m, f, &scratch) : r.GetRepeatedStringReference(m, f, i, &scratch);
      return quoted(f->type() == FieldDescriptor::TYPE_BYTES ? hex(value) : value);
    }
    default:
      fail("no response has a field of the type of " + f->full_name());
  }
}

std::string joined(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : ",") + part;
  return out;
}

std::string repeated(const Message& m, const FieldDescriptor* f) {
  std::vector<std::string> items;
  for (int i = 0; i < m.GetReflection()->FieldSize(m, f); ++i) {
    if (f->is_map()) {
      const Message& entry = m.GetReflection()->GetRepeatedMessage(m, f, i);
      const Descriptor* type = entry.GetDescriptor();
      items.push_back(one(entry, type->map_key(), -1) + ":" + one(entry, type->map_value(), -1));
    } else {
      items.push_back(one(m, f, i));
    }
  }
  return f->is_map() ? "{" + joined(items) + "}" : "[" + joined(items) + "]";
}

std::string text(const Message& m) {
  if (m.GetDescriptor()->full_name() == "google.protobuf.Any") {
    const auto& any = dynamic_cast<const google::protobuf::Any&>(m);
    const std::string& url = any.type_url();
    std::string fields = text(*parsed(url.substr(url.rfind('/') + 1), any.value())).substr(1);
    return "{\"@type\":" + quoted(url) + (fields == "}" ? "" : ",") + fields;
  }
  std::vector<const FieldDescriptor*> present;
  m.GetReflection()->ListFields(m, &present);
  std::vector<std::string> fields;
  for (const FieldDescriptor* f : present) {
    fields.push_back(quoted(f->name()) + ":" + (f->is_repeated() ? repeated(m, f) : one(m, f, -1)));
  }
  return "{" + joined(fields) + "}";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) fail("decode GOLDEN");
  // References all generated files, so that the linker keeps them.
  log::v1::Record::descriptor();
  seriatim::v1::GetNodeResponse::descriptor();
  seriatim::v1::ConsumeResponse::descriptor();
  grpc::health::v1::HealthCheckResponse::descriptor();
  google::rpc::Status::descriptor();
  google::rpc::ErrorInfo::descriptor();
  const std::string golden = argv[1];
  std::istringstream samples(read_file(golden + "/samples.txt"));
  std::string name, type;
  while (samples >> name >> type) {
    std::unique_ptr<Message> message = parsed(type, read_file(golden + "/" + name + ".bin"));
    std::cout << "{\"name\":" << quoted(name) << ",\"value\":" << text(*message) << "}\n";
  }
}
