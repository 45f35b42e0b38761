#include "json.h"

#include <cstdio>
#include <stdexcept>

namespace driver {

std::string from_latin1(const std::string& utf8) {
  std::string bytes;
  bytes.reserve(utf8.size());
  for (std::size_t i = 0; i < utf8.size(); ++i) {
    const auto first = static_cast<unsigned char>(utf8[i]);
    if (first < 0x80) {
      bytes.push_back(static_cast<char>(first));
      continue;
    }
    // Two bytes encode the characters up to 255.
    if ((first != 0xC2 && first != 0xC3) || i + 1 == utf8.size()) throw std::invalid_argument("not Latin-1: " + utf8);
    bytes.push_back(static_cast<char>((first & 3) << 6 | (utf8[++i] & 0x3F)));
  }
  return bytes;
}

std::string to_latin1(const std::string& bytes) {
  std::string utf8;
  utf8.reserve(bytes.size());
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      utf8.push_back(c);
    } else {
      utf8.push_back(static_cast<char>(0xC0 | byte >> 6));
      utf8.push_back(static_cast<char>(0x80 | (byte & 0x3F)));
    }
  }
  return utf8;
}

Json Json::of(std::string_view text) {
  std::string json = "\"";
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') {
      json += {'\\', text[i]};
    } else if (c < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", c);
      json += escaped;
    } else if (c < 0x80) {
      json.push_back(text[i]);
    } else {
      const std::size_t more = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : 1;
      std::size_t found = 0;
      while (found < more && i + found + 1 < text.size() && (text[i + found + 1] & 0xC0) == 0x80) ++found;
      if (c < 0xC2 || c > 0xF4 || found < more) {
        json += "\\ufffd";
      } else {
        json += text.substr(i, more + 1);
        i += more;
      }
    }
  }
  return {json + "\""};
}

Json Json::of(const std::map<std::string, std::string>& texts) {
  Fields fields;
  for (const auto& [name, text] : texts) fields[name] = of(std::string_view(text));
  return object(fields);
}

Json Json::of(const seriatim::Error& error) {
  return object({{"kind", of(to_string(error.kind()))},
                 {"code", of(to_string(error.code()))},
                 {"reason", of(std::string_view(error.reason()))},
                 {"outcome", of(to_string(error.outcome()))},
                 {"retry", of(to_string(error.retry()))},
                 {"message", of(std::string_view(error.message()))},
                 {"metadata", of(error.metadata())}});
}

Json object(const Fields& fields) {
  std::string json = "{";
  for (const auto& [name, value] : fields) {
    if (json.size() > 1) json += ",";
    json += Json::of(std::string_view(name)).text + ":" + value.text;
  }
  return {json + "}"};
}

Json array(const std::vector<Json>& values) {
  std::string json = "[";
  for (const auto& value : values) {
    if (json.size() > 1) json += ",";
    json += value.text;
  }
  return {json + "]"};
}

}  // namespace driver
