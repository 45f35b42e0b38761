// The tests' own checks, so that they need no other library.
#pragma once

#include <cstdlib>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace check {

inline int failures = 0;

template <class A, class B>
void equal(const A& found, const B& expected, const char* file, int line) {
  if (found == expected) return;
  std::cerr << file << ":" << line << ": found " << found << ", expected " << expected << std::endl;
  ++failures;
}

inline void is_true(bool condition, const char* text, const char* file, int line) {
  if (condition) return;
  std::cerr << file << ":" << line << ": is not true: " << text << std::endl;
  ++failures;
}

using Tests = std::vector<std::pair<const char*, std::function<void()>>>;

/// Runs the tests whose name contains the first argument. Returns the exit code.
inline int run(const Tests& tests, int argc, char** argv) {
  const std::string only = argc > 1 ? argv[1] : "";
  for (const auto& [name, test] : tests) {
    if (std::string(name).find(only) == std::string::npos) continue;
    const int before = failures;
    try {
      test();
    } catch (const std::exception& error) {
      std::cerr << name << ": has thrown " << error.what() << std::endl;
      ++failures;
    }
    std::cout << (failures == before ? "ok      " : "FAILED  ") << name << std::endl;
  }
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace check

#define EQUAL(found, expected) check::equal((found), (expected), __FILE__, __LINE__)
#define TRUE(condition) check::is_true(static_cast<bool>(condition), #condition, __FILE__, __LINE__)
#define TEST(name) {#name, name}
