// The JSON of the driver: commands are read by protobuf, answers are written here, because protobuf writes offsets as
// strings.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "seriatim/error.h"

namespace driver {

/// Returns the bytes of a string with one character for each. Throws std::invalid_argument for other characters.
std::string from_latin1(const std::string& utf8);
std::string to_latin1(const std::string& bytes);

/// A value that is written already.
struct Json {
  std::string text;

  static Json of(std::uint64_t number) { return {std::to_string(number)}; }
  static Json of(bool value) { return {value ? "true" : "false"}; }
  /// The text is UTF-8; other bytes are replaced.
  static Json of(std::string_view text);
  static Json of(const char* text) { return of(std::string_view(text)); }
  static Json of(const std::map<std::string, std::string>& texts);
  static Json of(const seriatim::Error& error);
  static Json null() { return {"null"}; }
};

using Fields = std::map<std::string, Json>;

Json object(const Fields& fields);
Json array(const std::vector<Json>& values);

}  // namespace driver
