// SPDX-License-Identifier: Apache-2.0
// The control plane's HTTP API (docs/api.md) over its Unix socket or TLS, as the CLI calls it.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace sluice::cli {

using json = nlohmann::ordered_json;

// failure: what the user is told on stderr, one line each; the exit code is 1.
class failure : public std::runtime_error {
 public:
  explicit failure(const std::string& line) : std::runtime_error{line}, lines_{line} {}
  explicit failure(std::vector<std::string> lines)
      : std::runtime_error{lines.empty() ? "failed" : lines.front()}, lines_{std::move(lines)} {}
  [[nodiscard]] const std::vector<std::string>& lines() const noexcept { return lines_; }

 private:
  std::vector<std::string> lines_;
};

// unreachable: no control plane runs behind the socket. One that may not be asked, or does
// not answer in time, is a plain failure.
class unreachable : public failure {
 public:
  using failure::failure;
};

using query = std::vector<std::pair<std::string, std::string>>;

// endpoint: where the API is. With a URL the socket is not looked at.
struct endpoint {
  std::string socket;
  std::string url;         // https://HOST[:PORT]
  std::string token_file;  // its first line is the token
  std::string ca;          // PEM file that vouches for the server; empty: the system's
};

class client {
 public:
  client(endpoint at, std::chrono::seconds timeout) : at_{std::move(at)}, timeout_{timeout} {}

  // Each call returns the body of a 2xx answer, or throws failure with the errors that
  // the server gave (FILE:LINE: key: message).
  json get(std::string_view path, const query& q = {});
  std::string get_text(std::string_view path, const query& q = {});
  json put(std::string_view path, const query& q, const std::string& body);
  json post(std::string_view path, const json& body, const query& q = {});
  json patch(std::string_view path, const json& body);
  json remove(std::string_view path);
  // follow() hands on what comes, until there is no more or receive returns false.
  void follow(std::string_view path, const query& q,
              const std::function<bool(std::string_view)>& receive);

  void set_reason(std::string reason) { reason_ = std::move(reason); }
  // set_expected() has changes refused unless this is the newest revision; empty: never.
  void set_expected(std::string revision) { expected_ = std::move(revision); }

 private:
  std::string call(const std::string& method, const std::string& path, const query& q,
                   const std::string& body,
                   const std::function<bool(std::string_view)>& receive = {});
  [[nodiscard]] const std::string& name() const noexcept {
    return at_.url.empty() ? at_.socket : at_.url;
  }

  endpoint at_;
  std::chrono::seconds timeout_;
  std::string reason_;
  std::string expected_;
};

// percent_encode() makes a name safe as one path segment or query value.
std::string percent_encode(std::string_view text);

}  // namespace sluice::cli
